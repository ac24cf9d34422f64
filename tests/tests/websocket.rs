//! Upgrades: the handshake passes, and behind 101 the two connections are one tunnel.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::with_length;
use cmim_tests::{Device, ScriptedServer, Setup, skip};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message, WebSocket};

/// Speaks WebSocket and sends every message back.
fn echo() -> ScriptedServer {
    ScriptedServer::start(|side| {
        let (socket, _) = side.into_parts();
        let stream = TcpStream::from(socket);
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if message.is_text() || message.is_binary() {
                socket.send(message).expect("an echo");
            }
        }
    })
}

/// Runs a test on a device without the kernel part, and on one whose kernel carries tunnels.
fn on_each_lane(test: &str, server: &ScriptedServer, run: impl Fn(&Device)) {
    run(&Device::before(&[server.address()]));
    if skip::without_root(test) {
        return;
    }
    let device = Setup::before(&[server.address()]).kernel("required", "splice = \"sockmap\"").start();
    run(&device);
    until_true("all tunnels were the kernel's and are gone", PATIENCE, || {
        let lanes = &device.status()["lanes"];
        lanes["sockmap"]["splices_total"].as_u64() > Some(0)
            && lanes["sockmap"]["active"] == 0
            && device.json(&["splices"]) == serde_json::json!([])
    });
}

fn connect(device: &Device) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(device.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    let (socket, reply) = tungstenite::client("ws://test.example/chat", stream).expect("a handshake");
    assert_eq!(reply.status(), 101);
    socket
}

#[test]
fn messages_of_every_kind_and_size_echo() {
    let server = echo();
    on_each_lane("messages_of_every_kind_and_size_echo", &server, |device| {
        let mut socket = connect(device);
        for size in [0, 1, 125, 126, 65_535, 65_536, 4_000_000] {
            let text = "é".repeat(size / 2);
            socket.send(Message::text(text.clone())).expect("sent");
            assert!(socket.read().expect("an echo") == Message::text(text), "a text of {size} bytes");
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            socket.send(Message::binary(bytes.clone())).expect("sent");
            assert!(socket.read().expect("an echo") == Message::binary(bytes), "a binary of {size} bytes");
        }
        socket.send(Message::Ping(Bytes::from_static(b"are you there"))).expect("sent");
        assert_eq!(socket.read().expect("a pong"), Message::Pong(Bytes::from_static(b"are you there")));
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })).expect("a close");
        let answer = socket.read().expect("the server's close");
        assert!(matches!(&answer, Message::Close(Some(frame)) if frame.code == CloseCode::Normal), "{answer:?}");
        assert!(socket.read().is_err(), "the tunnel should be closed");
        drop(socket);
        until_true("both sides are closed", PATIENCE, || {
            let status = device.status();
            status["client_connections"]["open"] == 0 && status["server_connections"]["open"] == 0
        });
    });
}

#[test]
fn several_tunnels_and_plain_requests_do_not_disturb_each_other() {
    let server = echo();
    on_each_lane("several_tunnels_and_plain_requests_do_not_disturb_each_other", &server, |device| {
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let mut socket = connect(device);
                    for round in 0..50 {
                        let text = format!("tunnel {number} round {round}");
                        socket.send(Message::text(text.clone())).expect("sent");
                        assert_eq!(socket.read().expect("an echo"), Message::text(text));
                    }
                });
            }
        });
    });
}

const HANDSHAKE: &str = "GET /raw HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

#[test]
fn the_handshake_passes_with_its_fields() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            side.send(SWITCH);
            side.wait_closed();
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send(HANDSHAKE);
    let head = client.head("GET");
    assert_eq!(head.status, 101);
    assert!(head.fields.lists("connection", "upgrade") && head.fields.lists("upgrade", "raw"), "{head:?}");
    let got = server.wait_for(1);
    assert!(got.fields.lists("connection", "upgrade") && got.fields.lists("upgrade", "raw"), "{got:?}");
}

#[test]
fn bytes_right_behind_the_request_and_right_behind_the_101_are_not_lost() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_none() {
            return;
        }
        side.send(format!("{SWITCH}from the server"));
        let mut got = Vec::new();
        if side.wire().exactly(15, &mut |part| got.extend_from_slice(part)).is_ok() {
            side.send([b", and back: ", got.as_slice()].concat());
        }
        side.wait_closed();
    });
    on_each_lane("bytes_right_behind_the_request_and_right_behind_the_101_are_not_lost", &server, |device| {
        let mut client = device.client();
        client.send(format!("{HANDSHAKE}from the client"));
        assert_eq!(client.head("GET").status, 101);
        let expected = b"from the server, and back: from the client";
        let mut got = Vec::new();
        client
            .wire()
            .exactly(expected.len() as u64, &mut |part| got.extend_from_slice(part))
            .expect("the tunnel's bytes");
        assert_eq!(got, expected);
    });
}

/// A request with a content that asks for a tunnel, as container engines are asked to run a command in a terminal.
const WITH_CONTENT: &str = "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\
                            Content-Length: 7\r\n\r\ncontent";
/// Looks like a request, and is a tunnel's.
const LIKE_A_REQUEST: &str = "GET /none HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn behind_the_content_of_a_request_comes_the_tunnel_and_no_request() {
    let server = ScriptedServer::start(|side| {
        let Some(request) = side.request() else { return };
        assert_eq!(request.content, b"content");
        side.send(SWITCH);
        let mut got = Vec::new();
        let _ = side.wire().to_end(&mut |part| got.extend_from_slice(part));
        side.send(&got);
    });
    on_each_lane("behind_the_content_of_a_request_comes_the_tunnel_and_no_request", &server, |device| {
        let mut client = device.client();
        client.send(format!("{WITH_CONTENT}{LIKE_A_REQUEST}"));
        assert_eq!(client.head("POST").status, 101);
        for _ in 0..3 {
            client.send(LIKE_A_REQUEST);
            thread::sleep(Duration::from_millis(20));
        }
        client.wire().finish_sending().expect("a half-close");
        let mut got = Vec::new();
        client.wire().to_end(&mut |part| got.extend_from_slice(part)).expect("the tunnel's bytes");
        assert_eq!(String::from_utf8_lossy(&got), LIKE_A_REQUEST.repeat(4));
    });
}

#[test]
fn a_server_that_ignores_the_upgrade_of_a_request_with_content_gets_the_next_request() {
    let server = ScriptedServer::start(|side| while side.request().is_some() && side.send(with_length(b"plain")) {});
    for buffering in ["auto", "never"] {
        let setup = Setup::before(&[server.address()]).upstream(&format!("request_buffering = \"{buffering}\""));
        let device = setup.start();
        let mut client = device.client();
        for _ in 0..2 {
            client.send(format!("{WITH_CONTENT}{LIKE_A_REQUEST}"));
            client.reply().assert_whole(b"plain");
            client.reply().assert_whole(b"plain");
        }
        client.assert_quiet();
    }
}

#[test]
fn a_101_before_the_request_is_whole_is_502() {
    let server = ScriptedServer::start(|side| {
        if side.request_head().is_some() {
            side.send(SWITCH);
            side.wait_closed();
        }
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send(WITH_CONTENT.strip_suffix("tent").expect("a content"));
    assert_eq!(client.reply().status(), 502);
    client.assert_ended();
}

#[test]
fn a_tunnel_carries_megabytes_both_ways_at_once() {
    const SIZE: usize = 10_000_000;
    let server = ScriptedServer::start(|side| {
        if side.request().is_none() {
            return;
        }
        side.send(SWITCH);
        let (socket, ahead) = side.into_parts();
        let writer = socket.try_clone().expect("a second handle");
        let sending = thread::spawn(move || std::io::Write::write_all(&mut &writer, &vec![b's'; SIZE]));
        let mut wire = cmim_tests::wire::Wire::new(socket, PATIENCE);
        let mut count = ahead.len();
        wire.exactly((SIZE - count) as u64, &mut |part| count += part.len()).expect("the client's bytes");
        sending.join().expect("the writer").expect("written");
        assert_eq!(count, SIZE);
    });
    on_each_lane("a_tunnel_carries_megabytes_both_ways_at_once", &server, |device| {
        let mut client = device.client();
        client.send(HANDSHAKE);
        assert_eq!(client.head("GET").status, 101);
        let writer = client.wire().socket().try_clone().expect("a second handle");
        let sending = thread::spawn(move || std::io::Write::write_all(&mut &writer, &vec![b'c'; SIZE]));
        let mut same = true;
        client
            .wire()
            .exactly(SIZE as u64, &mut |part| same &= part.iter().all(|byte| *byte == b's'))
            .expect("all bytes");
        sending.join().expect("the writer").expect("written");
        assert!(same);
    });
}

#[test]
fn a_half_closed_tunnel_still_carries_the_other_way() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_none() {
            return;
        }
        side.send(SWITCH);
        let mut got = Vec::new();
        let _ = side.wire().to_end(&mut |part| got.extend_from_slice(part));
        side.send([b"you said: ", got.as_slice()].concat());
    });
    on_each_lane("a_half_closed_tunnel_still_carries_the_other_way", &server, |device| {
        let mut client = device.client();
        client.send(HANDSHAKE);
        assert_eq!(client.head("GET").status, 101);
        client.send("goodbye");
        client.wire().finish_sending().expect("a half-close");
        let mut got = Vec::new();
        client.wire().to_end(&mut |part| got.extend_from_slice(part)).expect("the rest");
        assert_eq!(got, b"you said: goodbye");
    });
}

#[test]
fn an_upgrade_that_the_server_ignores_is_an_ordinary_reply() {
    let server = ScriptedServer::start(|side| while side.request().is_some() && side.send(with_length(b"plain")) {});
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..3 {
        client.send(HANDSHAKE);
        client.reply().assert_whole(b"plain");
        client.send(request("GET", "/", "", b""));
        client.reply().assert_whole(b"plain");
    }
    client.assert_quiet();
}

#[test]
fn an_upgrade_in_http_1_0_or_without_connection_is_none() {
    let server = ScriptedServer::start(|side| while side.request().is_some() && side.send(with_length(b"plain")) {});
    let device = Device::before(&[server.address()]);
    for bytes in [
        "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: raw\r\n\r\n",
    ] {
        let mut client = device.client();
        client.send(bytes);
        client.reply().assert_whole(b"plain");
    }
    assert!(server.requests().iter().all(|request| !request.fields.has("upgrade")));
}

/// Connections from the port `local` to the port `remote` whose peer the kernel asks within a minute whether it is there
/// (the timer 02 of /proc/net/tcp).
fn asked(local: Option<u16>, remote: u16) -> usize {
    const MINUTE: u64 = 60 * 100;
    let text = std::fs::read_to_string("/proc/net/tcp").expect("proc");
    let port = |address: &str| address.split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    let is_asked = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, from, to, "01", _, timer, ..] = words.as_slice() else { return false };
        let due = timer.strip_prefix("02:").and_then(|due| u64::from_str_radix(due, 16).ok());
        (local.is_none() || port(from) == local) && port(to) == Some(remote) && due.is_some_and(|due| due <= MINUTE)
    };
    text.lines().filter(is_asked).count()
}

#[test]
fn the_kernel_asks_both_sides_of_a_tunnel_whether_they_are_there() {
    let server = echo();
    on_each_lane("the_kernel_asks_both_sides_of_a_tunnel_whether_they_are_there", &server, |device| {
        let mut socket = connect(device);
        socket.send(Message::text("hello")).expect("sent");
        assert_eq!(socket.read().expect("an echo"), Message::text("hello"));
        let client = socket.get_ref().local_addr().expect("an address").port();
        // While bytes are on their way, another timer is shown.
        until_true("the client is asked", PATIENCE, || asked(Some(device.address().port()), client) == 1);
        until_true("the server is asked", PATIENCE, || asked(None, server.socket_address().port()) >= 1);
    });
}

#[test]
fn a_tunnel_outlives_the_timeouts_of_requests() {
    let server = echo();
    let device =
        Setup::before(&[server.address()]).timeouts("server_first_byte = \"200ms\"\nclient_head = \"200ms\"").start();
    let mut socket = connect(&device);
    thread::sleep(Duration::from_millis(600));
    socket.send(Message::text("still here")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text("still here"));
}
