//! The parsers and encoders against each other, at every split point, and against random bytes.

mod chunks;
mod encoding;
mod properties;
mod replies;
mod requests_accepted;
mod requests_refused;

use bytes::BytesMut;

use super::{Fields, Limits, Method, ReplyError, ReplyHead, ReplyParser, RequestError, RequestHead, RequestParser};

const LIMITS: Limits = Limits { head: 4096, fields: 20, target: 256, content: 1 << 20 };

/// What a parser makes of the bytes, given at once.
fn request(bytes: &[u8]) -> Result<Option<RequestHead>, RequestError> {
    RequestParser::new().parse(&mut BytesMut::from(bytes), &LIMITS)
}

fn reply_to(method: &Method, bytes: &[u8]) -> Result<Option<ReplyHead>, ReplyError> {
    ReplyParser::new().parse(&mut BytesMut::from(bytes), method, &LIMITS)
}

/// As [`request`], the bytes coming in pieces that end at `cuts`.
fn request_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<RequestHead>, RequestError> {
    let mut parser = RequestParser::new();
    in_pieces(bytes, cuts, |buf| parser.parse(buf, &LIMITS))
}

fn reply_in_pieces(method: &Method, bytes: &[u8], cuts: &[usize]) -> Result<Option<ReplyHead>, ReplyError> {
    let mut parser = ReplyParser::new();
    in_pieces(bytes, cuts, |buf| parser.parse(buf, method, &LIMITS))
}

fn in_pieces<T, E>(
    bytes: &[u8],
    cuts: &[usize],
    mut parse: impl FnMut(&mut BytesMut) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let mut buf = BytesMut::new();
    let mut start = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        buf.extend_from_slice(&bytes[start..cut]);
        start = cut;
        if let Some(head) = parse(&mut buf)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Every way to cut `len` bytes in two, and into single bytes.
fn all_cuts(len: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..len).map(|cut| vec![cut]).chain([(0..len).collect()])
}

/// Everything that a request head says, for comparison.
fn show_request(head: &RequestHead) -> String {
    format!(
        "{} {} {:?} {} {:?} zero={} persistent={} continue={} upgrade={:?}\n{}",
        head.method,
        text(&head.target),
        head.version,
        text(&head.authority),
        head.content,
        head.zero_length,
        head.persistent,
        head.expects_continue,
        head.upgrade.as_deref().map(text),
        show_fields(&head.fields)
    )
}

fn show_reply(head: &ReplyHead) -> String {
    format!(
        "{} {} {:?} {:?} persistent={} upgrade={}\n{}",
        head.status,
        text(&head.reason),
        head.version,
        head.content,
        head.persistent,
        head.upgrade,
        show_fields(&head.fields)
    )
}

fn show_fields(fields: &Fields) -> String {
    fields.iter().map(|(known, name, value)| format!("{known:?} {}={}\n", text(name), text(value))).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
