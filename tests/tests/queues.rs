//! docs/http.md: a server takes `max_requests` at once, the others wait in a bounded queue.

use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, throughout, until_true};
use cmim_tests::origin::obedient::{assert_pages, gets};
use cmim_tests::{Client, Crew, Device, Reply};
use serde_json::Value;

/// The queue of the one upstream.
#[track_caller]
fn queue(device: &Device) -> Value {
    let queues = device.json(&["queues"]);
    assert_eq!(queues.as_array().map(Vec::len), Some(1), "{queues}");
    queues[0].clone()
}

#[track_caller]
fn until_waiting(device: &Device, count: u64) {
    until_true(&format!("{count} wait"), PATIENCE, || queue(device)["waiting"] == count);
}

/// A client whose request a server holds, the servers' only places taken.
fn occupied(device: &Device, crew: &Crew, places: usize) -> Vec<Client> {
    let targets: Vec<String> = (0..places).map(|number| format!("/occupied/{number}?hold")).collect();
    let clients = targets.iter().map(|target| {
        let mut client = device.client();
        client.send(gets(&[target]));
        client
    });
    let clients = clients.collect();
    crew.wait_for_visits(places);
    clients
}

#[track_caller]
fn assert_busy(reply: &Reply) {
    assert_eq!(reply.status(), 503, "{reply:?}");
    let after = reply.fields().only("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(after.is_some_and(|seconds| (1..=60).contains(&seconds)), "Retry-After: {reply:?}");
    assert!(!reply.fields().lists("connection", "close"), "no reason to close: {reply:?}");
}

#[test]
fn queues_shows_what_waits_since_when_and_what_was_refused() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").upstream("queue_limit = 3").start();
    let idle = queue(&device);
    assert_eq!((&idle["upstream"], &idle["waiting"], &idle["limit"]), (&"app".into(), &0.into(), &3.into()), "{idle}");
    assert_eq!((&idle["refused_total"], idle["oldest_seconds"].as_f64()), (&0.into(), Some(0.0)), "{idle}");
    let _occupied = occupied(&device, &crew, 1);
    let mut client = device.client();
    let start = Instant::now();
    client.send(gets(&["/1"]));
    until_waiting(&device, 1);
    client.send(gets(&["/2", "/3", "/4", "/5"]));
    until_true("two are refused", PATIENCE, || queue(&device)["refused_total"] == 2);
    thread::sleep(Duration::from_millis(200));
    let full = queue(&device);
    assert_eq!(full["waiting"], 3, "{full}");
    let oldest = full["oldest_seconds"].as_f64().expect("a number");
    assert!((0.2..start.elapsed().as_secs_f64()).contains(&oldest), "{full}");
    assert_eq!(device.figure("/jobs/queued"), 3);
    let table = String::from_utf8_lossy(&device.cmim(&["queues"]).stdout).into_owned();
    let line: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((line.first(), line.get(1), line.last()), (Some(&"app"), Some(&"3"), Some(&"2")), "{table}");
    crew.release();
    assert_pages(&mut client, &["/1", "/2", "/3"]);
    assert_busy(&client.reply());
    assert_busy(&client.reply());
    let after = queue(&device);
    assert_eq!((&after["waiting"], &after["refused_total"]), (&0.into(), &2.into()), "{after}");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn above_queue_limit_a_request_is_503_and_counts_as_failed() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").upstream("queue_limit = 1").start();
    let mut occupied = occupied(&device, &crew, 1);
    let mut waiting = device.client();
    waiting.send(gets(&["/waits"]));
    until_waiting(&device, 1);
    for method in ["GET", "HEAD", "POST"] {
        let mut refused = device.client();
        refused.send(request(method, "/refused", "", if method == "POST" { b"hello" } else { b"" }));
        assert_busy(&refused.reply_to(method));
        refused.assert_quiet();
    }
    let jobs = device.status()["jobs"].clone();
    assert_eq!((&jobs["failed_total"], &jobs["done_total"]), (&3.into(), &3.into()), "{jobs}");
    crew.release();
    assert_pages(&mut occupied[0], &["/occupied/0?hold"]);
    assert_pages(&mut waiting, &["/waits"]);
    assert!(!crew.visits().iter().any(|visit| visit.target == "/refused"));
    let lines = cmim_tests::deadline::until("five lines", PATIENCE, || {
        Some(device.access_log()).filter(|lines| lines.len() == 5)
    });
    let refused: Vec<&Value> = lines.iter().filter(|line| line["target"] == "/refused").collect();
    assert_eq!(refused.len(), 3, "{lines:?}");
    assert!(refused.iter().all(|line| line["status"] == 503 && line["reason"].is_string()), "{refused:?}");
    let waited = lines.iter().find(|line| line["target"] == "/waits").expect("its line");
    assert!(waited["queue_ms"].as_f64() > Some(1.0), "{waited}");
}

#[test]
fn a_limit_of_nothing_refuses_at_once() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").upstream("queue_limit = 0").start();
    let _occupied = occupied(&device, &crew, 1);
    assert_busy(&device.client().get("/refused"));
    crew.release();
    until_true("the place is free", PATIENCE, || device.client().get("/next").status() == 200);
}

#[test]
fn after_queue_timeout_a_request_is_503_and_the_others_wait_on() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").upstream("queue_timeout = \"300ms\"").start();
    let mut occupied = occupied(&device, &crew, 1);
    let mut client = device.client();
    let start = Instant::now();
    client.send(gets(&["/late", "/later"]));
    assert_busy(&client.reply());
    assert_busy(&client.reply());
    let spent = start.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_millis(900)).contains(&spent), "{spent:?}");
    assert_eq!(queue(&device)["waiting"], 0);
    let mut waiting = device.client();
    waiting.send(gets(&["/in-time"]));
    until_waiting(&device, 1);
    crew.release();
    assert_pages(&mut occupied[0], &["/occupied/0?hold"]);
    assert_pages(&mut waiting, &["/in-time"]);
    client.get("/next").assert_whole(b"/next");
    assert_eq!(device.figure("/jobs/failed_total"), 2);
    assert_eq!(crew.visits().len(), 3, "{:?}", crew.visits());
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn what_one_client_queued_comes_in_its_order() {
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").start();
    let mut occupied = occupied(&device, &crew, 1);
    let mut client = device.client();
    let targets: Vec<String> = (0..10).map(|number| format!("/{number}")).collect();
    client.send(gets(&targets));
    until_waiting(&device, 10);
    crew.release();
    assert_pages(&mut client, &targets);
    assert_pages(&mut occupied[0], &["/occupied/0?hold"]);
    let order: Vec<String> = crew.visits().into_iter().skip(1).map(|visit| visit.target).collect();
    assert_eq!(order, targets);
}

#[test]
fn a_place_that_becomes_free_without_a_reply_goes_to_who_waits() {
    for fault in ["close", "reset", "lengths", "silent"] {
        let crew = Crew::of(1);
        let device =
            crew.setup("max_requests = 1").upstream("retries = 0").timeouts("server_first_byte = \"300ms\"").start();
        let mut client = device.client();
        let faulty = format!("/faulty?wait=50&fault={fault}");
        client.send(gets(&[faulty.as_str(), "/waits"]));
        assert!(client.reply().status() >= 502, "{fault}");
        assert_pages(&mut client, &["/waits"]);
    }
    // And where the client that had it leaves.
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").start();
    let mut leaving = device.client();
    leaving.send(gets(&["/leaving?fault=silent"]));
    crew.wait_for_visits(1);
    let mut waiting = device.client();
    waiting.send(gets(&["/waits"]));
    until_waiting(&device, 1);
    leaving.into_wire().reset();
    assert_pages(&mut waiting, &["/waits"]);
}

#[test]
fn max_requests_is_kept_exactly_over_two_workers() {
    const MOST: [usize; 3] = [1, 2, 4];
    let crew = Crew::of(MOST.len());
    let setup =
        crew.addresses().iter().zip(MOST).fold(cmim_tests::Setup::before::<&str>(&[]), |setup, (address, most)| {
            setup.server(&format!("address = \"{address}\", max_requests = {most}"))
        });
    let device = setup.start();
    thread::scope(|scope| {
        for client_number in 0..24 {
            let device = &device;
            scope.spawn(move || {
                let mut client = device.client();
                for round in 0..6 {
                    let targets: Vec<String> = (0..1 + (client_number + round) % 4)
                        .map(|number| format!("/{client_number}/{round}/{number}?wait={}", 1 + (number * 3) % 7))
                        .collect();
                    client.send(gets(&targets));
                    assert_pages(&mut client, &targets);
                }
            });
        }
    });
    for (server, most) in MOST.into_iter().enumerate() {
        assert_eq!(crew.most_at_once_at(server), most, "server {server} with max_requests = {most}");
    }
    device.wait_until_at_rest(PATIENCE);
    assert_eq!(queue(&device)["refused_total"], 0);
}

#[test]
fn a_full_upstream_leaves_another_alone() {
    let (crew, other) = (Crew::of(1), Crew::of(1));
    let device = crew
        .setup("max_requests = 1")
        .listener("routes = [ { path = \"/other/\", upstream = \"other\" } ]")
        .tables(&format!(
            "[[upstream]]\nname = \"other\"\nservers = [{{ address = \"{}\", max_requests = 1 }}]",
            other.addresses()[0]
        ))
        .start();
    let _occupied = occupied(&device, &crew, 1);
    let mut waiting = device.client();
    waiting.send(gets(&["/waits"]));
    until_true("it waits", PATIENCE, || device.figure("/jobs/queued") == 1);
    let mut client = device.client();
    for number in 0..20 {
        let target = format!("/other/{number}");
        client.get(&target).assert_whole(target.as_bytes());
    }
    let queues = device.json(&["queues"]);
    assert_eq!((&queues[0]["waiting"], &queues[1]["waiting"]), (&1.into(), &0.into()), "{queues}");
    throughout("it waits on", Duration::from_millis(50), || device.figure("/jobs/queued") == 1);
    crew.release();
    assert_pages(&mut waiting, &["/waits"]);
}
