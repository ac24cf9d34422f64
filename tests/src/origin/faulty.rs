//! Scripts for [`super::ScriptedServer`]: the well-behaved ones that tests lean on, and faults by name.

use std::time::Duration;

use super::scripted::{Request, ServerSide};

/// A 200 with its length.
pub fn with_length(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// A chunked 200 of these parts.
pub fn chunked(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in parts {
        bytes.extend(chunk(part));
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// One chunk of a chunked content.
pub fn chunk(part: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", part.len()).into_bytes();
    bytes.extend_from_slice(part);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A 200 whose end is the connection's.
pub fn close_delimited(content: &[u8]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    bytes.extend_from_slice(content);
    bytes
}

/// Answers every request with `ok` and keeps the connection.
pub fn ok(side: &mut ServerSide) {
    while side.request().is_some() && side.send(with_length(b"ok")) {}
}

/// Answers every request with what `reply` makes of it and keeps the connection.
pub fn replies(reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> impl Fn(&mut ServerSide) {
    move |side| {
        while let Some(request) = side.request() {
            if !side.send(reply(&request)) {
                return;
            }
        }
    }
}

/// Sends `bytes` for each connection's first request, and closes in order.
pub fn then_close(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut ServerSide) {
    let bytes = bytes.into();
    move |side| {
        if side.request().is_some() {
            side.send(&bytes);
        }
    }
}

/// Sends `bytes` for each connection's first request and resets. What the peer's kernel has by then can still be read.
pub fn then_reset(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut ServerSide) {
    let bytes = bytes.into();
    move |side| {
        if side.request().is_some() {
            side.send(&bytes);
            side.reset();
        }
    }
}

/// Sends `bytes` for each connection's first request and then nothing more.
pub fn then_silent(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut ServerSide) {
    let bytes = bytes.into();
    move |side| {
        if side.request().is_some() {
            side.send(&bytes);
            side.wait_closed();
        }
    }
}

/// Takes requests and never answers.
pub fn never_answers(side: &mut ServerSide) {
    side.wait_closed();
}

/// Answers like [`ok`], and ends an idle connection after a random moment in one case of `one_in`: in order, or by a
/// reset.
pub fn closes_idle_at_random(one_in: u32) -> impl Fn(&mut ServerSide) {
    const LONGEST_IDLE_MICROS: u64 = 3_000;
    move |side| {
        while side.request().is_some() && side.send(with_length(b"ok")) {
            if fastrand::u32(..one_in) > 0 {
                continue;
            }
            std::thread::sleep(Duration::from_micros(fastrand::u64(..LONGEST_IDLE_MICROS)));
            if fastrand::bool() {
                side.reset();
            }
            return;
        }
    }
}
