//! docs/http.md and 4: clients that leave take their jobs with them, and those that only end their side get every reply.

use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::obedient::{assert_pages, gets};
use cmim_tests::wire::WireError;
use cmim_tests::{Client, Crew, Device, Setup, skip};

/// In which the servers have to be free again, where a reset says that the client has left (issue 3).
const WITHIN: Duration = Duration::from_secs(1);
/// The same where the client has to be asked first.
const WITHIN_ASKED: Duration = Duration::from_secs(2);
/// For a machine with two CPUs that are busy with other tests.
const TOLERANCE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// Closes without having read all: its kernel sends a reset.
    Reset,
    /// Closes with nothing unread: what the device sees is what a client shows that has only finished sending.
    Close,
}

impl Leaving {
    fn within(self) -> Duration {
        match self {
            Self::Reset => WITHIN,
            Self::Close => WITHIN_ASKED,
        }
    }
}

/// A client sends `bytes`, and leaves once `count` requests are at the servers, which never answer them: everything of it
/// is gone within [`Leaving::within`].
#[track_caller]
fn assert_gone(setup: Setup<'_>, crew: &Crew, bytes: &[u8], count: usize, leaving: Leaving) {
    let device = setup.start();
    let mut client = device.client();
    client.send(bytes);
    crew.wait_for_visits(count);
    let active = device.status();
    assert!(active["jobs"]["active"].as_u64() >= Some(count as u64), "{active}");
    let start = Instant::now();
    match leaving {
        Leaving::Reset => client.into_wire().reset(),
        Leaving::Close => drop(client),
    }
    until_gone(&device, crew, start, leaving.within());
    skip::measured(&format!("{leaving:?} with {count} at the servers"), &format!("gone after {:.0?}", start.elapsed()));
    let cancelled = device.figure("/jobs/cancelled_total");
    assert!(cancelled >= count as u64, "{cancelled} cancelled");
    // The device is unharmed.
    device.client().get("/next").assert_whole(b"/next");
}

#[track_caller]
fn until_gone(device: &Device, crew: &Crew, start: Instant, within: Duration) {
    let left = || (start + within + TOLERANCE).saturating_duration_since(Instant::now());
    until_true("the server connections are closed", left(), || crew.open() == 0);
    device.wait_until_at_rest(left());
    until_true("the client connection is gone", left(), || device.figure("/client_connections/open") == 0);
}

/// `count` GETs that no server answers.
fn silent(count: usize) -> Vec<u8> {
    let targets: Vec<String> = (0..count).map(|number| format!("/{number}?fault=silent")).collect();
    gets(&targets)
}

#[test]
fn a_reset_cancels_a_stack() {
    let crew = Crew::of(2);
    assert_gone(crew.setup(""), &crew, &silent(4), 4, Leaving::Reset);
}

#[test]
fn a_close_cancels_a_stack() {
    let crew = Crew::of(2);
    assert_gone(crew.setup(""), &crew, &silent(4), 4, Leaving::Close);
}

#[test]
fn a_reset_cancels_a_stack_as_deep_as_is_read_ahead() {
    let crew = Crew::of(2);
    assert_gone(crew.setup("").listener("pipeline_depth = 4"), &crew, &silent(4), 4, Leaving::Reset);
    let crew = Crew::of(1);
    assert_gone(crew.setup("").listener("pipeline_depth = 1"), &crew, &silent(1), 1, Leaving::Reset);
}

#[test]
fn a_close_cancels_a_stack_as_deep_as_is_read_ahead() {
    let crew = Crew::of(2);
    assert_gone(crew.setup("").listener("pipeline_depth = 4"), &crew, &silent(4), 4, Leaving::Close);
    let crew = Crew::of(1);
    assert_gone(crew.setup("").listener("pipeline_depth = 1"), &crew, &silent(1), 1, Leaving::Close);
}

#[test]
fn a_reset_cancels_a_stack_with_more_unread_behind_it() {
    let crew = Crew::of(2);
    assert_gone(crew.setup("").listener("pipeline_depth = 4"), &crew, &silent(40), 4, Leaving::Reset);
}

#[test]
fn leaving_cancels_what_waits_in_the_queue() {
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(1);
        assert_gone(crew.setup("max_requests = 1"), &crew, &silent(8), 1, leaving);
    }
}

#[test]
fn leaving_cancels_what_waits_behind_a_barrier() {
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(2);
        let stack = [silent(2), request("POST", "/post", "", b"hello"), gets(&["/last"])].concat();
        assert_gone(crew.setup(""), &crew, &stack, 2, leaving);
        assert!(!crew.visits().iter().any(|visit| visit.method == "POST"), "a POST of nobody was sent");
    }
}

#[test]
fn leaving_cancels_a_post_whose_content_is_whole() {
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(2);
        let post = request("POST", "/post?fault=silent", "", b"hello");
        assert_gone(crew.setup(""), &crew, &post, 1, leaving);
    }
}

#[test]
fn leaving_cancels_a_request_for_a_tunnel_that_the_server_has_not_answered() {
    const OFFER: &str = "Connection: upgrade\r\nUpgrade: raw\r\n";
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(1);
        assert_gone(crew.setup(""), &crew, &request("GET", "/chat?fault=silent", OFFER, b""), 1, leaving);
        let crew = Crew::of(1);
        assert_gone(crew.setup(""), &crew, &request("POST", "/exec?fault=silent", OFFER, b"hello"), 1, leaving);
    }
}

#[test]
fn leaving_cancels_a_request_that_was_to_be_the_last() {
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(2);
        let last = [silent(1), request("GET", "/last?fault=silent", "Connection: close\r\n", b"")].concat();
        assert_gone(crew.setup(""), &crew, &last, 2, leaving);
    }
}

#[test]
fn leaving_amid_the_replies_cancels_the_rest() {
    for leaving in [Leaving::Reset, Leaving::Close] {
        let crew = Crew::of(2);
        let device = crew.setup("").start();
        let mut client = device.client();
        client.send([gets(&["/1", "/2"]), silent(3)].concat());
        assert_pages(&mut client, &["/1", "/2"]);
        crew.wait_for_visits(5);
        let start = Instant::now();
        match leaving {
            Leaving::Reset => client.into_wire().reset(),
            Leaving::Close => drop(client),
        }
        let within = leaving.within() + TOLERANCE;
        until_true("the server connections are closed or idle", within, || {
            crew.open() as u64 == device.figure("/server_connections/idle")
        });
        device.wait_until_at_rest((start + within).saturating_duration_since(Instant::now()));
        let jobs = device.status()["jobs"].clone();
        assert_eq!((&jobs["done_total"], &jobs["cancelled_total"]), (&5.into(), &3.into()), "{leaving:?}: {jobs}");
    }
}

#[test]
fn leaving_with_unread_replies_frees_what_they_held() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = Client::connect_slow(device.address(), 4096);
    let targets: Vec<String> = (0..8).map(|number| format!("/{number}?size=4000000&as=chunked")).collect();
    client.send(gets(&targets));
    until_true("the replies are in the device", PATIENCE, || device.figure("/buffers/memory/used") > 20_000_000);
    drop(client);
    device.wait_until_at_rest(WITHIN + TOLERANCE);
}

fn half_closed(device: &Device, bytes: &[u8]) -> Client {
    let mut client = device.client();
    client.send(bytes);
    client.wire().finish_sending().expect("a half-close");
    client
}

#[test]
fn a_half_closed_client_gets_fast_replies_without_an_interim_one() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let targets = ["/1?wait=50", "/2?as=chunked", "/3?wait=900", "/4"];
    let mut client = half_closed(&device, &gets(&targets));
    for target in targets {
        let head = client.head("GET");
        assert_eq!(head.status, 200, "{target}: {head:?}");
        let mut content = Vec::new();
        client.content(head.framing, &mut |part| content.extend_from_slice(part)).expect("content");
        assert_eq!(content, target.as_bytes());
    }
    client.assert_ended();
}

#[test]
fn a_half_closed_client_gets_slow_replies_behind_a_102() {
    let crew = Crew::of(4);
    let device = crew.setup("").start();
    let targets = ["/1?wait=1800", "/2?wait=1900&as=chunked", "/3?wait=1850&size=500000", "/4"];
    let mut client = half_closed(&device, &gets(&targets));
    let interim = client.head("GET");
    assert_eq!((interim.status, interim.fields.len()), (102, 0), "{interim:?}");
    // Asked once, it has shown that it is there.
    assert_eq!(client.head("GET").status, 200);
    client.wire().exactly(targets[0].len() as u64, &mut |_| ()).expect("content");
    assert_pages(&mut client, &targets[1..]);
    client.assert_ended();
}

#[test]
fn a_half_closed_http_1_0_client_is_not_sent_a_102() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = half_closed(&device, b"GET /1?wait=1800 HTTP/1.0\r\n\r\n");
    assert_eq!(client.head("GET").status, 200);
}

#[test]
fn a_half_closed_client_gets_the_replies_to_more_than_was_read_ahead() {
    let crew = Crew::of(2);
    let device = crew.setup("").listener("pipeline_depth = 4").start();
    let targets: Vec<String> = (0..40).map(|number| format!("/{number}?wait=10")).collect();
    let mut client = half_closed(&device, &gets(&targets));
    assert_pages(&mut client, &targets);
    client.assert_ended();
}

#[test]
fn a_half_closed_client_gets_the_reply_to_a_post_among_them() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let stack = [gets(&["/1?wait=100"]), request("POST", "/2?wait=100", "", &[b'x'; 100_000]), gets(&["/3"])].concat();
    let mut client = half_closed(&device, &stack);
    assert_pages(&mut client, &["/1?wait=100", "/2?wait=100", "/3"]);
    client.assert_ended();
}

#[test]
fn a_half_closed_client_that_leaves_after_all_is_noticed() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let client = half_closed(&device, &silent(3));
    crew.wait_for_visits(3);
    // Long enough to have been asked once.
    thread::sleep(Duration::from_millis(1700));
    assert_eq!(device.figure("/jobs/active"), 3, "it is still there");
    let start = Instant::now();
    client.into_wire().reset();
    until_gone(&device, &crew, start, WITHIN);
}

#[test]
fn of_a_stack_cut_in_a_head_the_whole_ones_are_answered_and_nothing_else_is_forwarded() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let valid = ["/1", "/2?as=chunked"];
    let cut = request("GET", "/cut", "X-Field: value\r\n", b"");
    for length in 1..cut.len() {
        let mut client = half_closed(&device, &[gets(&valid).as_slice(), &cut[..length]].concat());
        assert_pages(&mut client, &valid);
        // What was cut may be called a bad request, or be let pass in silence.
        match client.try_reply("GET") {
            Err(WireError::Closed | WireError::Reset) => {}
            Ok(reply) if reply.status() == 400 => client.assert_ended(),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
    assert!(!crew.visits().iter().any(|visit| visit.target == "/cut"), "a cut request was forwarded");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn of_a_stack_cut_in_a_content_the_whole_ones_are_answered_and_nothing_is_made_up() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let valid = ["/1?wait=50", "/2"];
    let post = "POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello";
    let mut client = half_closed(&device, &[gets(&valid).as_slice(), post.as_bytes()].concat());
    assert_pages(&mut client, &valid);
    match client.try_reply("POST") {
        Err(WireError::Closed | WireError::Reset) => {}
        Ok(reply) => assert_eq!(reply.status(), 400, "{reply:?}"),
        other => panic!("{other:?}"),
    }
    client.assert_ended();
    assert!(!crew.visits().iter().any(|visit| visit.target == "/cut"), "a cut request was forwarded as whole");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn the_access_log_has_a_line_for_each_request_of_a_client_that_left_also_for_those_that_were_not_started() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    // A barrier, and behind it a request and what is none: neither has started.
    let post = request("POST", "/0?fault=silent", "", b"");
    client.send([post, gets(&["/1"]), b"no request\r\n\r\n".to_vec()].concat());
    crew.wait_for_visits(1);
    until_true("all are read", PATIENCE, || device.figure("/requests_total") == 3);
    client.into_wire().reset();
    until_true("each has its line", PATIENCE, || device.access_log().len() == 3);
    let lines = device.access_log();
    for (depth, (line, target)) in lines.iter().zip(["/0?fault=silent", "/1", ""]).enumerate() {
        assert_eq!((&line["target"], &line["status"]), (&target.into(), &499.into()), "{lines:?}");
        assert_eq!(line["reason"], "the client went away", "{line}");
        assert_eq!(line["stacked"], depth + 1, "{line}");
        assert_eq!(line.get("server").is_some(), depth == 0, "only the first was started: {line}");
    }
    assert_eq!(crew.visits().len(), 1);
}
