//! docs/http.md: stacked requests run side by side on several servers and are answered in their order.

use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::obedient::{assert_pages, gets, page};
use cmim_tests::{Crew, Device, Php, skip};

/// `count` targets that differ, with the same words.
fn targets(count: usize, words: &str) -> Vec<String> {
    (0..count).map(|number| format!("/{number}?{words}")).collect()
}

#[test]
fn sixteen_100_ms_pages_over_four_servers_take_the_time_of_one() {
    const TRIES: usize = 3;
    const SPEC: Duration = Duration::from_millis(150);
    // For a machine with two CPUs that are busy with other tests; two rounds would take 200 ms.
    const TOLERANCE: Duration = Duration::from_millis(40);
    let crew = Crew::of(4);
    let device = crew.setup("max_requests = 4").start();
    let mut times = Vec::new();
    for attempt in 0..TRIES {
        let targets: Vec<String> = (0..16).map(|number| format!("/{attempt}/{number}?wait=100")).collect();
        let mut client = device.client();
        let start = Instant::now();
        client.send(gets(&targets));
        assert_pages(&mut client, &targets);
        times.push(start.elapsed());
    }
    skip::measured("16 stacked GETs for 100 ms pages, 4 servers of 4 at a time", &format!("{times:.1?}"));
    let best = times.iter().min().expect("a try");
    assert!(*best < SPEC + TOLERANCE, "{times:?}");
    assert_eq!(crew.most_at_once(), 16);
    for server in 0..4 {
        assert_eq!(crew.most_at_once_at(server), 4, "server {server}");
    }
}

#[test]
fn php_processes_share_a_stack_and_their_pages_get_lengths() {
    const PAGES: usize = 16;
    const PAGE: Duration = Duration::from_millis(50);
    let test = "16 stacked GETs for 50 ms pages, 4 `php -S` of one at a time";
    if skip::without_tools(test, &["php"]) {
        return;
    }
    let servers: Vec<Php> = (0..4).map(|_| Php::start()).collect();
    for server in &servers {
        let slow = "<?php usleep(50000); echo 'page ', $_GET['n'];";
        std::fs::write(server.root().join("slow.php"), slow).expect("a page");
    }
    let setup = servers.iter().fold(cmim_tests::Setup::before::<&str>(&[]), |setup, server| {
        setup.server(&format!("address = \"{}\", max_requests = 1", server.address()))
    });
    let device = setup.start();
    let mut client = device.client();
    let targets: Vec<String> = (0..PAGES).map(|number| format!("/slow.php?n={number}")).collect();
    let start = Instant::now();
    client.send(gets(&targets));
    for number in 0..PAGES {
        client.reply().assert_whole(format!("page {number}").as_bytes());
    }
    let spent = start.elapsed();
    skip::measured(test, &format!("{spent:.1?} (one after the other: {:.1?})", PAGE * 16));
    assert!(spent < PAGE * 16 / 2, "{spent:?}");
}

/// Three requests with the second as a barrier, and what the servers' logs have to say.
fn assert_barrier(crew: &Crew, device: &Device, case: usize, safe: [&str; 3], barrier: &str, content: &str) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| format!("/{case}/{name}?wait=80"));
    let mut client = device.client();
    let mut stack = Vec::new();
    stack.extend(request(safe[0], &a, "", b""));
    stack.extend(request(safe[1], &b, "", b""));
    stack.extend_from_slice(format!("{barrier} {c} HTTP/1.1\r\nHost: test.example\r\n{content}").as_bytes());
    stack.extend(request(safe[2], &d, "", b""));
    client.send(stack);
    for (method, target) in [(safe[0], &a), (safe[1], &b), (barrier, &c), (safe[2], &d)] {
        let reply = client.reply_to(method);
        assert_eq!(reply.status(), 200, "{barrier}: {target}");
        assert_eq!(reply.fields().only("content-length"), Some(target.len().to_string()), "{barrier}: {target}");
        let expected = if method == "HEAD" { Vec::new() } else { page(target) };
        assert_eq!(reply.text().as_bytes(), expected, "{barrier}: {target}");
    }
    client.assert_quiet();
    let [a, b, c, d] = [&a, &b, &c, &d].map(|target| crew.visit(target));
    assert!(a.overlaps(&b), "{barrier}: the first two did not run side by side: {a:?} {b:?}");
    assert!(c.began >= a.end() && c.began >= b.end(), "{barrier} began early: {a:?} {b:?} {c:?}");
    assert!(d.began >= c.end(), "the last began before {barrier} had ended: {c:?} {d:?}");
}

#[test]
fn a_request_that_is_not_safe_waits_for_all_before_it_and_keeps_all_behind_it() {
    const LENGTH: &str = "Content-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: t\r\n\r\n";
    const EMPTY: &str = "Content-Length: 0\r\n\r\n";
    const NONE: &str = "\r\n";
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let cases = [
        (["GET", "GET", "GET"], "POST", LENGTH),
        (["GET", "GET", "GET"], "POST", CHUNKED),
        (["GET", "GET", "GET"], "POST", EMPTY),
        (["HEAD", "HEAD", "HEAD"], "POST", LENGTH),
        (["OPTIONS", "OPTIONS", "OPTIONS"], "POST", CHUNKED),
        (["HEAD", "GET", "OPTIONS"], "PUT", LENGTH),
        (["GET", "HEAD", "GET"], "DELETE", NONE),
        (["OPTIONS", "GET", "HEAD"], "PATCH", CHUNKED),
        // What the device does not know could do anything.
        (["GET", "GET", "GET"], "PURGE", NONE),
    ];
    thread::scope(|scope| {
        for (case, (safe, barrier, content)) in cases.into_iter().enumerate() {
            let (crew, device) = (&crew, &device);
            scope.spawn(move || assert_barrier(crew, device, case, safe, barrier, content));
        }
    });
    assert_eq!(crew.faults(), [""; 0]);
}

#[test]
fn requests_that_are_not_safe_run_one_at_a_time_with_their_contents_whole() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    let mut client = device.client();
    let targets = targets(6, "wait=20");
    let contents: Vec<Vec<u8>> = (0..6).map(|number| vec![b'a' + number as u8; 1 << (4 * number)]).collect();
    for (target, content) in targets.iter().zip(&contents) {
        client.send(request("POST", target, "", content));
    }
    assert_pages(&mut client, &targets);
    assert_eq!(crew.most_at_once(), 1, "{:?}", crew.visits());
    let order: Vec<String> = crew.visits().into_iter().map(|visit| visit.target).collect();
    assert_eq!(order, targets);
    let mut received: Vec<Vec<u8>> = crew.servers().iter().flat_map(|s| s.requests()).map(|r| r.content).collect();
    received.sort_by_key(Vec::len);
    assert!(received == contents, "the contents differ");
}

#[test]
fn a_depth_of_one_distributes_nothing() {
    let crew = Crew::of(4);
    let device = crew.setup("").listener("pipeline_depth = 1").start();
    let mut client = device.client();
    let targets = targets(6, "wait=20");
    client.send(gets(&targets));
    assert_pages(&mut client, &targets);
    assert_eq!(crew.most_at_once(), 1);
    assert_eq!(device.figure("/stacked/distributed_total"), 0);
}

#[test]
fn reading_ahead_stops_at_the_depth() {
    for (keys, depth, count) in [("pipeline_depth = 2", 2, 8), ("pipeline_depth = 5", 5, 20), ("", 16, 48)] {
        let crew = Crew::of(3);
        let device = crew.setup("").listener(keys).start();
        let mut client = device.client();
        let targets = targets(count, "wait=40");
        client.send(gets(&targets));
        assert_pages(&mut client, &targets);
        assert_eq!(crew.most_at_once(), depth, "`{keys}`");
        assert_eq!(crew.visits().len(), count);
    }
}

#[test]
fn no_more_than_the_depth_is_read_while_nothing_is_answered() {
    let crew = Crew::of(2);
    let device = crew.setup("").listener("pipeline_depth = 3").start();
    let mut client = device.client();
    let targets = targets(9, "hold");
    client.send(gets(&targets));
    crew.wait_for_visits(3);
    cmim_tests::deadline::throughout("three are read", Duration::from_millis(200), || crew.visits().len() == 3);
    assert_eq!(device.figure("/requests_total"), 3);
    crew.release();
    assert_pages(&mut client, &targets);
}

#[test]
fn dynamic_replies_keep_their_order_and_get_lengths() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    let mut client = device.client();
    let targets: Vec<String> = (0..24)
        .map(|number| {
            let delimited = ["chunked", "close", "length"][number % 3];
            let size = [0, 1, 1000, 70_000, 300_000][number % 5];
            // The earlier ones are the slower ones.
            format!("/{number}?as={delimited}&size={size}&wait={}", (24 - number) % 16 * 8)
        })
        .collect();
    client.send(gets(&targets));
    assert_pages(&mut client, &targets);
    client.assert_quiet();
}

#[test]
fn eight_large_replies_come_in_order_with_their_own_bytes() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    let mut client = device.client();
    let targets: Vec<String> =
        (0..8).map(|number| format!("/{number}/large?size=5000000&as={}", ["length", "chunked"][number % 2])).collect();
    client.send(gets(&targets));
    assert_pages(&mut client, &targets);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn the_due_reply_streams_while_the_others_wait_and_their_servers_are_free() {
    let crew = Crew::of(3);
    let device = crew.setup("max_requests = 1").start();
    let mut client = device.client();
    let targets = ["/first?size=2000000&stall", "/second?size=100000", "/third?size=100000&as=chunked"];
    client.send(gets(&targets));
    let first = page(targets[0]);
    let head = client.head("GET");
    assert_eq!(head.fields.only("content-length"), Some(first.len().to_string()), "{head:?}");
    // Half of it, although the server has not sent the other half yet.
    let mut content = Vec::new();
    client.wire().exactly(1_000_000, &mut |part| content.extend_from_slice(part)).expect("the first half");
    assert!(crew.visit(targets[0]).ended.is_none());
    let in_flight = || -> u64 {
        let servers = device.json(&["servers"]);
        servers.as_array().into_iter().flatten().filter_map(|server| server["in_flight"].as_u64()).sum()
    };
    until_true("the other two servers are free", PATIENCE, || in_flight() == 1);
    device.client().get("/other").assert_whole(b"/other");
    crew.release();
    client.wire().exactly(1_000_000, &mut |part| content.extend_from_slice(part)).expect("the second half");
    assert!(content == first, "the content differs");
    assert_pages(&mut client, &targets[1..]);
}

#[test]
fn the_figures_of_stacks_add_up() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    let mut client = device.client();
    let held = targets(8, "hold");
    client.send(gets(&held));
    crew.wait_for_visits(8);
    let status = device.status();
    assert_eq!(status["requests_total"], 8, "{status}");
    assert_eq!(status["stacked"]["noticed_total"], 7, "all but the first came behind another: {status}");
    assert_eq!(status["stacked"]["distributed_total"], 7, "{status}");
    assert_eq!(status["stacked"]["in_flight"], 7, "{status}");
    assert_eq!(status["jobs"]["active"], 8, "{status}");
    assert_eq!(device.json(&["connections"])[0]["stacked"], 8);
    crew.release();
    assert_pages(&mut client, &held);
    device.wait_until_at_rest(PATIENCE);
    assert_eq!(device.figure("/jobs/done_total"), 8);
    assert_eq!(device.json(&["connections"])[0]["stacked"], 0);
    // One by one is no stack.
    for _ in 0..3 {
        client.get("/alone");
    }
    assert_eq!(device.figure("/stacked/noticed_total"), 7);
}

#[test]
fn the_access_log_tells_a_stacked_request() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    let stack = ["/0?wait=120", "/1", "/2?as=chunked"];
    client.send(gets(&stack));
    assert_pages(&mut client, &stack);
    client.get("/alone");
    let lines = cmim_tests::deadline::until("four lines", PATIENCE, || {
        Some(device.access_log()).filter(|lines| lines.len() == 4)
    });
    let addresses = crew.addresses();
    for (depth, (line, target)) in lines.iter().zip(stack).enumerate() {
        assert_eq!(line["target"], target, "the log keeps the order of the replies: {line}");
        assert_eq!(line["stacked"], depth + 1, "{line}");
        assert!(addresses.iter().any(|address| line["server"] == address.as_str()), "{line}");
        assert_eq!(line["turn_ms"].is_f64(), depth > 0, "a wait for its turn belongs to a stacked one: {line}");
    }
    for line in &lines[1..3] {
        let waited = line["turn_ms"].as_f64().unwrap_or_default();
        assert!((50.0..2000.0).contains(&waited), "it waited for a page of 120 ms: {line}");
    }
    assert_eq!(lines[3]["stacked"], 1, "{}", lines[3]);
}
