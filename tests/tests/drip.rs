//! One byte at a time, both ways: nothing may depend on how the bytes are cut.

use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::origin::faulty::{chunked, close_delimited, ok, with_length};
use cmim_tests::{Client, Device, ScriptedServer};

/// Long enough for the other end to wake up in between.
const PAUSE: Duration = Duration::from_micros(300);

fn drip(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
        thread::sleep(PAUSE);
    }
}

#[test]
fn a_request_one_byte_at_a_time() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for bytes in [
        request("GET", "/get", "X-A: 1\r\nX-A: 2\r\n", b""),
        request("POST", "/post", "", b"content in drops"),
        b"\r\nPOST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nb\r\n, in chunks\r\n0\r\nX: y\r\n\r\n"
            .to_vec(),
    ] {
        drip(&mut client, &bytes);
        client.reply().assert_whole(b"ok");
    }
    let contents: Vec<Vec<u8>> = server.requests().into_iter().map(|request| request.content).collect();
    assert_eq!(contents, [b"".to_vec(), b"content in drops".to_vec(), b"hello, in chunks".to_vec()]);
    assert_eq!(server.faults(), Vec::<String>::new());
}

#[test]
fn refusals_do_not_depend_on_the_cut() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    for (bytes, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ] {
        let mut client = device.client();
        for byte in bytes.as_bytes() {
            // Refused before its last byte is sent: then sending may fail.
            if client.wire().send(&[*byte]).is_err() {
                break;
            }
            thread::sleep(PAUSE);
        }
        assert_eq!(client.reply().status(), status, "{bytes:?}");
    }
    assert_eq!(server.bytes_received(), 0);
}

/// A server that sends these bytes one at a time.
fn dripping(reply: Vec<u8>, closes: bool) -> ScriptedServer {
    ScriptedServer::start(move |side| {
        while side.request().is_some() {
            for byte in &reply {
                if !side.send([*byte]) {
                    return;
                }
                thread::sleep(PAUSE);
            }
            if closes {
                return;
            }
        }
    })
}

#[test]
fn a_reply_one_byte_at_a_time() {
    let mut interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
    interim.extend(with_length(b"content in drops"));
    for (reply, closes) in [
        (with_length(b"content in drops"), false),
        (chunked(&[b"content", b" in ", b"drops"]), false),
        (close_delimited(b"content in drops"), true),
        (interim, false),
    ] {
        let server = dripping(reply, closes);
        let device = Device::before(&[server.address()]);
        let mut client = device.client();
        for _ in 0..2 {
            client.get("/").assert_whole(b"content in drops");
        }
        client.assert_quiet();
        assert_eq!(server.opened(), if closes { 2 } else { 1 });
    }
}

#[test]
fn both_ways_at_once() {
    let server = dripping(chunked(&[b"reply"]), false);
    let device = Device::before(&[server.address()]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = device.client();
                for _ in 0..3 {
                    drip(&mut client, &request("POST", "/", "", b"request"));
                    client.reply().assert_whole(b"reply");
                }
            });
        }
    });
    assert!(server.requests().iter().all(|request| request.content == b"request"));
}
