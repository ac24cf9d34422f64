//! docs/http.md, towards the client: what of a reply arrives, and how; expectations, interim replies and HTTP/1.0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{chunked, close_delimited, ok, replies, then_close, with_length};
use cmim_tests::{Device, Framing, ScriptedServer, ServerSide, Setup};

#[test]
fn hop_by_hop_fields_of_a_reply_stop_here() {
    let server = ScriptedServer::start(replies(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\nUpgrade: foo\r\n\
          Proxy-Connection: keep-alive\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    }));
    let device = Device::before(&[server.address()]);
    let reply = device.client().get("/");
    for name in ["keep-alive", "x-secret", "upgrade", "proxy-connection"] {
        assert!(!reply.fields().has(name), "{name} went through: {reply:?}");
    }
    assert_eq!(reply.fields().joined("x-kept"), "2");
    assert_eq!(reply.text(), "ok");
}

#[test]
fn via_is_appended_to_replies_and_the_rest_is_untouched() {
    let server = ScriptedServer::start(replies(|_| {
        b"HTTP/1.1 299 Odd Reason\r\nServer: origin/1\r\nSet-Cookie: a=1\r\nVia: 1.1 inner\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
          Set-Cookie: b=2\r\nX-Bytes: caf\xe9\r\nset-cookie: c=3\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    }));
    let device = Device::before(&[server.address()]);
    let reply = device.client().get("/");
    assert_eq!((reply.status(), reply.head.reason.as_str()), (299, "Odd Reason"));
    assert_eq!(reply.fields().all("set-cookie"), ["a=1", "b=2", "c=3"]);
    assert_eq!(reply.fields().all("server"), ["origin/1"]);
    assert_eq!(reply.fields().all("date"), ["Mon, 01 Jan 2024 00:00:00 GMT"]);
    assert_eq!(reply.fields().joined("via"), "1.1 inner, 1.1 cmim");
    assert!(reply.fields().iter().any(|(name, value)| name.eq_ignore_ascii_case("x-bytes") && value == b"caf\xe9"));
}

#[test]
fn a_server_that_closes_does_not_close_the_clients_connection() {
    let server = ScriptedServer::start(then_close(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".as_slice(),
    ));
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..10 {
        let reply = client.get("/");
        reply.assert_whole(b"ok");
        assert!(!reply.fields().lists("connection", "close"), "{reply:?}");
    }
    client.assert_quiet();
    assert_eq!(server.opened(), 10);
}

#[test]
fn replies_without_content_have_none_whatever_their_fields_say() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n"),
    ] {
        let server = ScriptedServer::start(replies(move |_| format!("{head}\r\n").into_bytes()));
        let device = Device::before(&[server.address()]);
        let mut client = device.client();
        for _ in 0..3 {
            let reply = client.ask(method, "/", "", b"");
            assert_eq!(reply.head.framing, Framing::NoContent);
            assert_eq!(reply.fields().has("etag"), head.contains("ETag"));
        }
        client.assert_quiet();
        assert_eq!(server.opened(), 1, "{method} {head:?}");
    }
}

#[test]
fn a_head_reply_keeps_its_length() {
    let server = ScriptedServer::start(replies(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec()));
    let device = Device::before(&[server.address()]);
    assert_eq!(device.client().ask("HEAD", "/", "", b"").fields().only("content-length").as_deref(), Some("1000"));
}

#[test]
fn an_expectation_is_answered_by_the_device_that_buffers() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"always\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!(client.head("POST").status, 100);
    assert_eq!(server.bytes_received(), 0);
    client.send("hello");
    assert_eq!(client.reply().status(), 200);
    assert_eq!(server.wait_for(1).content, b"hello");
}

#[test]
fn an_expectation_is_passed_on_by_the_device_that_does_not_buffer() {
    let server = ScriptedServer::start(|side| {
        let Some(head) = side.request_head() else { return };
        assert!(head.fields.lists("expect", "100-continue"), "{head:?}");
        side.send("HTTP/1.1 100 Continue\r\n\r\n");
        let _ = side.wire().exactly(5, &mut |_| ());
        side.send(with_length(b"ok"));
        side.wait_closed();
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head("POST").status, 100);
    client.send("hello");
    assert_eq!(client.reply().text(), "ok");
}

#[test]
fn an_expectation_that_the_server_refuses_ends_in_its_refusal() {
    let server = ScriptedServer::start(|side| {
        if side.request_head().is_some() {
            side.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        }
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head("POST").status, 417);
}

#[test]
fn an_early_reply_reaches_a_client_that_is_still_sending() {
    let server = ScriptedServer::start(|side| {
        if side.request_head().is_some() {
            side.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            side.finish_sending();
        }
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\nfirst bytes");
    let reply = client.reply_to("POST");
    assert_eq!((reply.status(), reply.text().as_str()), (401, "no"));
}

#[test]
fn a_reply_before_the_upload_is_taken_leaves_the_client_its_connection_where_the_device_has_all_of_it() {
    // More than the sockets between device and server hold.
    let content = vec![b'x'; 24_000_000];
    let replied = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&replied);
    let server = ScriptedServer::start(move |side| {
        while let Some(asked) = side.request_head() {
            if asked.method == "GET" {
                side.send(with_length(b"ok"));
                continue;
            }
            side.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            // Until then it takes nothing, and closes nothing either: with bytes unread that would be a reset, which
            // destroys the reply on its way.
            until_true("the client has its reply", PATIENCE, || told.swap(false, Ordering::SeqCst));
            side.wait_closed();
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..2 {
        let reply = client.ask("POST", "/", "", &content);
        assert_eq!((reply.status(), reply.text().as_str()), (401, "no"), "{reply:?}");
        assert!(!reply.fields().lists("connection", "close"), "{reply:?}");
        replied.store(true, Ordering::SeqCst);
        client.get("/").assert_whole(b"ok");
    }
    assert_eq!(device.figure("/client_connections/accepted_total"), 1);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_reply_before_the_upload_has_come_closes_the_clients_connection() {
    let server = ScriptedServer::start(|side| {
        if side.request_head().is_some() {
            side.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            side.wait_closed();
        }
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: test.example\r\nContent-Length: 100000\r\n\r\nthe beginning");
    let reply = client.reply();
    assert_eq!(reply.status(), 401, "{reply:?}");
    assert!(reply.fields().lists("connection", "close"), "{reply:?}");
    client.assert_ended();
}

/// Sends two interim replies before the final one.
fn hints(side: &mut ServerSide) {
    while side.request().is_some() {
        side.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        side.send(with_length(b"ok"));
    }
}

#[test]
fn interim_replies_pass() {
    let server = ScriptedServer::start(hints);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..2 {
        client.send(request("GET", "/", "", b""));
        let first = client.head("GET");
        assert_eq!((first.status, first.fields.joined("link").as_str()), (103, "</a.css>"));
        assert_eq!(client.head("GET").status, 102);
        client.reply().assert_whole(b"ok");
    }
}

#[test]
fn interim_replies_do_not_reach_an_http_1_0_client() {
    let server = ScriptedServer::start(hints);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head("GET").status, 200);
}

#[test]
fn http_1_0_without_keep_alive_ends_after_the_reply() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.reply().assert_whole(b"ok");
    client.assert_ended();
    assert_eq!(server.wait_for(1).version, "HTTP/1.1");
}

#[test]
fn http_1_0_with_keep_alive_stays() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            match request.target.as_str() {
                "/length" => side.send(with_length(b"ok")),
                "/chunked" => side.send(chunked(&[b"o", b"k"])),
                _ => {
                    side.send(close_delimited(b"ok"));
                    return;
                }
            };
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for target in ["/length", "/chunked", "/close", "/length", "/close"] {
        client.send(format!("GET {target} HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"));
        let reply = client.reply();
        reply.assert_whole(b"ok");
        assert!(reply.fields().lists("connection", "keep-alive"), "{target}: {reply:?}");
    }
    client.assert_quiet();
}

#[test]
fn an_http_1_0_servers_replies_are_understood() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/close" {
                side.send("HTTP/1.0 200 OK\r\n\r\ncontent");
                return;
            }
            side.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\ncontent");
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for target in ["/keep", "/close", "/keep", "/close"] {
        client.get(target).assert_whole(b"content");
    }
    assert_eq!(client.get("/close").head.version, "HTTP/1.1");
}

#[test]
fn an_http_1_0_server_without_keep_alive_is_not_reused() {
    let server = ScriptedServer::start(replies(|_| b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()));
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..3 {
        client.get("/").assert_whole(b"ok");
    }
    assert_eq!(server.opened(), 3);
}

#[test]
fn the_last_reply_before_a_close_says_so() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.wire().set_patience(Duration::from_secs(5));
    let reply = client.ask("GET", "/", "Connection: close\r\n", b"");
    assert!(reply.fields().lists("connection", "close"));
    client.assert_ended();
}
