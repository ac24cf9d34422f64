//! C2: a client that is slow to read or to write costs the device memory, and no server a process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::{chunk, close_delimited, ok};
use cmim_tests::skip::without_root;
use cmim_tests::{Client, Device, ScriptedServer, Setup};

const CLIENTS: usize = 20;
const PAGE: usize = 6_000_000;
const KILOBYTE: u64 = 1024;
/// In which the server has to be free of all of them.
const ALLOWED: Duration = Duration::from_secs(3);

#[test]
fn twenty_clients_at_1_kb_per_second_hold_no_server_after_3_seconds() {
    let page: Vec<u8> = (0..PAGE).map(|i| b'a' + (i % 23) as u8).collect();
    let reply = close_delimited(&page);
    let finished = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = finished.clone();
    let server = ScriptedServer::start(move |side| {
        if side.request().is_some() && side.send(&reply) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let device = Device::before(&[server.address()]);
    let start = Instant::now();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| read_slowly(&device, &over))).collect();
        let mut done = false;
        while !done && start.elapsed() < ALLOWED {
            let status = device.status();
            done = finished.load(Ordering::SeqCst) == CLIENTS
                && server.open() == 0
                && status["server_connections"]["open"] == 0
                && status["client_connections"]["open"] == CLIENTS as u64;
        }
        let status = device.status();
        // Lets the readers go, whatever comes now.
        over.store(true, Ordering::SeqCst);
        assert!(done, "not within {ALLOWED:?}: {} connections at the server, {status}", server.open());
        assert!(status["buffers"]["memory"]["used"].as_u64() > Some(10_000_000), "{status}");
        // They get it all, at whatever speed.
        for reader in readers {
            let (mut client, mut read) = reader.join().expect("a reader");
            let rest = (PAGE - read.len()) as u64;
            client.wire().exactly(rest, &mut |part| read.extend_from_slice(part)).expect("the rest");
            assert!(read == page, "the content differs");
        }
    });
    until_true("the memory is given back", PATIENCE, || device.figure("/buffers/memory/used") == 0);
}

/// Takes a kilobyte of the page each second until it is over; returns what was read, for the rest to be read at once.
fn read_slowly(device: &Device, over: &AtomicBool) -> (Client, Vec<u8>) {
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", "/", "", b""));
    let head = client.head("GET");
    assert_eq!(head.fields.only("content-length"), Some(PAGE.to_string()), "{head:?}");
    let mut read = Vec::new();
    let mut next = Instant::now();
    while !over.load(Ordering::SeqCst) {
        if Instant::now() >= next {
            client.wire().exactly(KILOBYTE, &mut |part| read.extend_from_slice(part)).expect("content");
            next += Duration::from_secs(1);
        }
        thread::sleep(Duration::from_millis(10));
    }
    // From here on as fast as it goes.
    client.wire().socket().set_recv_buffer_size(1 << 20).expect("a receive buffer");
    (client, read)
}

#[test]
fn slow_uploads_hold_no_server() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"always\"").start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| device.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        client.send(vec![b'x'; 50_000]);
    }
    device.client().get("/").assert_whole(b"ok");
    assert_eq!(server.opened(), 1, "an unfinished upload took a server connection");
    for client in &mut clients {
        client.send(vec![b'x'; 50_000]);
        client.reply().assert_whole(b"ok");
    }
}

#[test]
fn a_client_that_stops_reading_is_let_go_after_client_write() {
    let page = vec![b'x'; PAGE];
    let server = ScriptedServer::start(cmim_tests::origin::faulty::then_close(close_delimited(&page)));
    let device = Setup::before(&[server.address()]).timeouts("client_write = \"500ms\"").start();
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", "/", "", b""));
    until_true("the request is taken", PATIENCE, || server.request_count() == 1);
    until_true("the client is let go", PATIENCE, || device.figure("/client_connections/open") == 0);
    until_true("and its memory", PATIENCE, || device.figure("/buffers/memory/used") == 0);
    assert!(client.try_reply("GET").is_err());
}

/// What becomes of a reply on the sockmap lane of which `sent` bytes come and the client reads as many as it is said to:
/// the reason that is logged, and after what time.
fn end_on_the_sockmap_lane(timeouts: &str, sent: usize, reads: bool) -> (String, Duration) {
    const LENGTH: usize = 64_000_000;
    let server = ScriptedServer::start(move |side| {
        if side.request().is_some() {
            side.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
            side.send(vec![b'x'; sent]);
            side.wait_closed();
        }
    });
    let device = Setup::before(&[server.address()])
        .kernel("auto", "splice = \"sockmap\"\nlocal_bypass = \"off\"")
        .timeouts(timeouts)
        .start();
    let mut client = Client::connect_slow(device.address(), 65_536);
    let start = Instant::now();
    client.send(request("GET", "/", "", b""));
    client.head("GET");
    if reads {
        client.wire().exactly(sent as u64, &mut |_| ()).expect("what the server has sent");
    }
    let line = until("the end", PATIENCE, || device.access_log().pop());
    assert_eq!(device.figure("/lanes/sockmap/splices_total"), 1, "{}", device.status());
    (line["reason"].as_str().unwrap_or_default().to_owned(), start.elapsed())
}

#[test]
fn on_the_sockmap_lane_each_side_has_its_own_time() {
    if without_root("on_the_sockmap_lane_each_side_has_its_own_time") {
        return;
    }
    let (reason, after) =
        end_on_the_sockmap_lane("server_idle = \"200ms\"\nclient_write = \"1500ms\"", 64_000_000, false);
    assert_eq!(reason, "the client went away", "after {after:?}");
    assert!(after >= Duration::from_millis(1500), "{after:?}");
    let (reason, after) =
        end_on_the_sockmap_lane("server_idle = \"1500ms\"\nclient_write = \"200ms\"", 1_000_000, true);
    assert_eq!(reason, "the server's reply made no progress within server_idle", "after {after:?}");
    assert!(after >= Duration::from_millis(1500), "{after:?}");
}

#[test]
fn a_flood_of_small_chunks_takes_no_more_memory_than_the_account_says() {
    const CHUNKS: usize = 1_000_000;
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            side.send("HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n");
            side.send(chunk(b"x").repeat(CHUNKS));
            side.send("0\r\n\r\n");
            side.wait_closed();
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = Client::connect_slow(device.address(), 4096);
    let before = device.resident();
    client.send(request("GET", "/", "", b""));
    until_true("the device has all of it", PATIENCE, || device.figure("/server_connections/idle") == 1);
    let (grown, told) = (device.resident() - before, device.figure("/buffers/memory/used"));
    assert!(grown < 2 * told + 20_000_000, "{grown} bytes more are resident, {told} in the account");
    client.wire().socket().set_recv_buffer_size(1 << 20).expect("a receive buffer");
    assert!(client.reply().content == vec![b'x'; CHUNKS], "the content differs");
}

#[test]
fn a_slow_reader_of_a_streamed_reply_slows_the_server_and_not_the_memory() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            side.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
            let part = vec![b'x'; 1_000_000];
            for _ in 0..200 {
                if !side.send(&part) {
                    return;
                }
            }
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", "/", "", b""));
    client.head("GET");
    let mut most = 0;
    cmim_tests::deadline::throughout("bounded memory", Duration::from_millis(700), || {
        most = most.max(device.resident());
        true
    });
    assert!(most < 100_000_000, "{most} bytes resident for a client that reads nothing");
    assert_eq!(server.open(), 1, "the server cannot have sent all");
}
