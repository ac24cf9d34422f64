//! docs/http.md and 3: every request is a job that is counted, listed and can be stopped.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until};
use cmim_tests::origin::obedient::{assert_pages, gets};
use cmim_tests::wire::WireError;
use cmim_tests::{Client, Crew, Device, skip};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The job for `target` once it is in `state`.
#[track_caller]
fn job(device: &Device, target: &str, state: &str) -> Value {
    until(&format!("{target} is {state}"), PATIENCE, || {
        let jobs = device.json(&["jobs"]);
        let mut all = jobs.as_array().cloned().unwrap_or_default().into_iter();
        all.find(|job| job["target"] == target && job["state"] == state)
    })
}

fn cancel(device: &Device, id: &str) -> Output {
    device.cmim(&["jobs", "cancel", id])
}

/// Stops the job for `target`, which is in `state`.
#[track_caller]
fn stop(device: &Device, target: &str, state: &str) {
    let job = job(device, target, state);
    let id = job["id"].as_str().unwrap_or_else(|| panic!("no id: {job}"));
    let output = cancel(device, id);
    assert_eq!(output.status.code(), Some(0), "{job}: {}", text(&output.stderr));
    assert!(text(&output.stdout).contains(id), "{job}: {}", text(&output.stdout));
}

#[test]
fn jobs_lists_each_request_with_its_state_and_server() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 2").start();
    assert_eq!(device.json(&["jobs"]), Value::Array(Vec::new()));
    let mut first = device.client();
    first.send(gets(&["/replying?stall&size=100000", "/dispatched?hold"]));
    first.send(request("POST", "/received", "", b"hello"));
    crew.wait_for_visits(2);
    let mut second = device.client();
    second.send(request("GET", "/queued?x=%22y", "", b""));
    let server = crew.addresses().remove(0);
    let peer = |client: &mut Client| {
        client.wire().socket().local_addr().ok().and_then(|a| a.as_socket()).expect("an address").to_string()
    };
    let (first_peer, second_peer) = (peer(&mut first), peer(&mut second));
    let expected = [
        ("/replying?stall&size=100000", "GET", "replying", server.as_str(), &first_peer),
        ("/dispatched?hold", "GET", "dispatched", server.as_str(), &first_peer),
        ("/received", "POST", "received", "", &first_peer),
        ("/queued?x=%22y", "GET", "queued", "", &second_peer),
    ];
    let mut ids = BTreeMap::new();
    for (target, method, state, server, client) in expected {
        let job = job(&device, target, state);
        assert_eq!(
            (&job["method"], &job["server"], &job["client"]),
            (&method.into(), &server.into(), &(client.as_str()).into()),
            "{job}"
        );
        assert!(job["age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{job}");
        ids.insert(job["id"].as_str().expect("an id").to_owned(), target);
    }
    assert_eq!(ids.len(), 4, "ids are shared: {ids:?}");
    assert!(job(&device, expected[0].0, "replying")["bytes"].as_u64() >= Some(40_000));
    let table = text(&device.cmim(&["jobs"]).stdout);
    for (id, target) in &ids {
        let line =
            table.lines().find(|line| line.starts_with(id.as_str())).unwrap_or_else(|| panic!("{id} in {table}"));
        assert!(line.ends_with(target), "{line}");
    }
    assert_eq!((device.figure("/jobs/active"), device.figure("/jobs/queued")), (3, 1));
    crew.release();
    assert_pages(&mut first, &["/replying?stall&size=100000", "/dispatched?hold", "/received"]);
    assert_pages(&mut second, &["/queued?x=%22y"]);
    assert_eq!(device.json(&["jobs"]), Value::Array(Vec::new()));
}

#[test]
fn a_queued_job_that_is_stopped_is_503_and_the_queue_goes_on() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").start();
    let mut first = device.client();
    first.send(gets(&["/first?hold"]));
    crew.wait_for_visits(1);
    let mut second = device.client();
    second.send(gets(&["/second"]));
    job(&device, "/second", "queued");
    let mut third = device.client();
    third.send(gets(&["/third"]));
    job(&device, "/third", "queued");
    stop(&device, "/second", "queued");
    assert_eq!(second.reply().status(), 503);
    crew.release();
    assert_pages(&mut first, &["/first?hold"]);
    assert_pages(&mut third, &["/third"]);
    second.get("/again").assert_whole(b"/again");
    assert!(!crew.visits().iter().any(|visit| visit.target == "/second"));
    assert_eq!(device.figure("/jobs/cancelled_total"), 1);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_dispatched_job_that_is_stopped_is_503_and_frees_its_server() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").start();
    for (method, content) in [("GET", ""), ("HEAD", ""), ("POST", "hello"), ("OPTIONS", "")] {
        let mut client = device.client();
        let target = format!("/{method}?fault=silent");
        client.send(request(method, &target, "", content.as_bytes()));
        stop(&device, &target, "dispatched");
        let reply = client.reply_to(method);
        assert_eq!(reply.status(), 503, "{method}: {reply:?}");
        client.assert_quiet();
        // The connection and the server take the next one.
        client.get("/next").assert_whole(b"/next");
        device.wait_until_at_rest(PATIENCE);
    }
    assert_eq!(device.figure("/jobs/cancelled_total"), 4);
}

#[test]
fn a_replying_job_that_is_stopped_is_a_reset() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    client.send(gets(&["/stalled?stall&size=100000", "/behind"]));
    client.head("GET");
    stop(&device, "/stalled?stall&size=100000", "replying");
    let cut = client.content(cmim_tests::Framing::Length(100_000), &mut |_| ());
    assert!(matches!(cut, Err(WireError::Reset)), "{cut:?}");
    device.wait_until_at_rest(PATIENCE);
    device.client().get("/other").assert_whole(b"/other");
}

/// A reply of which nothing has been sent can still be taken back.
#[test]
fn a_job_that_is_stopped_while_its_reply_is_held_is_503() {
    let crew = Crew::of(2);
    let device = crew.setup("").upstream("hold_time = \"60s\"").start();
    let mut client = device.client();
    let target = "/held?stall&as=chunked&size=100000";
    client.send(gets(&[target]));
    stop(&device, target, "replying");
    assert_eq!(client.reply().status(), 503);
    client.get("/next").assert_whole(b"/next");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_job_that_is_stopped_in_a_stack_leaves_its_neighbours_whole() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    for (number, (middle, state)) in
        [("/2?hold", "dispatched"), ("/2?stall&size=5000", "replying"), ("/2?stall&as=chunked", "replying")]
            .into_iter()
            .enumerate()
    {
        let mut client = device.client();
        let middle = format!("{middle}&n={number}");
        client.send(gets(&["/1?hold", middle.as_str(), "/3", "/4?as=chunked"]));
        stop(&device, &middle, state);
        crew.release();
        assert_pages(&mut client, &["/1?hold"]);
        let reply = client.reply();
        assert_eq!(reply.status(), 503, "{middle}: {reply:?}");
        assert_pages(&mut client, &["/3", "/4?as=chunked"]);
        client.get("/next").assert_whole(b"/next");
        device.wait_until_at_rest(PATIENCE);
        crew.hold_again();
    }
    assert_eq!(device.figure("/jobs/cancelled_total"), 3);
}

#[test]
fn a_job_that_is_stopped_behind_a_barrier_never_starts() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    let stack =
        [request("POST", "/post?hold", "", b"hello"), gets(&["/waits", "/last"]), request("PUT", "/put", "", b"hi")];
    client.send(stack.concat());
    stop(&device, "/waits", "received");
    stop(&device, "/put", "received");
    crew.release();
    assert_pages(&mut client, &["/post?hold"]);
    assert_eq!(client.reply().status(), 503);
    assert_pages(&mut client, &["/last"]);
    assert_eq!(client.reply_to("PUT").status(), 503);
    let targets: Vec<String> = crew.visits().into_iter().map(|visit| visit.target).collect();
    assert_eq!(targets, ["/post?hold", "/last"]);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn the_reply_to_a_stopped_last_request_says_close() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = device.client();
    client.send(request("GET", "/last?fault=silent", "Connection: close\r\n", b""));
    stop(&device, "/last?fault=silent", "dispatched");
    let reply = client.reply();
    assert_eq!(reply.status(), 503);
    assert!(reply.fields().lists("connection", "close"), "the connection ends: {reply:?}");
    client.assert_ended();
}

#[test]
fn a_stopped_job_has_its_line_in_the_access_log() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = device.client();
    client.send(request("GET", "/stopped?fault=silent", "User-Agent: tests\r\n", b""));
    stop(&device, "/stopped?fault=silent", "dispatched");
    assert_eq!(client.reply().status(), 503);
    client.get("/next").assert_whole(b"/next");
    let logged = |line: &Value| line["target"] == "/next";
    let lines =
        until("the next one's line", PATIENCE, || Some(device.access_log()).filter(|all| all.iter().any(logged)));
    assert_eq!(lines.len(), 2, "a line a request: {lines:?}");
    let line = &lines[0];
    assert_eq!((&line["method"], &line["target"]), (&"GET".into(), &"/stopped?fault=silent".into()), "{line}");
    assert_eq!(line["status"], 503, "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("operator")), "{line}");
}

#[test]
fn stopping_what_is_not_there_exits_1_in_one_line() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = device.client();
    client.get("/done");
    client.send(gets(&["/here?hold"]));
    let here = job(&device, "/here?hold", "dispatched")["id"].as_str().expect("an id").to_owned();
    let (connection, seq) = here.split_once('.').expect("two numbers");
    let finished = format!("{connection}.{}", seq.parse::<u64>().expect("a number") - 1);
    let longer = format!("{here}.0");
    let far = "99999999999999999999999.0";
    for id in [finished.as_str(), "777777.0", connection, "", ".", "x", &longer, far, "1.x", "a\nb"] {
        let output = cancel(&device, id);
        assert_eq!(output.status.code(), Some(1), "`{id}`: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr).trim_end().lines().count(), 1, "`{id}`: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "`{id}`: {}", text(&output.stdout));
    }
    assert_eq!(device.cmim(&["jobs", "cancel"]).status.code(), Some(2), "an id is wanted");
    crew.release();
    assert_pages(&mut client, &["/here?hold"]);
}

/// One client's mixed traffic until it is over: stacks with faults and barriers, and leaving in the middle.
fn traffic(device: &Device, over: &AtomicBool, number: usize) {
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        let mut client = device.client();
        let slow = format!("/{number}?wait={}", 1 + round % 7);
        let mut stack = gets(&[slow.as_str(), "/a", "/b?fault=lengths&wait=1", "/c?as=chunked", "/d?size=200000"]);
        stack.extend(request("POST", "/e?wait=2", "", b"hello"));
        stack.extend(gets(&["/f?wait=3", "/g"]));
        client.send(stack);
        let read = if round % 3 == 0 { round % 8 } else { 8 };
        for _ in 0..read {
            if client.try_reply("GET").is_err() {
                break;
            }
        }
        if round % 6 == 0 {
            client.into_wire().reset();
        }
    }
}

#[test]
fn received_is_queued_and_active_and_finished_at_every_instant() {
    const SAMPLES: usize = 300;
    let crew = Crew::of(2);
    let device = crew.setup("max_requests = 3").upstream("queue_limit = 12").start();
    let over = AtomicBool::new(false);
    let (mut wrong, mut busy, mut queued) = (Vec::new(), 0, 0);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..6 {
            let (device, over) = (&device, &over);
            scope.spawn(move || traffic(device, over, number));
        }
        for _ in 0..SAMPLES {
            let status = device.status();
            let figure = |pointer| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(u64::MAX / 8);
            let (active, waiting) = (figure("/jobs/active"), figure("/jobs/queued"));
            let done = figure("/jobs/done_total");
            if figure("/requests_total") != active + waiting + done
                || done < figure("/jobs/failed_total") + figure("/jobs/cancelled_total")
            {
                wrong.push(status.clone());
            }
            busy += usize::from(active > 0);
            queued += usize::from(waiting > 0);
        }
        over.store(true, Ordering::Relaxed);
    });
    let status = device.status();
    skip::measured(
        "the sum of the jobs",
        &format!(
            "{SAMPLES} samples in {:.1?}, {busy} with active jobs, {queued} with queued ones, {}",
            start.elapsed(),
            status["jobs"]
        ),
    );
    assert!(wrong.is_empty(), "{} of {SAMPLES} samples do not add up, first: {}", wrong.len(), wrong[0]);
    assert!(busy > SAMPLES / 2 && queued > SAMPLES / 10, "not much of a load: {busy} busy, {queued} queued");
    let jobs = &status["jobs"];
    assert!(jobs["failed_total"].as_u64() > Some(0) && jobs["cancelled_total"].as_u64() > Some(0), "{jobs}");
    device.wait_until_at_rest(Duration::from_secs(2));
}
