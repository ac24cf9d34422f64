//! Heads on their way out: what is passed on, dropped and made anew.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;

use super::super::{
    Forwarding, LocalReply, Method, ReplyDelimit, ReplyTo, RequestDelimit, RequestHead, Version, encode, local_reply,
};
use super::{reply_to, request};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

const FORWARDING: Forwarding<'_> =
    Forwarding { client: CLIENT, proto: "http", trusted: false, keep_expect: false, fallback_host: b"fallback" };

const TO_11: ReplyTo = ReplyTo { client_version: Version::Http11, persist: true };

fn parsed(bytes: &str) -> RequestHead {
    request(bytes.as_bytes()).expect("valid").expect("whole")
}

fn sent(bytes: &str, forwarding: &Forwarding<'_>) -> String {
    let head = parsed(bytes);
    let mut out = BytesMut::new();
    encode::request(&head, forwarding, head.delimit(), &mut out);
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

fn replied_to(method: &Method, bytes: &str, to: ReplyTo, delimit: ReplyDelimit) -> String {
    let head = reply_to(method, bytes.as_bytes()).expect("valid").expect("whole");
    let mut out = BytesMut::new();
    encode::reply(&head, &to, delimit, &mut out);
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

fn replied(bytes: &str, to: ReplyTo, delimit: ReplyDelimit) -> String {
    replied_to(&Method::Get, bytes, to, delimit)
}

/// The device's own fields for a client without trust.
fn own(host: &str) -> String {
    let quoted = if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
    format!(
        "Via: 1.1 cmim\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: {host}\r\nForwarded: for=192.0.2.7;host={quoted};proto=http\r\n"
    )
}

#[test]
fn request_keeps_its_fields_in_order_with_host_first() {
    let sent = sent("GET /x?y HTTP/1.1\r\nA:  1 \r\nHost: h:80\r\nb: 2\r\nA: 3\r\nVia: 1.0 other\r\n\r\n", &FORWARDING);
    assert_eq!(
        sent,
        format!("GET /x?y HTTP/1.1\r\nHost: h:80\r\nA: 1\r\nb: 2\r\nA: 3\r\nVia: 1.0 other\r\n{}\r\n", own("h:80"))
    );
}

#[test]
fn options_are_passed_on_once_less_and_other_methods_as_they_were() {
    let forwarded = |method: &str, fields: &str| {
        let sent = sent(&format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"), &FORWARDING);
        let lines = sent.lines().filter(|line| line.to_ascii_lowercase().starts_with("max-forwards"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(forwarded("OPTIONS", ""), [""; 0]);
    assert_eq!(forwarded("OPTIONS", "max-forwards: 10\r\n"), ["Max-Forwards: 9"]);
    assert_eq!(forwarded("OPTIONS", "Max-Forwards: 1\r\n"), ["Max-Forwards: 0"]);
    assert_eq!(forwarded("OPTIONS", "Max-Forwards: 5\r\nX: y\r\nMax-Forwards: 3\r\n"), ["Max-Forwards: 2"]);
    let most = format!("Max-Forwards: {}", u64::MAX - 1);
    assert_eq!(forwarded("OPTIONS", "Max-Forwards: 99999999999999999999999\r\n"), [most]);
    assert_eq!(forwarded("OPTIONS", "Max-Forwards: many\r\n"), ["Max-Forwards: many"]);
    assert_eq!(forwarded("GET", "Max-Forwards: 5\r\n"), ["Max-Forwards: 5"]);
}

#[test]
fn request_loses_what_belongs_to_its_connection() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Gone, content-length\r\nKeep-Alive: 5\r\n\
                 Proxy-Connection: x\r\nTE: trailers\r\nTrailer: t\r\nUpgrade: websocket\r\nx-gone: 1\r\nx-gone-not: 1\r\n\r\n";
    assert_eq!(sent(bytes, &FORWARDING), format!("GET / HTTP/1.1\r\nHost: h\r\nx-gone-not: 1\r\n{}\r\n", own("h")));
}

#[test]
fn connection_cannot_name_framing_and_forwarding_fields_away() {
    let bytes = "POST / HTTP/1.1\r\nHost: h\r\nConnection: host, content-length, x-forwarded-for, via, forwarded\r\n\
                 Content-Length: 5\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.1 before\r\n\r\n";
    let trusted = Forwarding { trusted: true, ..FORWARDING };
    let sent = sent(bytes, &trusted);
    assert!(sent.contains("\r\nContent-Length: 5\r\n"), "{sent}");
    assert!(sent.contains("\r\nX-Forwarded-For: 10.0.0.1, 192.0.2.7\r\n"), "{sent}");
    assert!(sent.contains("\r\nVia: 1.1 before\r\n"), "{sent}");
    assert!(sent.starts_with("POST / HTTP/1.1\r\nHost: h\r\n"), "{sent}");
}

#[test]
fn absolute_form_becomes_origin_form_and_rewrites_host() {
    let sent = sent("GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n", &FORWARDING);
    assert!(sent.starts_with("GET /x HTTP/1.1\r\nHost: b:81\r\nVia"), "{sent}");
    assert!(!sent.contains("Host: a"), "{sent}");
}

#[test]
fn forged_forwarding_fields_do_not_pass() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: e\r\n\
                 Forwarded: for=e\r\nX_Forwarded_For: 1\r\nContent_Length: 3\r\n\r\n";
    assert_eq!(sent(bytes, &FORWARDING), format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", own("h")));
}

#[test]
fn trusted_forwarding_fields_are_kept_and_extended() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1, 2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\n\
                 Forwarded: for=e\r\nX-Forwarded-For: 3\r\n\r\n";
    let v6 = Forwarding { trusted: true, client: "2001:db8::1".parse().expect("address"), ..FORWARDING };
    assert_eq!(
        sent(bytes, &v6),
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\nVia: 1.1 cmim\r\n\
         X-Forwarded-For: 1, 2, 3, 2001:db8::1\r\nForwarded: for=e, for=\"[2001:db8::1]\";host=h;proto=http\r\n\r\n"
    );
    let mapped = Forwarding { client: "::ffff:192.0.2.7".parse().expect("address"), ..FORWARDING };
    assert!(sent("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &mapped).contains("\r\nX-Forwarded-For: 192.0.2.7\r\n"));
}

#[test]
fn http_1_0_request_gets_a_host() {
    let sent = sent("GET / HTTP/1.0\r\n\r\n", &FORWARDING);
    assert_eq!(
        sent,
        "GET / HTTP/1.1\r\nHost: fallback\r\nVia: 1.1 cmim\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=192.0.2.7;proto=http\r\n\r\n"
    );
}

#[test]
fn request_framing_is_the_devices_own() {
    let head = parsed("POST / HTTP/1.1\r\nHost: h\r\nTrailer: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let cases = [
        (RequestDelimit::None, ""),
        (RequestDelimit::ZeroLength, "Content-Length: 0\r\n"),
        (RequestDelimit::Length(1234567890), "Content-Length: 1234567890\r\n"),
        (RequestDelimit::Chunked, "Transfer-Encoding: chunked\r\n"),
    ];
    for (delimit, framing) in cases {
        let mut out = BytesMut::new();
        encode::request(&head, &FORWARDING, delimit, &mut out);
        let trailer = if delimit == RequestDelimit::Chunked { "Trailer: t\r\n" } else { "" };
        assert_eq!(out, format!("POST / HTTP/1.1\r\nHost: h\r\n{trailer}{framing}{}\r\n", own("h")));
    }
    let doubled = sent("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 05\r\nContent-Length: 05\r\n\r\n", &FORWARDING);
    assert_eq!(doubled.matches("Content-Length: 5\r\n").count(), 1);
    assert!(
        sent("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &FORWARDING).contains("Content-Length: 0\r\n")
    );
}

#[test]
fn expect_is_kept_only_if_asked() {
    let bytes = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert!(!sent(bytes, &FORWARDING).contains("Expect"));
    let keeping = Forwarding { keep_expect: true, ..FORWARDING };
    assert!(sent(bytes, &keeping).contains("\r\nExpect: 100-continue\r\n"));
    let empty = "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n";
    assert!(!sent(empty, &keeping).contains("Expect"), "there is no content to wait with");
    let other = "GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n";
    assert!(sent(other, &FORWARDING).contains("\r\nExpect: more\r\n"));
}

#[test]
fn upgrade_is_made_anew() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, X\r\nUpgrade: websocket\r\nX: 1\r\nSec-WebSocket-Key: k\r\n\r\n";
    assert_eq!(
        sent(bytes, &FORWARDING),
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\n{}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            own("h")
        )
    );
}

const DYNAMIC: &str = "HTTP/1.1 200 Fine\r\nDate: d\r\nServer: s\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\
                       Connection: close, x-hop\r\nKeep-Alive: 3\r\nX-Hop: 1\r\nSet-Cookie: b\r\nVia: 1.1 before\r\n\r\n";
const KEPT: &str = "HTTP/1.1 200 Fine\r\nDate: d\r\nServer: s\r\nSet-Cookie: a\r\n";
const KEPT_AFTER: &str = "Set-Cookie: b\r\nVia: 1.1 before\r\n";

#[test]
fn reply_with_its_length_determined() {
    assert_eq!(
        replied(DYNAMIC, TO_11, ReplyDelimit::Length(42)),
        format!("{KEPT}{KEPT_AFTER}Content-Length: 42\r\nVia: 1.1 cmim\r\n\r\n")
    );
}

#[test]
fn reply_in_chunks() {
    assert_eq!(
        replied(DYNAMIC, TO_11, ReplyDelimit::Chunked),
        format!("{KEPT}Trailer: t\r\n{KEPT_AFTER}Transfer-Encoding: chunked\r\nVia: 1.1 cmim\r\n\r\n")
    );
    let coded = "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip ,x\r\nTransfer-Encoding:chunked\r\n\r\n";
    assert_eq!(
        replied(coded, TO_11, ReplyDelimit::Coded),
        "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, x, chunked\r\nVia: 1.1 cmim\r\n\r\n"
    );
}

#[test]
fn reply_until_close_always_says_so() {
    let to_10 = ReplyTo { client_version: Version::Http10, persist: true };
    assert_eq!(
        replied(DYNAMIC, to_10, ReplyDelimit::UntilClose),
        format!("{KEPT}{KEPT_AFTER}Via: 1.1 cmim\r\nConnection: close\r\n\r\n")
    );
}

#[test]
fn one_connection_field_where_needed() {
    let bytes = "HTTP/1.0 200 x\r\nContent-Length: 007\r\nConnection: close\r\n\r\n";
    let cases = [
        (Version::Http11, true, ""),
        (Version::Http11, false, "Connection: close\r\n"),
        (Version::Http10, true, "Connection: keep-alive\r\n"),
        (Version::Http10, false, "Connection: close\r\n"),
    ];
    for (client_version, persist, connection) in cases {
        assert_eq!(
            replied(bytes, ReplyTo { client_version, persist }, ReplyDelimit::Length(7)),
            format!("HTTP/1.1 200 x\r\nContent-Length: 7\r\nVia: 1.1 cmim\r\n{connection}\r\n")
        );
    }
}

#[test]
fn head_reply_keeps_its_length_and_gains_none() {
    let with = "HTTP/1.1 200 x\r\nContent-Length: 7\r\nContent-Length: 7\r\nA: b\r\n\r\n";
    assert_eq!(
        replied_to(&Method::Head, with, TO_11, ReplyDelimit::AsIs),
        "HTTP/1.1 200 x\r\nContent-Length: 7\r\nA: b\r\nVia: 1.1 cmim\r\n\r\n"
    );
    for without in [
        "HTTP/1.1 200 x\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
    ] {
        assert_eq!(
            replied_to(&Method::Head, without, TO_11, ReplyDelimit::AsIs),
            "HTTP/1.1 200 x\r\nVia: 1.1 cmim\r\n\r\n"
        );
    }
}

#[test]
fn replies_without_content_announce_none() {
    for status in [204, 199] {
        let bytes = format!("HTTP/1.1 {status} x\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n");
        for delimit in [ReplyDelimit::None, ReplyDelimit::AsIs] {
            assert_eq!(replied(&bytes, TO_11, delimit), format!("HTTP/1.1 {status} x\r\nVia: 1.1 cmim\r\n\r\n"));
        }
    }
    let tunnel = "HTTP/1.1 200 x\r\nContent-Length: 7\r\n\r\n";
    assert_eq!(
        replied_to(&Method::Connect, tunnel, TO_11, ReplyDelimit::AsIs),
        "HTTP/1.1 200 x\r\nVia: 1.1 cmim\r\n\r\n"
    );
    assert_eq!(
        replied("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", TO_11, ReplyDelimit::None),
        "HTTP/1.1 304 x\r\nVia: 1.1 cmim\r\n\r\n"
    );
}

#[test]
fn switching_and_demanding_protocols() {
    let switch = "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nA: b\r\n\r\n";
    let closing = ReplyTo { persist: false, ..TO_11 };
    for to in [TO_11, closing] {
        assert_eq!(
            replied(switch, to, ReplyDelimit::None),
            "HTTP/1.1 101 x\r\nA: b\r\nVia: 1.1 cmim\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
    }
    let demand = "HTTP/1.1 426 x\r\nUpgrade: TLS/1.3\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        replied(demand, closing, ReplyDelimit::Length(0)),
        "HTTP/1.1 426 x\r\nContent-Length: 0\r\nVia: 1.1 cmim\r\nConnection: upgrade, close\r\nUpgrade: TLS/1.3\r\n\r\n"
    );
}

#[test]
fn interim_replies_pass() {
    let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nConnection: x\r\nX: 1\r\nContent-Length: 3\r\n\r\n";
    let head = reply_to(&Method::Get, bytes).expect("valid").expect("whole");
    let mut out = BytesMut::new();
    encode::interim(&head, &mut out);
    assert_eq!(out, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nVia: 1.1 cmim\r\n\r\n");
}

#[test]
fn local_replies() {
    let mut out = BytesMut::new();
    let broken = LocalReply {
        status: 502,
        reason: "server closed the connection before the reply was whole",
        keep: false,
        head_request: false,
        retry_after: None,
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
    };
    local_reply(&broken, &mut out);
    assert_eq!(
        out,
        "HTTP/1.1 502 Bad Gateway\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 73\r\nConnection: close\r\n\r\n\
         502 Bad Gateway: server closed the connection before the reply was whole\n"
    );
    for status in [200, 400, 405, 408, 413, 414, 431, 501, 502, 503, 504, 505] {
        for (keep, head_request, retry_after, reason) in [(true, false, Some(3), "why"), (false, true, None, "")] {
            out.clear();
            local_reply(&LocalReply { status, reason, keep, head_request, retry_after, ..broken }, &mut out);
            let method = if head_request { Method::Head } else { Method::Get };
            let head =
                super::ReplyParser::new().parse(&mut out, &method, &super::LIMITS).expect("valid").expect("whole");
            assert_eq!((head.status, head.persistent), (status, keep));
            assert_ne!(head.reason, "Error");
            assert_eq!(head.fields.get_named("allow").is_some(), matches!(status, 200 | 405));
            assert_eq!(head.fields.get_named("retry-after").is_some(), retry_after.is_some());
            let length: usize = std::str::from_utf8(head.fields.get_named("content-length").expect("length"))
                .expect("digits")
                .parse()
                .expect("number");
            assert_eq!(out.len(), if head_request { 0 } else { length });
        }
    }
}
