//! docs/http.md: a reply's failure is that request's 502 or 504 in its place; its neighbours are whole and the connection goes on.

use std::thread;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::obedient::{FAULTS, assert_pages, gets, page};
use cmim_tests::wire::WireError;
use cmim_tests::{Client, Crew, Device};

/// Short enough for a test; longer than what the first of a stack takes.
const TIMEOUTS: &str = "server_first_byte = \"800ms\"\nserver_idle = \"200ms\"";
/// The first of a stack: the others fail before it is their turn.
const FIRST: &str = "/first?wait=400";

/// Sends GETs for these, and holds those without a fault to be pages and the others to have this status.
#[track_caller]
fn assert_in_place(client: &mut Client, targets: &[&str], status: u16) {
    client.send(gets(targets));
    for target in targets {
        let reply = client.try_reply("GET").unwrap_or_else(|error| panic!("{target}: {error}"));
        if target.contains("fault=") {
            assert_eq!(reply.status(), status, "{target}: {reply:?}");
            assert!(!reply.fields().lists("connection", "close"), "{target}: {reply:?}");
        } else {
            reply.assert_whole(&page(target));
        }
    }
}

fn assert_fault_in_the_middle(servers: usize, fault: &str, status: u16) {
    let crew = Crew::of(servers);
    let device = crew.setup("").timeouts(TIMEOUTS).start();
    let mut client = device.client();
    let faulty = format!("/faulty?fault={fault}");
    assert_in_place(&mut client, &[FIRST, "/second", &faulty, "/fourth", "/last?as=chunked&size=100000"], status);
    client.get("/behind").assert_whole(b"/behind");
    client.assert_quiet();
    let rested = device.wait_until_at_rest(PATIENCE);
    assert!(rested.as_secs() < 1, "{fault}: {rested:?}");
    let jobs = device.status()["jobs"].clone();
    assert_eq!((&jobs["done_total"], &jobs["failed_total"]), (&6.into(), &1.into()), "{fault}: {jobs}");
}

#[test]
fn a_reply_that_fails_before_its_turn_is_502_or_504_in_its_place() {
    thread::scope(|scope| {
        for (fault, status) in FAULTS {
            scope.spawn(move || assert_fault_in_the_middle(3, fault, status));
        }
    });
}

#[test]
fn the_same_holds_where_there_is_only_one_server() {
    thread::scope(|scope| {
        for (fault, status) in FAULTS {
            scope.spawn(move || assert_fault_in_the_middle(1, fault, status));
        }
    });
}

#[test]
fn several_failures_in_one_stack_are_each_in_their_place() {
    let crew = Crew::of(4);
    let device = crew.setup("").timeouts(TIMEOUTS).start();
    let mut client = device.client();
    let stack = [
        "/1?fault=garbage",
        "/2?wait=100",
        "/3?fault=lengths",
        "/4?fault=garbage&n=2",
        "/5?as=close",
        "/6?fault=chunk",
    ];
    assert_in_place(&mut client, &stack, 502);
    client.get("/behind").assert_whole(b"/behind");
}

/// Faults that show only in the content: the head has gone out when it is this reply's turn.
#[test]
fn a_reply_that_is_cut_in_its_turn_resets_the_connection_and_those_before_it_are_whole() {
    for fault in ["pause", "truncate", "break"] {
        let crew = Crew::of(3);
        let device = crew.setup("").timeouts(TIMEOUTS).start();
        let mut client = device.client();
        let faulty = format!("/faulty?wait=100&fault={fault}");
        client.send(gets(&["/first", "/second", faulty.as_str(), "/never"]));
        assert_pages(&mut client, &["/first", "/second"]);
        let cut = client.try_reply("GET");
        assert!(matches!(cut, Err(WireError::Reset)), "{fault}: {cut:?}");
        device.wait_until_at_rest(PATIENCE);
    }
}

/// What stands behind a failed GET in `stack` is answered too.
#[track_caller]
fn assert_answered_behind(device: &Device, methods: &[&str], stack: &[u8], expected: &[u16]) {
    let mut client = device.client();
    client.send(stack);
    for (number, (method, status)) in methods.iter().zip(expected).enumerate() {
        let reply = client.try_reply(method).unwrap_or_else(|error| panic!("reply {number} ({method}): {error}"));
        assert_eq!(reply.status(), *status, "reply {number} ({method}): {reply:?}");
    }
    client.get("/behind").assert_whole(b"/behind");
}

#[test]
fn a_reply_that_must_be_held_waits_for_room_until_its_turn() {
    let crew = Crew::of(3);
    let device = crew
        .setup("")
        .buffer("memory = \"100KiB\"\nmemory_per_reply = \"100KiB\"")
        .upstream("length_rewrite = \"always\"")
        .start();
    let targets = ["/1?stall&size=1000", "/2?as=chunked&size=80000", "/3?as=chunked&size=60000"];
    let mut client = device.client();
    client.send(gets(&targets[..2]));
    until_true("the second is held", PATIENCE, || device.figure("/buffers/memory/used") == 80_000);
    client.send(gets(&targets[2..]));
    until_true("the third finds no room", PATIENCE, || device.figure("/buffers/memory/refused_total") > 0);
    crew.release();
    assert_pages(&mut client, &targets);
    client.assert_quiet();
}

#[test]
fn a_failed_get_before_a_post_leaves_the_post_alone() {
    let crew = Crew::of(2);
    let device = crew.setup("").timeouts(TIMEOUTS).start();
    let chunked = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
    for post in [request("POST", "/p", "", b"hello"), chunked] {
        let stack = [gets(&["/1?wait=50", "/2?fault=lengths"]), post, gets(&["/4"])].concat();
        assert_answered_behind(&device, &["GET", "GET", "POST", "GET"], &stack, &[200, 502, 200, 200]);
    }
}

#[test]
fn a_failed_post_between_gets_is_502_in_its_place() {
    let crew = Crew::of(2);
    let device = crew.setup("").timeouts(TIMEOUTS).start();
    for fault in ["close", "lengths"] {
        let post = request("POST", &format!("/2?fault={fault}"), "", b"hello");
        let stack = [gets(&["/1?wait=50"]), post, gets(&["/3", "/4"])].concat();
        assert_answered_behind(&device, &["GET", "POST", "GET", "GET"], &stack, &[200, 502, 200, 200]);
    }
    let posts = crew.visits().into_iter().filter(|visit| visit.method == "POST").count();
    assert_eq!(posts, 2, "a POST was sent again");
}

#[test]
fn a_failed_head_in_a_stack_has_no_content() {
    let crew = Crew::of(2);
    let device = crew.setup("").timeouts(TIMEOUTS).start();
    let stack = [gets(&["/1?wait=50"]), request("HEAD", "/2?fault=lengths", "", b""), gets(&["/3"])].concat();
    assert_answered_behind(&device, &["GET", "HEAD", "GET"], &stack, &[200, 502, 200]);
}

#[test]
fn a_method_that_is_refused_in_a_stack_is_405_in_its_place() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let stack = [gets(&["/1?wait=50"]), request("TRACE", "/2", "", b""), gets(&["/3"])].concat();
    assert_answered_behind(&device, &["GET", "TRACE", "GET"], &stack, &[200, 405, 200]);
    assert!(crew.visits().iter().all(|visit| visit.method == "GET"), "{:?}", crew.visits());
}

#[test]
fn a_stack_before_servers_that_refuse_is_502_for_each() {
    let dead = [cmim_tests::ports::Reserved::v4(), cmim_tests::ports::Reserved::v4()];
    let device = Device::before(&dead.each_ref().map(|port| port.address().to_string()));
    let mut client = device.client();
    let targets: Vec<String> = (0..12).map(|number| format!("/{number}")).collect();
    client.send(gets(&targets));
    for target in &targets {
        let reply = client.try_reply("GET").unwrap_or_else(|error| panic!("{target}: {error}"));
        assert!(matches!(reply.status(), 502 | 503), "{target}: {reply:?}");
    }
    client.assert_quiet();
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn garbage_behind_valid_requests_is_400_after_their_replies() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let after = "GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
    for garbage in [
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = device.client();
        let valid = ["/1?wait=60", "/2", "/3?as=chunked"];
        client.send([gets(&valid).as_slice(), garbage.as_bytes(), after.as_bytes()].concat());
        assert_pages(&mut client, &valid);
        let refused = client.reply();
        assert_eq!(refused.status(), 400, "{}: {refused:?}", garbage.escape_debug());
        assert!(refused.fields().lists("connection", "close"), "{refused:?}");
        client.assert_ended();
    }
    assert!(crew.visits().iter().all(|visit| visit.target.len() > 1 && visit.target.as_bytes()[1].is_ascii_digit()));
    assert_eq!(crew.visits().len(), 15);
    assert_eq!(device.figure("/jobs/failed_total"), 5);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_head_that_stops_coming_behind_valid_requests_is_408_after_their_replies() {
    let crew = Crew::of(2);
    let device = crew.setup("").timeouts("client_head = \"300ms\"").start();
    let mut client = device.client();
    let valid = ["/1?wait=600", "/2"];
    client.send([gets(&valid).as_slice(), b"GET /cut HTTP/1.1\r\nHo"].concat());
    assert_pages(&mut client, &valid);
    assert_eq!(client.reply().status(), 408);
    client.assert_ended();
    assert_eq!(crew.visits().len(), 2);
}
