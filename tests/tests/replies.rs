//! docs/http.md, row by row: what becomes of a reply whose end is not known when it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cmim_tests::client::{Head, request};
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{chunk, chunked, close_delimited, replies, then_close};
use cmim_tests::{Client, Device, Framing, ScriptedServer, Setup};

/// A latch between a test and its server's script.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wait(&self) {
        until_true("the test opens the gate", PATIENCE, || self.0.load(Ordering::SeqCst));
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const FIRST: &[u8] = b"first part, ";
const LAST: &[u8] = b"last part";
const WHOLE: &[u8] = b"first part, last part";

/// Sends a head with `fields` and the first part; the last part only when the gate opens.
fn in_two_parts(fields: &'static str) -> (ScriptedServer, Gate) {
    let gate = Gate::default();
    let inner = gate.clone();
    let server = ScriptedServer::start(move |side| {
        if side.request().is_none() {
            return;
        }
        let chunks = fields.contains("chunked");
        side.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        side.send(if chunks { chunk(FIRST) } else { FIRST.to_vec() });
        inner.wait();
        side.send(if chunks { [chunk(LAST), b"0\r\n\r\n".to_vec()].concat() } else { LAST.to_vec() });
    });
    (server, gate)
}

/// Holds that the head and the first part come although the last part is not sent yet; then opens the gate and holds
/// that all came.
#[track_caller]
fn assert_streamed(device: &Device, gate: &Gate, request: &[u8], framing: Framing) -> (Head, Client) {
    let mut client = device.client();
    client.send(request);
    let head = client.head("GET");
    assert_eq!(head.framing, framing, "{head:?}");
    let mut content = Vec::new();
    while !client.wire().ahead().windows(FIRST.len()).any(|window| window == FIRST) {
        assert!(client.wire().fill().expect("the first part before the last is sent"), "ended within the reply");
    }
    gate.open();
    client.content(framing, &mut |part| content.extend_from_slice(part)).expect("the rest");
    assert_eq!(content, WHOLE);
    (head, client)
}

const HTTP_1_0: &[u8] = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn auto_holds_chunked_and_close_delimited_replies_until_whole() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            match request.target.as_str() {
                "/chunked" => side.send(chunked(&[b"hello", b" ", b"world"])),
                "/empty" => side.send(chunked(&[])),
                _ => {
                    side.send(close_delimited(b"hello world"));
                    return;
                }
            };
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..5 {
        client.get("/chunked").assert_whole(b"hello world");
        client.get("/close").assert_whole(b"hello world");
        client.get("/empty").assert_whole(b"");
    }
    client.assert_quiet();
    assert_eq!(device.figure("/replies/rewritten_total"), 15);
    assert_eq!(device.figure("/buffers/memory/used"), 0);
}

#[test]
fn a_reply_with_a_length_streams_as_it_comes() {
    let (server, gate) = in_two_parts("Content-Length: 21\r\n");
    let device = Device::before(&[server.address()]);
    let (_, mut client) = assert_streamed(&device, &gate, &request("GET", "/", "", b""), Framing::Length(21));
    client.assert_quiet();
    assert_eq!(device.figure("/replies/streamed_total"), 1);
}

#[test]
fn after_hold_time_the_reply_goes_on_as_chunked() {
    for fields in [CHUNKED, "Connection: close\r\n"] {
        let (server, gate) = in_two_parts(fields);
        let device = Setup::before(&[server.address()]).upstream("hold_time = \"200ms\"").start();
        let start = Instant::now();
        let (_, mut client) = assert_streamed(&device, &gate, &request("GET", "/", "", b""), Framing::Chunked);
        assert!(start.elapsed() >= Duration::from_millis(190), "not held: {:?}", start.elapsed());
        client.assert_quiet();
    }
}

#[test]
fn after_hold_time_an_http_1_0_client_still_gets_a_length() {
    for fields in [CHUNKED, "Connection: close\r\n"] {
        let (server, gate) = in_two_parts(fields);
        let device = Setup::before(&[server.address()]).upstream("hold_time = \"100ms\"").start();
        let mut client = device.client();
        client.send(HTTP_1_0);
        assert!(!client.wire().brings_more(Duration::from_millis(400)), "sent before it was whole");
        gate.open();
        client.reply().assert_whole(WHOLE);
        client.assert_quiet();
    }
}

#[test]
fn a_reply_over_hold_size_goes_on_as_chunked_and_to_http_1_0_with_a_length() {
    let content: Vec<u8> = (0..300_000_u32).flat_map(|i| i.to_le_bytes()).collect();
    let parts: Vec<&[u8]> = content.chunks(10_000).collect();
    for bytes in [chunked(&parts), close_delimited(&content)] {
        let server = ScriptedServer::start(then_close(bytes));
        let device = Setup::before(&[server.address()]).upstream("hold_size = \"64KiB\"").start();
        let mut client = device.client();
        let reply = client.get("/");
        assert_eq!(reply.head.framing, Framing::Chunked);
        assert!(reply.content == content, "{} bytes", reply.content.len());
        client.assert_quiet();
        client.send(HTTP_1_0);
        client.reply().assert_whole(&content);
        client.assert_quiet();
    }
}

#[test]
fn a_reply_of_exactly_hold_size_is_held_and_one_byte_more_is_chunked() {
    const HOLD_SIZE: usize = 64 * 1024;
    for length in [HOLD_SIZE, HOLD_SIZE + 1] {
        let content = vec![b'x'; length];
        let parts: Vec<&[u8]> = content.chunks(10_000).collect();
        for bytes in [chunked(&parts), close_delimited(&content)] {
            let server = ScriptedServer::start(then_close(bytes));
            let device = Setup::before(&[server.address()]).upstream("hold_size = \"64KiB\"").start();
            let reply = device.client().get("/");
            let framing = if length == HOLD_SIZE { Framing::Length(length as u64) } else { Framing::Chunked };
            assert_eq!(reply.head.framing, framing, "{length} bytes");
            assert!(reply.content == content, "{} bytes", reply.content.len());
        }
    }
}

#[test]
fn a_reply_larger_than_every_tier_is_close_delimited_to_an_http_1_0_client() {
    let content = vec![b'x'; 8 << 20];
    let server = ScriptedServer::start(then_close(close_delimited(&content)));
    let device = Setup::before(&[server.address()]).buffer("memory = \"1MiB\"").start();
    let mut client = device.client();
    client.send(HTTP_1_0);
    let reply = client.reply();
    assert_eq!((reply.status(), reply.head.framing), (200, Framing::Close));
    assert!(reply.content == content, "{} bytes", reply.content.len());
    // To HTTP/1.1 it is chunked, and the connection persists.
    let mut client = device.client();
    let reply = client.get("/");
    assert_eq!((reply.status(), reply.head.framing), (200, Framing::Chunked));
    assert!(reply.content == content, "{} bytes", reply.content.len());
    client.assert_quiet();
}

#[test]
fn event_streams_and_their_like_stream_at_once() {
    for fields in [
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
        "Content-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n",
        "Content-Type: Text/Event-Stream\r\nTransfer-Encoding: chunked\r\n",
        "Content-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n",
        "Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n",
        "Content-Type: multipart/x-mixed-replace; boundary=x\r\nConnection: close\r\n",
        "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n",
        "X-Accel-Buffering: no\r\nConnection: close\r\n",
    ] {
        let (server, gate) = in_two_parts(fields);
        let device = Setup::before(&[server.address()]).upstream("hold_time = \"60s\"").start();
        let (_, mut client) = assert_streamed(&device, &gate, &request("GET", "/", "", b""), Framing::Chunked);
        client.assert_quiet();
    }
}

#[test]
fn event_streams_are_close_delimited_to_an_http_1_0_client() {
    for fields in [
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
        "X-Accel-Buffering: no\r\nConnection: close\r\n",
    ] {
        let (server, gate) = in_two_parts(fields);
        let device = Setup::before(&[server.address()]).upstream("hold_time = \"60s\"").start();
        let (head, _) = assert_streamed(&device, &gate, HTTP_1_0, Framing::Close);
        assert!(!head.fields.lists("connection", "keep-alive"), "{head:?}");
    }
}

#[test]
fn always_holds_to_the_end_whatever_it_takes() {
    for fields in [CHUNKED, "Connection: close\r\n", "Content-Type: text/html\r\nX-Accel-Buffering: yes\r\n"] {
        let (server, gate) = in_two_parts(fields);
        let device =
            Setup::before(&[server.address()]).upstream("length_rewrite = \"always\"\nhold_time = \"100ms\"").start();
        let mut client = device.client();
        client.send(request("GET", "/", "", b""));
        assert!(!client.wire().brings_more(Duration::from_millis(400)), "sent before it was whole");
        gate.open();
        client.reply().assert_whole(WHOLE);
        client.assert_quiet();
    }
}

#[test]
fn always_is_502_when_every_tier_is_full() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let size = if request.target == "/large" { 8 << 20 } else { 100 };
            side.send(chunked(&[&vec![b'x'; size]]));
        }
    });
    let device =
        Setup::before(&[server.address()]).buffer("memory = \"1MiB\"").upstream("length_rewrite = \"always\"").start();
    let mut client = device.client();
    assert_eq!(client.get("/large").status(), 502);
    client.get("/small").assert_whole(&[b'x'; 100]);
    let status = device.status();
    assert_eq!(status["buffers"]["memory"]["refused_total"], 1, "{status}");
    assert_eq!(status["buffers"]["memory"]["used"], 0, "{status}");
    assert_eq!(status["buffers"]["memory"]["size"], 1 << 20, "{status}");
}

#[test]
fn never_streams_at_once() {
    for fields in [CHUNKED, "Connection: close\r\n"] {
        let (server, gate) = in_two_parts(fields);
        let device = Setup::before(&[server.address()]).upstream("length_rewrite = \"never\"").start();
        let (_, mut client) = assert_streamed(&device, &gate, &request("GET", "/", "", b""), Framing::Chunked);
        client.assert_quiet();
    }
}

#[test]
fn a_coding_under_chunked_is_kept_by_streaming() {
    let server = ScriptedServer::start(replies(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_vec();
        bytes.extend(chunk(b"as if packed"));
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }));
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..2 {
        let reply = client.get("/");
        assert_eq!(reply.text(), "as if packed");
        assert_eq!(reply.fields().joined("transfer-encoding").replace(' ', ""), "gzip,chunked");
    }
}

#[test]
fn trailers_of_a_rewritten_reply_are_dropped_and_counted() {
    let server = ScriptedServer::start(replies(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Time\r\n\r\n".to_vec();
        bytes.extend(chunk(b"content"));
        bytes.extend_from_slice(b"0\r\nX-Sum: 1\r\nX-Time: 2\r\n\r\n");
        bytes
    }));
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..2 {
        let reply = client.get("/");
        reply.assert_whole(b"content");
        assert!(!reply.fields().has("x-sum") && !reply.fields().has("trailer"), "{reply:?}");
    }
    client.assert_quiet();
    assert_eq!(device.figure("/replies/trailers_dropped_total"), 4);
    assert_eq!(server.opened(), 1);
}

#[test]
fn a_held_reply_frees_its_server_while_the_client_reads_nothing() {
    let content = vec![b'x'; 6_000_000];
    let server = ScriptedServer::start(then_close(close_delimited(&content)));
    let device = Device::before(&[server.address()]);
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", "/", "", b""));
    until_true("the server is done", Duration::from_secs(3), || server.opened() == 1 && server.open() == 0);
    client.reply().assert_whole(&content);
}
