//! docs/http.md, towards the server: what of a request arrives, and how.

use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{chunk, ok};
use cmim_tests::{Client, Device, Request, ScriptedServer, Setup};

fn pair() -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    (server, device)
}

/// Sends these bytes as one request and returns what the server received.
#[track_caller]
fn arriving(bytes: impl AsRef<[u8]>) -> Request {
    let (server, device) = pair();
    arriving_at(&server, &device, bytes)
}

#[track_caller]
fn arriving_at(server: &ScriptedServer, device: &Device, bytes: impl AsRef<[u8]>) -> Request {
    let mut client = device.client();
    client.send(bytes);
    let reply = client.reply();
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert_eq!(server.faults(), Vec::<String>::new());
    server.wait_for(1)
}

/// One X-Forwarded-For list, however it is split into fields.
fn forwarded_for(request: &Request) -> Vec<String> {
    request.fields.joined("x-forwarded-for").split(',').map(|address| address.trim().to_owned()).collect()
}

#[test]
fn hop_by_hop_fields_stop_here() {
    let got = arriving(request(
        "GET",
        "/",
        "Connection: keep-alive, X-Secret, x-other\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers\r\nUpgrade: foo/2\r\nX-Secret: 1\r\nX-Other: 2\r\nX-Kept: 3\r\n",
        b"",
    ));
    for name in ["keep-alive", "proxy-connection", "te", "upgrade", "x-secret", "x-other"] {
        assert!(!got.fields.has(name), "{name} went through: {:?}", got.fields);
    }
    assert!(!got.fields.lists("connection", "x-secret"), "{:?}", got.fields);
    assert!(!got.fields.lists("connection", "close"), "{:?}", got.fields);
    assert_eq!(got.fields.joined("x-kept"), "3");
}

#[test]
fn a_client_that_closes_does_not_close_the_servers_connection() {
    let (server, device) = pair();
    for _ in 0..3 {
        let mut client = device.client();
        let reply = client.ask("GET", "/", "Connection: close\r\n", b"");
        assert_eq!(reply.status(), 200);
        assert!(reply.fields().lists("connection", "close"), "{reply:?}");
        client.assert_ended();
    }
    assert!(server.requests().iter().all(|request| !request.fields.lists("connection", "close")));
    assert_eq!(server.opened(), 1);
}

#[test]
fn connection_cannot_name_away_what_the_request_stands_on() {
    let (server, device) = pair();
    let mut client = device.client();
    client.send(request("POST", "/", "Connection: content-length, host, via\r\n", b"hello"));
    match client.reply().status() {
        200 => {
            let got = server.wait_for(1);
            assert_eq!(got.content, b"hello");
            assert_eq!(got.fields.joined("host"), "test.example");
        }
        status => {
            assert_eq!(status, 400);
            assert_eq!(server.bytes_received(), 0);
        }
    }
}

#[test]
fn via_is_appended() {
    assert_eq!(arriving(request("GET", "/", "", b"")).fields.joined("via"), "1.1 cmim");
    let got = arriving(request("GET", "/", "Via: 1.0 first, 1.1 second\r\nVia: 1.1 third\r\n", b""));
    assert_eq!(got.fields.joined("via"), "1.0 first, 1.1 second, 1.1 third, 1.1 cmim");
}

#[test]
fn forwarding_fields_are_set() {
    let got = arriving(request("GET", "/", "", b""));
    assert_eq!(got.fields.joined("x-forwarded-for"), "127.0.0.1");
    assert_eq!(got.fields.joined("x-forwarded-proto"), "http");
    assert_eq!(got.fields.joined("x-forwarded-host"), "test.example");
    let forwarded = got.fields.joined("forwarded").to_ascii_lowercase();
    for part in ["for=127.0.0.1", "proto=http"] {
        assert!(forwarded.contains(part), "{forwarded}");
    }
    assert!(forwarded.contains("host=test.example") || forwarded.contains("host=\"test.example\""), "{forwarded}");
}

#[test]
fn a_host_with_a_port_is_quoted_in_forwarded() {
    // RFC 7239 4: a colon is not allowed in a token.
    let got = arriving(b"GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n");
    let forwarded = got.fields.joined("forwarded");
    assert!(forwarded.contains("host=\"a.example:8080\""), "{forwarded}");
    assert_eq!(got.fields.joined("x-forwarded-host"), "a.example:8080");
}

const CLAIMS: &str = "X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: claimed.example\r\nForwarded: for=192.0.2.1;proto=https\r\n";

#[test]
fn a_strangers_own_forwarding_fields_are_dropped() {
    let got = arriving(request("GET", "/", CLAIMS, b""));
    assert_eq!(forwarded_for(&got), ["127.0.0.1"]);
    assert_eq!(got.fields.joined("x-forwarded-proto"), "http");
    assert_eq!(got.fields.joined("x-forwarded-host"), "test.example");
    assert!(!got.fields.joined("forwarded").contains("192.0.2.1"), "{:?}", got.fields);
}

#[test]
fn a_trusted_proxys_forwarding_fields_are_kept_and_extended() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).listener("trusted_proxies = [\"127.0.0.0/8\"]").start();
    let got = arriving_at(&server, &device, request("GET", "/", CLAIMS, b""));
    assert_eq!(forwarded_for(&got), ["192.0.2.1", "192.0.2.2", "127.0.0.1"]);
    assert_eq!(got.fields.joined("x-forwarded-proto"), "https");
    assert_eq!(got.fields.joined("x-forwarded-host"), "claimed.example");
    let forwarded = got.fields.joined("forwarded").to_ascii_lowercase();
    let (first, last) = (forwarded.find("for=192.0.2.1"), forwarded.find("for=127.0.0.1"));
    assert!(first.is_some() && first < last, "{forwarded}");
}

#[test]
fn a_proxy_outside_the_trusted_ranges_is_a_stranger() {
    let server = ScriptedServer::start(ok);
    let device =
        Setup::before(&[server.address()]).listener("trusted_proxies = [\"192.0.2.0/24\", \"::1/128\"]").start();
    assert_eq!(forwarded_for(&arriving_at(&server, &device, request("GET", "/", CLAIMS, b""))), ["127.0.0.1"]);
}

#[test]
fn absolute_form_wins_over_host() {
    let (server, device) = pair();
    for (target, expected, host) in [
        ("http://b.example/x?y=z", "/x?y=z", "b.example"),
        ("http://b.example:8080/", "/", "b.example:8080"),
        ("http://b.example", "/", "b.example"),
        ("http://b.example?q", "/?q", "b.example"),
        ("HTTP://b.example/x", "/x", "b.example"),
    ] {
        let mut client = device.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        assert_eq!(client.reply().status(), 200, "{target}");
        let got = server.requests().pop().expect("a request");
        assert_eq!((got.target.as_str(), got.fields.joined("host").as_str()), (expected, host), "{target}");
    }
}

#[test]
fn duplicates_order_and_bytes_of_fields_are_kept() {
    let mut bytes =
        b"GET / HTTP/1.1\r\nX-B: 1\r\nHost: test.example\r\nX-A: 2\r\nx-b: 3\r\nCookie: a=1\r\nCookie: b=2\r\n"
            .to_vec();
    bytes.extend_from_slice(b"X-A:   spaced out  \r\nX-Empty:\r\nX-Bytes: caf\xe9\r\nX-Quoted: \"a, b\", c\r\n\r\n");
    let got = arriving(bytes);
    let kept: Vec<(String, Vec<u8>)> = got
        .fields
        .iter()
        .filter(|(name, _)| {
            name.to_ascii_lowercase().starts_with("x-") && !name.to_ascii_lowercase().starts_with("x-f")
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
        .collect();
    let expected: [(&str, &[u8]); 7] = [
        ("x-b", b"1"),
        ("x-a", b"2"),
        ("x-b", b"3"),
        ("x-a", b"spaced out"),
        ("x-empty", b""),
        ("x-bytes", b"caf\xe9"),
        ("x-quoted", b"\"a, b\", c"),
    ];
    assert_eq!(kept, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
    assert_eq!(got.fields.all("cookie"), ["a=1", "b=2"]);
}

#[test]
fn methods_and_targets_arrive_as_they_are() {
    let (server, device) = pair();
    let mut client = device.client();
    for method in
        ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH", "get", "X!#$%&'*+-.^_`|~"]
    {
        for target in ["/", "/a%2Fb//c/../d/./e?x=1&y=%00;z", "/~user/(a)/'b'!$&*+,;=:@", "/?", "/a?b?c"] {
            assert_eq!(client.ask(method, target, "", b"").status(), 200, "{method} {target}");
            let got = server.requests().pop().expect("a request");
            assert_eq!((got.method.as_str(), got.target.as_str()), (method, target));
            assert_eq!(got.version, "HTTP/1.1");
        }
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    assert_eq!(server.requests().pop().expect("a request").target, "*");
}

#[test]
fn a_get_with_a_content_arrives_with_it() {
    let got = arriving(request("GET", "/", "", b"content of a GET"));
    assert_eq!(got.content, b"content of a GET");
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let (server, device) = pair();
    let mut client = device.client();
    client.send("\r\n\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    client.send("\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\n");
    assert_eq!(client.reply().status(), 200);
    client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/1", "/2", "/3"]);
}

#[test]
fn equal_repeated_lengths_are_one_length_or_a_refusal() {
    for length in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"] {
        let (server, device) = pair();
        let mut client = device.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\nhello"));
        match client.reply().status() {
            200 => assert_eq!(server.wait_for(1).fields.all("content-length"), ["5"]),
            status => assert_eq!((status, server.bytes_received()), (400, 0)),
        }
    }
}

#[test]
fn a_chunked_upload_arrives_whole() {
    let got = arriving(
        [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n".as_slice(),
            b"5;name=value;quoted=\"a;b\"\r\nhello\r\n",
            b"0000000000000001\r\n \r\n",
            b"5\r\nworld\r\n00\r\nX-Sum: 1\r\n\r\n",
        ]
        .concat(),
    );
    assert_eq!(got.content, b"hello world");
}

#[test]
fn large_uploads_arrive_whole_with_a_length_and_chunked() {
    let (server, device) = pair();
    let content: Vec<u8> = (0..20_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut client = device.client();
    assert_eq!(client.ask("POST", "/length", "", &content).status(), 200);
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in content.chunks(100_000) {
        client.send(chunk(part));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    for request in server.requests() {
        assert!(request.content == content, "{}: {} bytes arrived", request.target, request.content.len());
    }
    assert_eq!(server.request_count(), 2);
}

#[test]
fn a_slow_upload_does_not_hold_a_server() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"always\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    cmim_tests::deadline::throughout(
        "no byte at the server before the content is whole",
        Duration::from_millis(300),
        || server.bytes_received() == 0,
    );
    client.send("world");
    assert_eq!(client.reply().status(), 200);
    assert_eq!(server.wait_for(1).content, b"helloworld");
}

#[test]
fn an_unbuffered_upload_reaches_the_server_while_it_comes() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    until_true("the first half at the server", PATIENCE, || server.received().concat().ends_with(b"hello"));
    client.send("world");
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn an_unbuffered_upload_that_breaks_off_is_no_whole_request() {
    for content in ["5\r\nhello\r\nzzz\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhel"] {
        let server = ScriptedServer::start(ok);
        let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
        let mut client = device.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        until_true("the first chunk at the server", PATIENCE, || server.bytes_received() > 0);
        client.send(content);
        drop(client.into_wire());
        until_true("the server's connection ends", PATIENCE, || server.open() == 0);
        assert_eq!(server.request_count(), 0, "{content:?} became a request: {:?}", server.requests());
    }
}

#[test]
fn a_half_closed_client_gets_its_reply() {
    let (_server, device) = pair();
    let mut client = device.client();
    client.send(request("POST", "/", "", b"last words"));
    client.wire().finish_sending().expect("a half-close");
    assert_eq!(client.reply().text(), "ok");
    client.assert_ended();
}

#[test]
fn a_client_that_half_closes_within_a_request_reaches_nothing() {
    let (server, device) = pair();
    for bytes in
        ["GET / HTTP/1.1\r\nHost: a\r\n", "GET /", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"]
    {
        let mut client: Client = device.client();
        client.send(bytes);
        client.wire().finish_sending().expect("a half-close");
        // A 400 is a kindness; silence will do.
        if let Ok(reply) = client.try_reply("GET") {
            assert_eq!(reply.status(), 400);
        }
    }
    assert_eq!(server.request_count(), 0);
}

#[test]
fn options_that_may_go_no_further_are_answered_by_the_device() {
    let (server, device) = pair();
    let mut client = device.client();
    for target in ["*", "/"] {
        let own = client.ask("OPTIONS", target, "Max-Forwards: 0\r\n", b"");
        assert_eq!(own.status(), 200, "{own:?}");
        assert!(own.fields().has("allow") && own.fields().has("date"), "{own:?}");
        assert_eq!(server.request_count(), 0);
    }
    assert_eq!(client.ask("OPTIONS", "*", "Max-Forwards: 1\r\n", b"").status(), 200);
    assert_eq!(server.wait_for(1).fields.only("max-forwards").as_deref(), Some("0"));
    // Other methods need not heed it.
    client.ask("GET", "/", "Max-Forwards: 0\r\n", b"");
    assert_eq!(server.wait_for(2).fields.only("max-forwards").as_deref(), Some("0"));
    client.assert_quiet();
}

#[test]
fn requests_behind_each_other_are_answered_in_order() {
    let server = ScriptedServer::start(cmim_tests::origin::faulty::replies(|request| {
        cmim_tests::origin::faulty::with_length([request.target.as_bytes(), &request.content].concat().as_slice())
    }));
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    let mut bytes = request("GET", "/1", "", b"");
    bytes.extend(request("POST", "/2", "", b"hello"));
    bytes.extend(b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    bytes.extend(request("GET", "/4", "", b""));
    bytes.extend(request("DELETE", "/5", "Connection: close\r\n", b""));
    bytes.extend(request("GET", "/never", "", b""));
    client.send(bytes);
    let texts: Vec<String> = (0..5).map(|_| client.reply().text()).collect();
    assert_eq!(texts, ["/1", "/2hello", "/3hi", "/4", "/5"]);
    client.assert_ended();
    assert!(server.requests().iter().all(|request| request.target != "/never"));
}
