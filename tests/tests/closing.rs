//! docs/http.md: a connection is closed so that its last reply arrives, whatever the client still sends.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{chunk, ok};
use cmim_tests::origin::obedient::page;
use cmim_tests::{Client, Crew, Device, ScriptedServer, Setup};
use rustix::process::Signal;

const LARGE: usize = 10 << 20;

/// A device that takes a mebibyte of content at most.
fn small() -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).limits("request_content = \"1MiB\"").start();
    (server, device)
}

/// Reads nothing before all of the request is written.
#[track_caller]
fn assert_told(mut client: Client, head: &str, content: &[u8], status: u16) {
    client.send(head);
    client.send(content);
    assert_eq!(client.reply().status(), status);
    client.assert_ended();
}

#[test]
fn a_client_that_writes_all_of_a_content_before_it_reads_is_told_that_it_is_too_large() {
    let (_server, device) = small();
    let content = vec![b'x'; LARGE];
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
    assert_told(device.client(), &head, &content, 413);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks: Vec<u8> = content.chunks(100_000).flat_map(chunk).collect();
    assert_told(device.client(), head, &chunks, 413);
}

#[test]
fn a_client_that_writes_all_of_a_content_before_it_reads_gets_the_servers_early_reply() {
    let server = ScriptedServer::start(|side| {
        if side.request_head().is_some() {
            side.send(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\nContent-Length: 2\r\n\r\nno",
            );
            side.wait_closed();
        }
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
    assert_told(device.client(), &head, &vec![b'x'; LARGE], 401);
}

#[test]
fn a_client_that_takes_its_time_to_write_is_waited_for() {
    let (_server, device) = small();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    for _ in 0..10 {
        client.send([b'x'; 200_000]);
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(client.reply().status(), 413);
    client.assert_ended();
}

#[test]
fn a_byte_behind_the_last_request_does_not_cut_its_reply() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = Client::connect_slow(device.address(), 4096);
    let target = "/last?hold&size=500000";
    client.send(request("GET", target, "Connection: close\r\n", b""));
    crew.wait_for_visits(1);
    client.send("\r\n");
    crew.release();
    // The whole reply is in the kernel's hands, and the client takes none of it yet.
    until_true("the reply is sent", PATIENCE, || device.figure("/jobs/done_total") == 1);
    thread::sleep(Duration::from_millis(50));
    client.reply().assert_whole(&page(target));
    client.assert_ended();
}

#[test]
fn a_client_that_goes_on_sending_does_not_hold_up_a_shutdown() {
    let (_server, mut device) = small();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    assert_eq!(client.reply().status(), 413);
    let socket = client.wire().socket().try_clone().expect("a second handle");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) && (&socket).write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        });
        let start = Instant::now();
        device.signal(Signal::TERM);
        // The grace of the test configuration is 5 s.
        device.wait(Duration::from_secs(8));
        over.store(true, Ordering::SeqCst);
        assert!(start.elapsed() < Duration::from_secs(4), "ended after {:?}", start.elapsed());
    });
}
