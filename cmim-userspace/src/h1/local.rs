//! The device's own small replies: refusals and failures, one line of text each.

use bytes::{BufMut, BytesMut};

use super::digits::put_decimal;

/// Methods that the device passes on, for the Allow field that a 405 must have (RFC 9110 15.5.6).
const ALLOW: &[u8] = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";

/// Writes a whole reply whose content is one line: the status, its name, and `reason_line` if it is not empty. `keep`:
/// the connection stays open. `head_request`: the content is left out, but its length is given. `retry_after`: seconds.
pub fn local_reply(
    status: u16,
    reason_line: &str,
    keep: bool,
    head_request: bool,
    retry_after: Option<u32>,
    out: &mut BytesMut,
) {
    let name = reason_phrase(status);
    out.put_slice(b"HTTP/1.1 ");
    put_status(status, name, out);
    out.put_slice(b"\r\nContent-Type: text/plain\r\nContent-Length: ");
    put_decimal(content_len(name, reason_line) as u64, out);
    out.put_slice(b"\r\n");
    if status == 405 {
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
    if !reason_line.is_empty() {
        out.put_slice(b": ");
        out.put_slice(reason_line.as_bytes());
    }
    out.put_u8(b'\n');
}

fn put_status(status: u16, name: &str, out: &mut BytesMut) {
    put_decimal(status.into(), out);
    out.put_u8(b' ');
    out.put_slice(name.as_bytes());
}

/// Bytes of the content: `502 Bad Gateway: why` and a line feed.
fn content_len(name: &str, reason_line: &str) -> usize {
    let reason = if reason_line.is_empty() { 0 } else { ": ".len() + reason_line.len() };
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
