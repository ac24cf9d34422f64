//! The device's own small replies: refusals and failures, one line of text each.

use bytes::{BufMut, BytesMut};

use super::digits::put_decimal;

/// Methods that the device passes on, for the Allow field that a 405 must have (RFC 9110 15.5.6), and that says most in a
/// reply to OPTIONS, the one request that is answered with 200.
const ALLOW: &[u8] = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";

/// A reply of the device's own making, whose content is one line: the status, its name, and the reason if there is one.
#[derive(Debug, Clone, Copy)]
pub struct LocalReply<'a> {
    pub status: u16,
    pub reason: &'a str,
    /// The connection stays open.
    pub keep: bool,
    /// The content is left out, but its length is given.
    pub head_request: bool,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// The time in the words of RFC 9110 5.6.7. Whoever makes a reply and has a clock has to say when (6.6.1).
    pub date: &'a str,
}

/// Writes the whole reply.
pub fn local_reply(reply: &LocalReply<'_>, out: &mut BytesMut) {
    let LocalReply { status, reason, keep, head_request, retry_after, date } = *reply;
    let name = reason_phrase(status);
    out.put_slice(b"HTTP/1.1 ");
    put_status(status, name, out);
    out.put_slice(b"\r\nDate: ");
    out.put_slice(date.as_bytes());
    out.put_slice(b"\r\nContent-Type: text/plain\r\nContent-Length: ");
    put_decimal(content_len(name, reason) as u64, out);
    out.put_slice(b"\r\n");
    if matches!(status, 200 | 405) {
        out.put_slice(ALLOW);
    }
    if let Some(seconds) = retry_after {
        out.put_slice(b"Retry-After: ");
        put_decimal(seconds.into(), out);
        out.put_slice(b"\r\n");
    }
    // Said in both cases, so that it is right for an HTTP/1.0 client too.
    out.put_slice(if keep { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" });
    if head_request {
        return;
    }
    put_status(status, name, out);
    if !reason.is_empty() {
        out.put_slice(b": ");
        out.put_slice(reason.as_bytes());
    }
    out.put_u8(b'\n');
}

fn put_status(status: u16, name: &str, out: &mut BytesMut) {
    put_decimal(status.into(), out);
    out.put_u8(b' ');
    out.put_slice(name.as_bytes());
}

/// Bytes of the content: `502 Bad Gateway: why` and a line feed.
fn content_len(name: &str, reason: &str) -> usize {
    let reason = if reason.is_empty() { 0 } else { ": ".len() + reason.len() };
    "502 ".len() + name.len() + reason + 1
}

/// The name of a status that the device itself sends.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
