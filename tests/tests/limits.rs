//! docs/configuration.md's limits and timeouts on the client's side: each with its status, and nothing at the server.

use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{chunk, ok};
use cmim_tests::{Device, ScriptedServer, Setup};

/// A device with limits that are quick to reach.
fn small() -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()])
        .limits("request_head = \"4KiB\"\nrequest_headers = 20\nrequest_target = \"1KiB\"\nrequest_content = \"10KiB\"")
        .timeouts("client_head = \"300ms\"\nclient_idle = \"300ms\"")
        .start();
    (server, device)
}

#[track_caller]
fn assert_refused(device: &Device, server: &ScriptedServer, bytes: &[u8], status: u16) {
    let before = server.bytes_received();
    let mut client = device.client();
    client.send(bytes);
    let reply = client.reply();
    assert_eq!(reply.status(), status, "{reply:?}");
    client.assert_ended();
    assert_eq!(server.bytes_received(), before, "the server saw something of a refused request");
}

#[test]
fn a_long_target_is_414_and_a_target_at_the_limit_is_not() {
    let (server, device) = small();
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_eq!(device.client().get(&target(1024)).status(), 200);
    assert_refused(&device, &server, &request("GET", &target(1025), "", b""), 414);
    assert_refused(&device, &server, &request("GET", &target(3000), "", b""), 414);
    // A request line that never ends is no reason to wait.
    assert_refused(&device, &server, format!("GET {}", target(20_000)).as_bytes(), 414);
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let (server, device) = small();
    let field = |length: usize| format!("X: {}\r\n", "a".repeat(length));
    assert_eq!(device.client().ask("GET", "/", &field(3000), b"").status(), 200);
    assert_refused(&device, &server, &request("GET", "/", &field(4096), b""), 431);
    // Without an end in sight too.
    assert_refused(&device, &server, format!("GET / HTTP/1.1\r\nHost: a\r\n{}", field(20_000)).as_bytes(), 431);
}

#[test]
fn too_many_fields_are_431() {
    let (server, device) = small();
    let fields = |count: usize| (0..count).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    // Host is one of the 20.
    assert_eq!(device.client().ask("GET", "/", &fields(19), b"").status(), 200);
    assert_refused(&device, &server, &request("GET", "/", &fields(20), b""), 431);
    assert_refused(&device, &server, &request("GET", "/", &fields(200), b""), 431);
}

#[test]
fn a_content_above_the_limit_by_its_length_is_413_before_any_of_it_is_sent() {
    let (server, device) = small();
    assert_eq!(device.client().ask("POST", "/", "", &[b'a'; 10 * 1024]).status(), 200);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10241\r\n\r\n";
    assert_refused(&device, &server, head, 413);
    let expecting = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10241\r\nExpect: 100-continue\r\n\r\n";
    let mut client = device.client();
    client.send(expecting);
    assert_eq!(client.head("POST").status, 413, "no 100 for a content that is refused");
}

#[test]
fn a_chunked_content_above_the_limit_is_413_and_never_a_whole_request() {
    let (server, device) = small();
    let mut client = device.client();
    client.send("POST /large HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        client.send(chunk(&[b'a'; 1024]));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().status(), 413);
    client.assert_ended();
    assert_eq!(server.request_count(), 0);
}

#[test]
fn a_head_that_does_not_end_in_time_is_408() {
    let (server, device) = small();
    let mut client = device.client();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    assert_eq!(client.reply().status(), 408);
    assert!(start.elapsed() >= Duration::from_millis(250), "too early: {:?}", start.elapsed());
    client.assert_ended();
    assert_eq!(server.bytes_received(), 0);
}

#[test]
fn a_head_that_keeps_coming_but_does_not_end_is_408_too() {
    let (_server, device) = small();
    let mut client = device.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let start = Instant::now();
    let reply = loop {
        assert!(start.elapsed() < PATIENCE, "a drip of fields kept the connection");
        if client.wire().send(b"X: y\r\n").is_err() || client.wire().brings_more(Duration::from_millis(50)) {
            break client.reply();
        }
    };
    assert_eq!(reply.status(), 408);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let (_server, device) = small();
    let mut fresh = device.client();
    let mut used = device.client();
    used.get("/");
    fresh.assert_ended();
    used.assert_ended();
}

#[test]
fn a_head_may_be_slow_after_a_long_reply() {
    // client_head runs from a head's first byte, not from the connection's start.
    let (_server, device) = small();
    let mut client = device.client();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(client.get("/").status(), 200);
    }
}

#[test]
fn connections_above_the_limit_wait_and_are_served_in_turn() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).limits("client_connections = 4").start();
    let mut first: Vec<_> = (0..4).map(|_| device.client()).collect();
    for client in &mut first {
        assert_eq!(client.get("/").status(), 200);
    }
    let mut waiting = device.client();
    waiting.send(request("GET", "/", "", b""));
    assert!(!waiting.wire().brings_more(Duration::from_millis(300)), "served above the limit");
    drop(first);
    assert_eq!(waiting.reply().status(), 200);
}

#[test]
fn clients_leave_descriptors_for_servers_however_many_come() {
    const OPEN_FILES: u32 = 240;
    const SERVED: u64 = 180;
    let server = ScriptedServer::start(ok);
    let device = Setup::before::<&str>(&[])
        .server(&format!("address = \"{}\", max_requests = 4", server.address()))
        .open_files(OPEN_FILES)
        .start();
    device.wait_to_say("may have 240 open files: at most 180 clients");
    let mut clients: Vec<_> = (0..SERVED + 80).map(|_| device.client()).collect();
    until_true("as many as there is room for are in", PATIENCE, || device.figure("/client_connections/open") == SERVED);
    for client in &mut clients {
        client.send(request("GET", "/", "Connection: close\r\n", b""));
    }
    for client in &mut clients {
        client.reply().assert_whole(b"ok");
    }
    assert!(!device.output().contains("Too many open files"), "{}", device.output());
}

#[test]
fn one_address_gets_no_more_connections_than_its_share() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).limits("client_connections_per_address = 2").start();
    let mut first = [device.client(), device.client()];
    for client in &mut first {
        assert_eq!(client.get("/").status(), 200);
    }
    let mut third = device.client();
    let _ = third.wire().send(&request("GET", "/", "", b""));
    // Closed at once or answered with a refusal: never served.
    assert!(third.try_reply("GET").map_or(true, |reply| matches!(reply.status(), 429 | 503)));
    drop(first);
    until_true("a place for the next connection", PATIENCE, || {
        let mut next = device.client();
        let _ = next.wire().send(&request("GET", "/", "", b""));
        next.try_reply("GET").is_ok_and(|reply| reply.status() == 200)
    });
}
