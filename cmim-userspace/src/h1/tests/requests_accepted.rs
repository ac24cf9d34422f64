//! Every accepted shape of a request head, at once and at every split point.

use bytes::BytesMut;

use super::super::{
    Known, Method, RequestContent, RequestDelimit, RequestHead, RequestParser, Version, head_has_begun,
};
use super::{LIMITS, all_cuts, request, request_in_pieces, show_request, text};

#[track_caller]
fn accepted(bytes: impl AsRef<[u8]>) -> RequestHead {
    let bytes = bytes.as_ref();
    let head = request(bytes).expect("the request is accepted").expect("the head is whole");
    let shown = show_request(&head);
    for cuts in all_cuts(bytes.len()) {
        let cut = request_in_pieces(bytes, &cuts).expect("accepted in pieces too").expect("whole in pieces too");
        assert_eq!(show_request(&cut), shown, "cut at {cuts:?}");
    }
    for len in 0..bytes.len() {
        assert!(request(&bytes[..len]).expect("a beginning is no error").is_none(), "whole at {len} bytes");
    }
    head
}

fn with(fields: &str) -> RequestHead {
    accepted(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn plain_get() {
    let head = accepted("GET /a/b?c=d HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\n\r\n");
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.target, "/a/b?c=d");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.authority, "example.org:8080");
    assert_eq!(head.host(), b"example.org");
    assert_eq!(head.content, RequestContent::None);
    assert_eq!(head.delimit(), RequestDelimit::None);
    assert!(head.persistent && !head.expects_continue && head.upgrade.is_none());
    assert_eq!(head.fields.get_named("accept"), Some(b"*/*".as_slice()));
}

#[test]
fn methods() {
    for name in
        ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "get", "M-SEARCH", &"M".repeat(32)]
    {
        let head = accepted(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.method.as_str(), name);
    }
    assert_eq!(accepted("get / HTTP/1.1\r\nHost: a\r\n\r\n").method, Method::Other("get".into()));
}

#[test]
fn target_forms() {
    let cases = [
        ("GET", "/", "/", "a"),
        ("GET", "//b/c", "//b/c", "a"),
        ("GET", "/a|b\"[]{}^`\\<>%zz?x=\"", "/a|b\"[]{}^`\\<>%zz?x=\"", "a"),
        ("OPTIONS", "*", "*", "a"),
        ("OPTIONS", "/x", "/x", "a"),
        ("OPTIONS", "http://b:81", "*", "b:81"),
        ("OPTIONS", "http://b/", "/", "b"),
        ("GET", "http://b", "/", "b"),
        ("GET", "HTTP://b:80/x?y", "/x?y", "b:80"),
        ("GET", "https://[::1]:443/x", "/x", "[::1]:443"),
        ("GET", "http://b?q", "/?q", "b"),
        ("CONNECT", "b:443", "b:443", "b:443"),
        ("CONNECT", "[::1]:443", "[::1]:443", "[::1]:443"),
    ];
    for (method, target, sent_on, authority) in cases {
        let head = accepted(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(text(&head.target), text(sent_on.as_bytes()), "{method} {target}");
        assert_eq!(text(&head.authority), authority, "{method} {target}");
    }
}

#[test]
fn longest_target() {
    let target = format!("/{}", "a".repeat(LIMITS.target - 1));
    assert_eq!(accepted(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).target, target);
}

#[test]
fn hosts() {
    for host in
        ["a", "A.b-c_d", "127.0.0.1", "a:", "a:0", "a:65535", "[::1]", "[::ffff:1.2.3.4]:80", "xn--a", "a%20b", "a."]
    {
        let head = accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(text(&head.authority), host);
    }
    assert_eq!(accepted("GET / HTTP/1.1\r\nhOST:\t a \t\r\n\r\n").authority, "a");
    assert_eq!(accepted("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host(), b"[::1]");
    assert_eq!(accepted("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n").host(), b"[::1]");
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").authority, "");
}

#[test]
fn versions() {
    for (spelling, version) in
        [("1.0", Version::Http10), ("1.1", Version::Http11), ("1.2", Version::Http11), ("1.9", Version::Http11)]
    {
        assert_eq!(accepted(format!("GET / HTTP/{spelling}\r\nHost: a\r\n\r\n")).version, version);
    }
}

#[test]
fn contents() {
    let head = with("Content-Length: 5\r\n");
    assert_eq!((head.content, head.zero_length), (RequestContent::Length(5), false));
    assert_eq!(with("Content-Length: 0005\r\n").content, RequestContent::Length(5));
    assert_eq!(with("Content-Length: 5\r\nContent-Length: 5\r\n").content, RequestContent::Length(5));
    assert_eq!(with("Content-Length: 1048576\r\n").delimit(), RequestDelimit::Length(1 << 20));
    let head = with("Content-Length: 0\r\n");
    assert_eq!(
        (head.content, head.zero_length, head.delimit()),
        (RequestContent::None, true, RequestDelimit::ZeroLength)
    );
    assert_eq!(with("Transfer-Encoding: chunked\r\n").content, RequestContent::Chunked);
    assert_eq!(with("transfer-ENCODING:\tChunked \r\n").delimit(), RequestDelimit::Chunked);
}

#[test]
fn persistence() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: keep-alive\r\nConnection: x, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ];
    for (version, fields, persistent) in cases {
        let head = accepted(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.persistent, persistent, "{version} {fields}");
    }
}

#[test]
fn expectations() {
    assert!(with("Content-Length: 5\r\nExpect: 100-Continue\r\n").expects_continue);
    assert!(with("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n").expects_continue);
    assert!(!with("Expect: 100-continue\r\n").expects_continue, "there is nothing to wait with");
    assert!(!with("Content-Length: 5\r\nExpect: x\r\n").expects_continue);
    let old = accepted("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(!old.expects_continue, "RFC 9110 10.1.1");
}

#[test]
fn upgrades() {
    let offered = |fields: &str| with(fields).upgrade.map(|protocols| text(&protocols));
    assert_eq!(offered("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n").as_deref(), Some("websocket"));
    assert_eq!(offered("Upgrade: websocket\r\n"), None);
    assert_eq!(offered("Connection: upgrade\r\n"), None);
    for barred in ["h2c", "websocket, H2C", "TLS/1.0", "HTTP/2.0"] {
        assert_eq!(offered(&format!("Connection: upgrade\r\nUpgrade: {barred}\r\n")), None, "{barred}");
    }
    let old = accepted("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(old.upgrade.is_none(), "RFC 9110 7.8");
}

#[test]
fn field_values_are_trimmed_and_opaque() {
    let head = with("A:x\r\nB: \t \r\nC:\tx\ty \t\r\nD: caf\u{e9}\r\nA: z\r\n");
    assert_eq!(head.fields.get_named("a"), Some(b"x".as_slice()));
    assert_eq!(head.fields.get_named("b"), Some(b"".as_slice()));
    assert_eq!(head.fields.get_named("C"), Some(b"x\ty".as_slice()));
    assert_eq!(head.fields.get_named("D"), Some("caf\u{e9}".as_bytes()));
    assert_eq!(head.fields.len(), 6);
    assert_eq!(head.fields.iter().filter(|(_, name, _)| *name == b"A").count(), 2);
}

#[test]
fn known_fields_are_recognised_in_any_case() {
    let names = [
        ("HOST", Known::Host),
        ("Content-length", Known::ContentLength),
        ("TRANSFER-encoding", Known::TransferEncoding),
        ("Connection", Known::Connection),
        ("Keep-Alive", Known::KeepAlive),
        ("Proxy-Connection", Known::ProxyConnection),
        ("TE", Known::Te),
        ("Trailer", Known::Trailer),
        ("Upgrade", Known::Upgrade),
        ("Via", Known::Via),
        ("Forwarded", Known::Forwarded),
        ("X-Forwarded-For", Known::XForwardedFor),
        ("X-Forwarded-Proto", Known::XForwardedProto),
        ("X-FORWARDED-HOST", Known::XForwardedHost),
        ("Expect", Known::Expect),
        ("Date", Known::Date),
        ("Server", Known::Server),
        ("Content-Type", Known::ContentType),
        ("Cookie", Known::Cookie),
        ("Authorization", Known::Authorization),
        ("User-Agent", Known::UserAgent),
        ("Referer", Known::Referer),
        ("Retry-After", Known::RetryAfter),
        ("X-Accel-Buffering", Known::XAccelBuffering),
        ("Content_Length", Known::Lookalike),
        ("Transfer_Encoding", Known::Lookalike),
        ("transfer-encoding_", Known::Other),
        ("X_Forwarded-For", Known::Lookalike),
        ("x_forwarded_host", Known::Lookalike),
        ("User_Agent", Known::Other),
        ("_", Known::Other),
        ("", Known::Other),
        ("Accept", Known::Other),
        ("X-Forwarded-Port", Known::Other),
    ];
    for (name, known) in names {
        assert_eq!(Known::of(name.as_bytes()), known, "{name}");
    }
}

#[test]
fn empty_lines_before_a_head_are_skipped() {
    let mut bytes = "\r\n".repeat(16);
    bytes.push_str("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    accepted(bytes);
    assert!(!head_has_begun(b"\r\n\r\n\r"));
    assert!(head_has_begun(b"\r\nG"));
}

#[test]
fn stacked_requests_come_off_one_by_one() {
    let mut buf = BytesMut::from(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3",
    );
    let mut parser = RequestParser::new();
    let mut next = |buf: &mut BytesMut| parser.parse(buf, &LIMITS).expect("valid");
    assert_eq!(next(&mut buf).expect("whole").target, "/1");
    assert_eq!(next(&mut buf).expect("whole").target, "/2");
    assert_eq!(buf.split_to(3), "abc");
    assert!(next(&mut buf).is_none());
    buf.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(next(&mut buf).expect("whole").target, "/3");
    assert!(buf.is_empty());
}
