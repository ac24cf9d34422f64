//! The text of an access log line.
//!
//! Owns the two formats and their escaping; pure but for the time zone database. Bytes from a peer never break a line: in
//! JSON they are escaped, and what is not UTF-8 appears byte by byte as `\u00XX`; in the combined format as `\xXX`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::access_log::Entry;
use crate::h1::put_decimal;

/// Formatting a date costs more than the rest of a line, so its text is kept for the second that it names.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn text(&mut self, time: Timestamp, format: impl FnOnce(Timestamp) -> String) -> &[u8] {
        if self.second != time.as_second() || self.text.is_empty() {
            self.second = time.as_second();
            self.text = format(time);
        }
        self.text.as_bytes()
    }
}

/// One JSON object and a line end.
pub(super) fn json(out: &mut Vec<u8>, clock: &mut Clock, entry: &Entry<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    let time = timestamp(entry.time);
    out.extend_from_slice(clock.text(time, |time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string()));
    out.push(b'.');
    let millis = u64::try_from(time.subsec_millisecond()).unwrap_or(0);
    push_padded(out, millis);
    out.extend_from_slice(b"Z\"");

    text_field(out, "listener", entry.listener.as_bytes());
    key(out, "client");
    out.push(b'"');
    push_address(out, entry.client);
    out.push(b'"');
    text_field(out, "method", entry.method);
    text_field(out, "target", entry.target);
    text_field(out, "version", entry.version.as_bytes());
    number_field(out, "status", entry.status.into());
    number_field(out, "bytes_in", entry.bytes_in);
    number_field(out, "bytes_out", entry.bytes_out);
    text_field(out, "upstream", entry.upstream.as_bytes());
    if let Some(server) = entry.server {
        text_field(out, "server", server.as_bytes());
    }
    time_field(out, "duration_ms", Some(entry.duration));
    time_field(out, "queue_ms", entry.queue_wait);
    time_field(out, "connect_ms", entry.connect);
    time_field(out, "first_byte_ms", entry.first_byte);
    key(out, "reused");
    out.extend_from_slice(if entry.reused { b"true" } else { b"false" });
    number_field(out, "retries", entry.retries.into());
    number_field(out, "stacked", entry.stacked.into());
    time_field(out, "turn_ms", entry.turn_wait);
    text_field(out, "handling", entry.handling.as_bytes());
    if let Some(reason) = entry.reason {
        text_field(out, "reason", reason.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// The line that Apache and nginx call "combined", in local time.
pub(super) fn combined(out: &mut Vec<u8>, clock: &mut Clock, entry: &Entry<'_>) {
    push_ip(out, entry.client.ip());
    out.extend_from_slice(b" - - [");
    let date = clock.text(timestamp(entry.time), |time| {
        time.to_zoned_datetime(TimeZone::system()).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
    });
    out.extend_from_slice(date);
    out.extend_from_slice(b"] \"");
    if entry.method.is_empty() {
        out.push(b'-');
    } else {
        push_combined(out, entry.method);
        out.push(b' ');
        push_combined(out, entry.target);
        out.push(b' ');
        push_combined(out, entry.version.as_bytes());
    }
    out.extend_from_slice(b"\" ");
    put_decimal(entry.status.into(), out);
    out.push(b' ');
    put_decimal(entry.bytes_out, out);
    for field in [entry.referer, entry.user_agent] {
        out.extend_from_slice(b" \"");
        push_combined(out, field.unwrap_or(b"-"));
        out.push(b'"');
    }
    out.push(b'\n');
}

/// A clock outside jiff's years is a broken clock; its lines say 1970.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    key(out, name);
    out.push(b'"');
    for chunk in value.utf8_chunks() {
        push_json(out, chunk.valid());
        for byte in chunk.invalid() {
            push_escaped(out, b"\\u00", *byte);
        }
    }
    out.push(b'"');
}

fn number_field(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    put_decimal(value, out);
}

/// Milliseconds with three decimals; absent where there is none.
fn time_field(out: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    let Some(value) = value else { return };
    key(out, name);
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    put_decimal(micros / 1_000, out);
    out.push(b'.');
    push_padded(out, micros % 1_000);
}

fn push_json(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\' && *byte != 0x7f;
    if text.bytes().all(|byte| plain(&byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ if plain(&byte) => out.push(byte),
            _ => push_escaped(out, b"\\u00", byte),
        }
    }
}

fn push_combined(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => push_escaped(out, b"\\x", *byte),
            b' '..=b'~' => out.push(*byte),
            _ => push_escaped(out, b"\\x", *byte),
        }
    }
}

fn push_escaped(out: &mut Vec<u8>, prefix: &[u8], byte: u8) {
    out.extend_from_slice(prefix);
    for digit in [byte >> 4, byte & 0xf] {
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

/// Three digits.
fn push_padded(out: &mut Vec<u8>, value: u64) {
    if value < 100 {
        out.push(b'0');
    }
    if value < 10 {
        out.push(b'0');
    }
    put_decimal(value, out);
}

fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            push_ip(out, (*address.ip()).into());
            out.push(b':');
            put_decimal(address.port().into(), out);
        }
        SocketAddr::V6(address) => {
            // Writing into a Vec cannot fail.
            let _: std::io::Result<()> = write!(out, "{address}");
        }
    }
}

fn push_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            put_decimal(a.into(), out);
            for octet in [b, c, d] {
                out.push(b'.');
                put_decimal(octet.into(), out);
            }
        }
        IpAddr::V6(address) => {
            let _: std::io::Result<()> = write!(out, "{address}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn entry() -> Entry<'static> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_042),
            listener: "web",
            client: "192.0.2.7:41234".parse().expect("an address"),
            method: b"GET",
            target: b"/a?b=c",
            version: "HTTP/1.1",
            status: 200,
            bytes_in: 0,
            bytes_out: 5120,
            upstream: "app",
            server: Some("10.0.0.11:8080"),
            duration: Duration::from_micros(12_345),
            queue_wait: None,
            connect: None,
            first_byte: Some(Duration::from_micros(9_007)),
            reused: true,
            retries: 0,
            stacked: 1,
            turn_wait: None,
            handling: "rewritten",
            reason: None,
            referer: None,
            user_agent: Some(b"curl/8.5"),
        }
    }

    fn json_line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        json(&mut out, &mut Clock::default(), entry);
        String::from_utf8(out).expect("UTF-8")
    }

    fn combined_line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        combined(&mut out, &mut Clock::default(), entry);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_json_line_has_every_field_that_is_known_and_no_other() {
        assert_eq!(
            json_line(&entry()),
            concat!(
                r#"{"time":"2026-01-01T00:00:00.042Z","listener":"web","client":"192.0.2.7:41234","method":"GET","#,
                r#""target":"/a?b=c","version":"HTTP/1.1","status":200,"bytes_in":0,"bytes_out":5120,"upstream":"app","#,
                r#""server":"10.0.0.11:8080","duration_ms":12.345,"first_byte_ms":9.007,"reused":true,"retries":0,"#,
                r#""stacked":1,"handling":"rewritten"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn hostile_bytes_stay_within_their_json_string() {
        let mut hostile = entry();
        hostile.target = b"/\"}\n{\\\xff\xc3\xa9\x00\x7f";
        hostile.reason = Some("a \"quoted\" reason");
        let line = json_line(&hostile);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["target"], "/\"}\n{\\\u{ff}\u{e9}\0\u{7f}");
        assert_eq!(value["reason"], "a \"quoted\" reason");
    }

    #[test]
    fn every_byte_in_a_target_gives_a_line_that_parses() {
        for byte in 0..=255_u8 {
            let target = [b'/', byte, b'x'];
            let mut one = entry();
            one.target = &target;
            let value: serde_json::Value = serde_json::from_str(&json_line(&one)).expect("JSON");
            assert_eq!(value["target"], format!("/{}x", char::from(byte)));
            assert_eq!(combined_line(&one).matches('\n').count(), 1);
        }
    }

    #[test]
    fn the_combined_format_quotes_as_log_readers_expect() {
        let mut quoted = entry();
        quoted.user_agent = Some(b"a \"b\" \\ \xff");
        let line = combined_line(&quoted);
        let (head, tail) = line.split_once("] ").expect("a date");
        assert!(head.starts_with("192.0.2.7 - - ["), "{line}");
        assert_eq!(tail, "\"GET /a?b=c HTTP/1.1\" 200 5120 \"-\" \"a \\x22b\\x22 \\x5c \\xff\"\n");
    }

    #[test]
    fn a_request_that_was_no_request_has_a_dash() {
        let mut refused = entry();
        (refused.method, refused.target, refused.version) = (b"", b"", "");
        assert!(combined_line(&refused).contains("] \"-\" 200 "));
    }

    #[test]
    fn the_cached_second_follows_the_clock() {
        let mut out = Vec::new();
        let mut clock = Clock::default();
        let mut moved = entry();
        json(&mut out, &mut clock, &moved);
        moved.time += Duration::from_secs(1);
        json(&mut out, &mut clock, &moved);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("00:00:00.042Z") && text.contains("00:00:01.042Z"), "{text}");
    }

    #[test]
    fn six_has_brackets_and_four_has_none() {
        let mut six = entry();
        six.client = "[2001:db8::1]:443".parse().expect("an address");
        assert!(json_line(&six).contains(r#""client":"[2001:db8::1]:443""#));
        assert!(combined_line(&six).starts_with("2001:db8::1 - - ["));
    }
}
