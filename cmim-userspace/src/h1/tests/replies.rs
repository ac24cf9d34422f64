//! Reply heads: accepted shapes, refusals, and the content that each case of RFC 9112 6.3 gives.

use super::super::{FramingError, HeadError, Known, Method, ReplyContent, ReplyError, ReplyHead, Version};
use super::{LIMITS, all_cuts, reply_in_pieces, reply_to, show_reply};

#[track_caller]
fn accepted_to(method: &Method, bytes: impl AsRef<[u8]>) -> ReplyHead {
    let bytes = bytes.as_ref();
    let head = reply_to(method, bytes).expect("the reply is accepted").expect("the head is whole");
    for cuts in all_cuts(bytes.len()) {
        let cut = reply_in_pieces(method, bytes, &cuts).expect("accepted in pieces too").expect("whole in pieces too");
        assert_eq!(show_reply(&cut), show_reply(&head), "cut at {cuts:?}");
    }
    head
}

#[track_caller]
fn accepted(bytes: impl AsRef<[u8]>) -> ReplyHead {
    accepted_to(&Method::Get, bytes)
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, reason: ReplyError) {
    let bytes = bytes.as_ref();
    assert_eq!(reply_to(&Method::Get, bytes).err(), Some(reason), "{}", bytes.escape_ascii());
    for cuts in all_cuts(bytes.len()) {
        assert_eq!(reply_in_pieces(&Method::Get, bytes, &cuts).err(), Some(reason), "{}", bytes.escape_ascii());
    }
}

fn with(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

#[test]
fn status_lines() {
    let head = accepted("HTTP/1.1 404 Not  Found \u{e9}\r\n\r\n");
    assert_eq!((head.status, head.version), (404, Version::Http11));
    assert_eq!(head.reason, "Not  Found \u{e9}");
    assert_eq!(accepted("HTTP/1.1 200 \r\n\r\n").reason, "");
    assert_eq!(accepted("HTTP/1.1 200\r\n\r\n").reason, "");
    assert_eq!(accepted("HTTP/1.0 999 x\r\n\r\n").version, Version::Http10);
    assert_eq!(accepted("HTTP/1.3 200 x\r\n\r\n").version, Version::Http11);
    for bad in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 +20 OK",
        "ICY 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1",
        "HTTP/11 200 OK",
        "HTTP/1.10 200 OK",
        "",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200\tOK",
    ] {
        refused(format!("{bad}\r\n\r\n"), ReplyError::StatusLine);
    }
    refused("HTTP/2.0 200 OK\r\n\r\n", ReplyError::UnknownVersion);
    refused("HTTP/1.1 200 O\0K\r\n\r\n", ReplyError::Head(HeadError::Nul));
    refused("HTTP/1.1 200 O\rK\r\n\r\n", ReplyError::Head(HeadError::BareCr));
    refused("HTTP/1.1 200 OK\n\r\n", ReplyError::Head(HeadError::BareLf));
    refused("<html>", ReplyError::StatusLine);
}

#[test]
fn heads_are_held_to_the_same_rules() {
    refused(with("A : x\r\n"), ReplyError::Head(HeadError::SpaceBeforeColon));
    refused(with("A: x\r\n y\r\n"), ReplyError::Head(HeadError::ObsFold));
    refused(with("A: x\n"), ReplyError::Head(HeadError::BareLf));
    refused(with("A: x\ry\r\n"), ReplyError::Head(HeadError::BareCr));
    refused(with(&format!("A: {}\r\n", "x".repeat(LIMITS.head))), ReplyError::Head(HeadError::TooLarge));
    let fields: String = (0..=LIMITS.fields).map(|n| format!("F{n}: v\r\n")).collect();
    refused(with(&fields), ReplyError::Head(HeadError::TooManyFields));
}

#[test]
fn contents() {
    let content = |fields: &str| accepted(with(fields)).content;
    assert_eq!(content("Content-Length: 5\r\n"), ReplyContent::Length(5));
    assert_eq!(content("Content-Length: 0\r\n"), ReplyContent::Length(0));
    assert_eq!(content("Content-Length: 5\r\nContent-Length: 5\r\n"), ReplyContent::Length(5));
    assert_eq!(content("Content-Length: 18446744073709551615\r\n"), ReplyContent::Length(u64::MAX));
    assert_eq!(content("Transfer-Encoding: chunked\r\n"), ReplyContent::Chunked);
    assert_eq!(content("Transfer-Encoding: gzip, chunked\r\n"), ReplyContent::Coded);
    assert_eq!(content("Transfer-Encoding: x\r\nTransfer-Encoding: Chunked\r\n"), ReplyContent::Coded);
    assert_eq!(content(""), ReplyContent::UntilClose);
}

#[test]
fn framing_errors() {
    let cases = [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", FramingError::LengthsDiffer),
        ("Content-Length: 5, 5\r\n", FramingError::LengthSyntax),
        ("Content-Length: -1\r\n", FramingError::LengthSyntax),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", FramingError::LengthAndEncoding),
        ("Transfer-Encoding: gzip\r\n", FramingError::ChunkedNotLast),
        ("Transfer-Encoding: identity\r\n", FramingError::UnknownCoding),
        ("Transfer-Encoding: chunked, gzip\r\n", FramingError::ChunkedNotLast),
        ("Transfer-Encoding: chunked, chunked\r\n", FramingError::ChunkedTwice),
        ("Transfer-Encoding: \r\n", FramingError::EncodingSyntax),
    ];
    for (fields, reason) in cases {
        refused(with(fields), ReplyError::Framing(reason));
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, ReplyError::Framing(FramingError::EncodingInHttp10));
}

#[test]
fn replies_without_content_whatever_their_fields_say() {
    for fields in [
        "",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for status in [100, 103, 199, 204, 304] {
            let head = accepted(format!("HTTP/1.1 {status} x\r\n{fields}\r\n"));
            assert_eq!(head.content, ReplyContent::None, "{status} {fields}");
            assert_eq!(head.is_interim(), status < 200);
            assert!(head.persistent);
        }
        let head = accepted_to(&Method::Head, with(fields));
        assert_eq!((head.content, head.persistent), (ReplyContent::None, true));
        let tunnel = accepted_to(&Method::Connect, with(fields));
        assert_eq!((tunnel.content, tunnel.persistent), (ReplyContent::None, false));
    }
    let refusal = accepted_to(&Method::Connect, "HTTP/1.1 403 x\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((refusal.content, refusal.persistent), (ReplyContent::Length(5), true));
    assert_eq!(
        reply_to(&Method::Head, with("Content-Length: 5\r\nContent-Length: 6\r\n").as_bytes()).err(),
        Some(ReplyError::Framing(FramingError::LengthsDiffer))
    );
}

#[test]
fn persistence() {
    let cases = [
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.1 200 x\r\n\r\n", false),
        ("HTTP/1.1 200 x\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.0 200 x\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 x\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false),
    ];
    for (bytes, persistent) in cases {
        assert_eq!(accepted(bytes).persistent, persistent, "{bytes}");
    }
}

#[test]
fn switching_protocols() {
    let head = accepted("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(head.upgrade && !head.is_interim());
    assert_eq!(head.fields.get(Known::Upgrade), Some(b"websocket".as_slice()));
    refused("HTTP/1.1 101 x\r\n\r\n", ReplyError::SwitchWithoutUpgrade);
}
