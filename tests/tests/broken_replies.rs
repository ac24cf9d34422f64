//! A server's faults (docs/http.md, last item; docs/http.md, last row): the right status, never a part that looks whole, and nobody
//! else harmed.

use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::{chunk, never_answers, then_close, then_reset, then_silent, with_length};
use cmim_tests::{Client, Device, ScriptedServer, ServerSide, Setup};

/// A server whose `/bad` plays `fault` and whose other targets are fine.
fn with_bad(fault: impl Fn(&mut ServerSide) + Send + Sync + 'static) -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(move |side| {
        while let Some(request) = side.request() {
            if request.target == "/bad" {
                fault(side);
                return;
            }
            side.send(with_length(b"good"));
        }
    });
    let device = Device::before(&[server.address()]);
    (server, device)
}

/// Asks `/bad` among good requests on the same connection, with others in flight on another; the bad one must be
/// `status`, all others whole.
#[track_caller]
fn assert_contained(status: u16, fault: impl Fn(&mut ServerSide) + Send + Sync + 'static) {
    let (_server, device) = with_bad(fault);
    let mut client = device.client();
    let mut other = device.client();
    for _ in 0..2 {
        client.get("/good").assert_whole(b"good");
        other.send(request("GET", "/good", "", b""));
        let bad = client.get("/bad");
        assert_eq!(bad.status(), status, "{bad:?}");
        other.reply().assert_whole(b"good");
        client.get("/good").assert_whole(b"good");
    }
    client.assert_quiet();
}

fn sending(bytes: &'static [u8]) -> impl Fn(&mut ServerSide) {
    move |side| {
        side.send(bytes);
    }
}

/// Sends `bytes` and keeps the connection, so that only the bytes can be what is wrong.
fn sending_and_waiting(bytes: &'static [u8]) -> impl Fn(&mut ServerSide) {
    move |side| {
        side.send(bytes);
        side.wait_closed();
    }
}

#[test]
fn a_close_delimited_reply_ended_by_a_reset_is_502() {
    assert_contained(502, |side| {
        side.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart of it");
        side.reset();
    });
}

#[test]
fn a_chunked_reply_without_its_last_chunk_is_502() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_contained(502, sending(bytes));
    }
}

#[test]
fn a_malformed_chunk_is_502() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_contained(502, sending_and_waiting(bytes));
    }
}

#[test]
fn two_lengths_are_502() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_contained(502, sending_and_waiting(bytes));
    }
}

#[test]
fn a_head_that_is_no_head_is_502() {
    for bytes in [
        b"hello\r\n\r\n".as_slice(),
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
    ] {
        assert_contained(502, sending_and_waiting(bytes));
    }
}

#[test]
fn a_server_that_closes_in_place_of_a_reply_or_within_its_head_is_502() {
    for bytes in [b"".as_slice(), b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"] {
        let server = ScriptedServer::start(then_close(bytes));
        let device = Device::before(&[server.address()]);
        let mut client = device.client();
        assert_eq!(client.ask("POST", "/", "", b"hello").status(), 502, "{bytes:?}");
        client.assert_quiet();
        let server = ScriptedServer::start(then_reset(bytes));
        let device = Device::before(&[server.address()]);
        assert_eq!(device.client().ask("POST", "/", "", b"hello").status(), 502, "{bytes:?}");
    }
}

#[test]
fn a_reply_head_above_the_limit_is_502() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let size: usize = request.target.trim_start_matches('/').parse().expect("a size");
            let filler = "x".repeat(size);
            side.send(format!("HTTP/1.1 200 OK\r\nX: {filler}\r\nContent-Length: 2\r\n\r\nok"));
        }
    });
    let device = Setup::before(&[server.address()]).limits("reply_head = \"8KiB\"").start();
    let mut client = device.client();
    client.get("/8000").assert_whole(b"ok");
    assert_eq!(client.get("/8300").status(), 502);
    assert_eq!(client.get("/500000").status(), 502);
    client.get("/10").assert_whole(b"ok");
}

#[test]
fn a_content_shorter_than_its_length_is_never_presented_as_whole() {
    for reset in [false, true] {
        let (_server, device) = with_bad(move |side| {
            side.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
            if reset {
                side.reset();
            }
        });
        let mut client = device.client();
        client.send(request("GET", "/bad", "", b""));
        // 502 if nothing was sent yet; else the connection ends short of the length.
        if let Ok(reply) = client.try_reply("GET") {
            assert_eq!(reply.status(), 502);
            client.get("/good").assert_whole(b"good");
        }
        device.client().get("/good").assert_whole(b"good");
    }
}

#[test]
fn a_streamed_reply_that_breaks_off_ends_in_a_cut_connection() {
    for (head, reset) in
        [("Transfer-Encoding: chunked\r\n", false), ("Transfer-Encoding: chunked\r\n", true), ("", true)]
    {
        let server = ScriptedServer::start(move |side| {
            if side.request().is_some() {
                side.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n"));
                side.send(if head.is_empty() { b"hello".to_vec() } else { chunk(b"hello") });
                std::thread::sleep(Duration::from_millis(200));
                if reset {
                    side.reset();
                }
            }
        });
        let device = Setup::before(&[server.address()]).upstream("length_rewrite = \"never\"").start();
        let mut client = device.client();
        client.send(request("GET", "/", "", b""));
        let outcome = client.try_reply("GET");
        assert!(outcome.is_err(), "presented as whole: {outcome:?}");
        // An HTTP/1.0 client knows the end by the close alone: it has to be a reset.
        let mut old = device.client();
        old.send("GET / HTTP/1.0\r\n\r\n");
        let outcome = old.try_reply("GET");
        assert!(outcome.is_err(), "presented as whole: {outcome:?}");
    }
}

#[test]
fn bytes_past_the_end_leave_the_reply_whole_and_the_connection_unused() {
    for (bytes, whole) in [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                .as_slice(),
            "hello",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
            "hello",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\nevil", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", ""),
    ] {
        let server = ScriptedServer::start(then_silent(bytes));
        let device = Device::before(&[server.address()]);
        let mut client = device.client();
        let mut other = device.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), whole);
            assert_eq!(other.get("/").text(), whole);
        }
        client.assert_quiet();
        assert_eq!(server.opened(), 6, "a connection with bytes past a reply's end was used again");
    }
}

#[test]
fn a_content_in_reply_to_head_poisons_nothing() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let _ = request;
            side.send(with_length(b"not asked for"));
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..5 {
        assert_eq!(client.ask("HEAD", "/", "", b"").status(), 200);
        client.get("/").assert_whole(b"not asked for");
    }
    client.assert_quiet();
}

#[test]
fn a_server_that_never_answers_is_504() {
    let server = ScriptedServer::start(never_answers);
    let device = Setup::before(&[server.address()]).timeouts("server_first_byte = \"300ms\"").start();
    let mut client = device.client();
    let start = Instant::now();
    assert_eq!(client.ask("POST", "/", "", b"hello").status(), 504);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    client.assert_quiet();
    until_true("the silent connection is closed", PATIENCE, || server.open() == 0);
}

#[test]
fn a_held_reply_that_stalls_is_an_error_and_not_a_wait_for_ever() {
    let server = ScriptedServer::start(then_silent(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".as_slice(),
    ));
    let device = Setup::before(&[server.address()])
        .upstream("length_rewrite = \"always\"")
        .timeouts("server_idle = \"300ms\"")
        .start();
    let status = device.client().get("/").status();
    assert!(matches!(status, 502 | 504), "{status}");
    until_true("the stalled connection is closed", PATIENCE, || server.open() == 0);
}

#[test]
fn a_streamed_reply_that_stalls_ends_in_a_cut_connection() {
    let server = ScriptedServer::start(then_silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello".as_slice()));
    let device = Setup::before(&[server.address()]).timeouts("server_idle = \"300ms\"").start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    assert!(client.try_reply("GET").is_err_and(|error| !matches!(error, cmim_tests::wire::WireError::Deadline(_))));
}

#[test]
fn an_endless_row_of_interim_replies_is_ended() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            while side.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100)) {}
        }
    });
    let device = Setup::before(&[server.address()]).timeouts("server_first_byte = \"1s\"").start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    let start = Instant::now();
    while start.elapsed() < PATIENCE && client.try_head("GET").is_ok_and(|head| head.status < 200) {}
    assert!(start.elapsed() < PATIENCE, "interim replies went on for ever");
}

#[test]
fn behind_a_part_of_an_interim_reply_there_is_a_reset_and_no_502() {
    // More than any socket takes of a client that reads nothing.
    const MANY: usize = 95;
    let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "a".repeat(60_000));
    let server = ScriptedServer::start(then_close(interim.repeat(MANY)));
    let device = Device::before(&[server.address()]);
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", "/", "", b""));
    until_true("the request has failed", PATIENCE, || device.figure("/jobs/failed_total") == 1);
    client.wire().socket().set_recv_buffer_size(1 << 20).expect("a receive buffer");
    let error = loop {
        match client.try_head("GET") {
            Ok(head) => assert_eq!((head.status, head.fields.len()), (103, 2), "{head:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, cmim_tests::wire::WireError::Reset), "{error}");
    let line = until("the log line", PATIENCE, || device.access_log().pop());
    assert_eq!((&line["status"], &line["method"]), (&502.into(), &"GET".into()), "{line}");
}
