//! The work of `cargo xtask lint --perf`: one step of the pure core, so many times.
//!
//!     instructions request|reply|chunks COUNT
//!
//! Counted under callgrind with two counts; the difference is the step alone.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use bytes::BytesMut;
use cmim::h1::{
    ChunkedDecoder, Decoded, Forwarding, Limits, Method, ReplyDelimit, ReplyParser, ReplyTo, RequestParser, Version,
    encode,
};

/// As a browser sends it.
const REQUEST: &[u8] = b"GET /articles/2026/a-page.html?from=start HTTP/1.1\r\nHost: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\nReferer: http://www.example.org/\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

/// As an application server sends it.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\nLast-Modified: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"69242f40-400\"\r\nCache-Control: max-age=60\r\nAccept-Ranges: bytes\r\n\r\n";

const CHUNK: usize = 1024;
const CHUNKS: usize = 8;

const LIMITS: Limits = Limits { head: 32 << 10, fields: 100, target: 8 << 10, content: 1 << 30 };

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (case, count) = (arguments.next(), arguments.next().and_then(|count| count.parse().ok()));
    let done = match (case.as_deref(), count) {
        (Some("request"), Some(count)) => requests(count),
        (Some("reply"), Some(count)) => replies(count),
        (Some("chunks"), Some(count)) => chunks(count),
        _ => None,
    };
    if done.is_none() {
        eprintln!("usage: instructions request|reply|chunks COUNT");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A request's head: parsed, framed, written for the server.
fn requests(count: u32) -> Option<()> {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let forwarding = Forwarding {
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        proto: "http",
        trusted: false,
        keep_expect: false,
        fallback_host: b"",
    };
    let mut parser = RequestParser::new();
    for _ in 0..count {
        input.extend_from_slice(black_box(REQUEST));
        let head = parser.parse(&mut input, &LIMITS).ok()??;
        encode::request(&head, &forwarding, head.delimit(), &mut out);
        black_box(&out);
        out.clear();
    }
    Some(())
}

/// A reply's head: parsed, framed, written for the client.
fn replies(count: u32) -> Option<()> {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let to = ReplyTo { client_version: Version::Http11, persist: true };
    let mut parser = ReplyParser::new();
    for _ in 0..count {
        input.extend_from_slice(black_box(REPLY));
        let head = parser.parse(&mut input, &Method::Get, &LIMITS).ok()??;
        encode::reply(&head, &to, ReplyDelimit::AsIs, &mut out);
        black_box(&out);
        out.clear();
    }
    Some(())
}

/// A chunked content, decoded to its end.
fn chunks(count: u32) -> Option<()> {
    let mut content = Vec::new();
    for _ in 0..CHUNKS {
        content.extend_from_slice(format!("{CHUNK:x}\r\n").as_bytes());
        content.extend_from_slice(&[b'c'; CHUNK]);
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(b"0\r\n\r\n");
    let mut input = BytesMut::new();
    for _ in 0..count {
        input.extend_from_slice(black_box(&content));
        let mut decoder = ChunkedDecoder::new();
        while let Decoded::Data(data) = decoder.decode(&mut input).ok()? {
            black_box(&data);
        }
    }
    Some(())
}
