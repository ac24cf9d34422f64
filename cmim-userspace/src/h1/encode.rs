//! Heads on their way out: re-serialised from what was parsed, straight into the connection's write buffer.
//!
//! Owns which fields are passed on, dropped or made anew. How a content is delimited is decided elsewhere and only written
//! here.

use bytes::{BufMut, BytesMut};

use super::digits::put_decimal;
use super::forwarding::{Forwarding, VIA};
use super::known::Known;
use super::method::Version;
use super::octet::members;
use super::reply_head::ReplyHead;
use super::request_head::RequestHead;

/// Space for the fields that the device adds to a head.
const OWN_FIELDS: usize = 512;

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// How a request's content is announced to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestDelimit {
    None,
    /// `Content-Length: 0`.
    ZeroLength,
    Length(u64),
    Chunked,
}

/// How a reply's content is announced to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyDelimit {
    /// There is no content and nothing is said about one.
    None,
    /// There is no content, but the server's own Content-Length stays, if there is one: HEAD and 304.
    AsIs,
    Length(u64),
    Chunked,
    /// Transfer-Encoding as received; the device makes new chunks.
    Coded,
    UntilClose,
}

impl ReplyDelimit {
    /// Only the connection's end shows the content's end, so the client's connection cannot persist.
    #[must_use]
    pub fn closes(self) -> bool {
        self == Self::UntilClose
    }
}

/// The client side of a reply.
#[derive(Debug, Clone, Copy)]
pub struct ReplyTo {
    pub client_version: Version,
    /// The client's connection stays open after this reply; ignored where the delimiting forbids it.
    pub persist: bool,
}

/// Writes a request's head for a server, always as HTTP/1.1.
///
/// Host comes first; the client's other fields keep their order; framing and forwarding fields are the device's own.
pub fn request(head: &RequestHead, forwarding: &Forwarding<'_>, delimit: RequestDelimit, out: &mut BytesMut) {
    out.reserve(head.fields.section_len() + OWN_FIELDS);
    out.put_slice(head.method.as_bytes());
    out.put_u8(b' ');
    out.put_slice(&head.target);
    out.put_slice(b" HTTP/1.1\r\n");
    let host = if head.authority.is_empty() { forwarding.fallback_host } else { &head.authority };
    put_field(b"Host", host, out);
    let forwards = head.max_forwards();
    for (known, name, value) in head.fields.end_to_end() {
        let is_kept = match known {
            Known::Host | Known::ContentLength | Known::Lookalike | Known::XForwardedFor | Known::Forwarded => false,
            Known::XForwardedProto | Known::XForwardedHost => forwarding.trusted,
            Known::Expect => keeps_expect(head, forwarding, value),
            Known::Trailer => delimit == RequestDelimit::Chunked,
            Known::MaxForwards => forwards.is_none(),
            _ => true,
        };
        if is_kept {
            put_field(name, value, out);
        }
    }
    if let Some(left) = forwards {
        out.put_slice(b"Max-Forwards: ");
        put_decimal(left.saturating_sub(1), out);
        out.put_slice(b"\r\n");
    }
    match delimit {
        RequestDelimit::None => {}
        RequestDelimit::ZeroLength => put_length(0, out),
        RequestDelimit::Length(length) => put_length(length, out),
        RequestDelimit::Chunked => out.put_slice(CHUNKED),
    }
    forwarding.put(&head.fields, &head.authority, out);
    if let Some(protocols) = &head.upgrade {
        out.put_slice(b"Connection: upgrade\r\n");
        put_field(b"Upgrade", protocols, out);
    }
    out.put_slice(b"\r\n");
}

/// Expectations other than 100-continue are the server's to refuse (RFC 9110 10.1.1).
fn keeps_expect(head: &RequestHead, forwarding: &Forwarding<'_>, value: &[u8]) -> bool {
    let is_continue = members(value).any(|member| member.eq_ignore_ascii_case(b"100-continue"));
    !is_continue || (head.expects_continue && forwarding.keep_expect)
}

/// Writes the head of a final reply, or of a 101, for a client; always as HTTP/1.1, since the version is the sender's
/// own (RFC 9110 2.5).
pub fn reply(head: &ReplyHead, to: &ReplyTo, delimit: ReplyDelimit, out: &mut BytesMut) {
    debug_assert!(
        to.client_version == Version::Http11 || !matches!(delimit, ReplyDelimit::Chunked | ReplyDelimit::Coded),
        "an HTTP/1.0 client cannot read chunks"
    );
    put_status_line(head, out);
    let mut length = match delimit {
        ReplyDelimit::AsIs => LengthField::Received,
        ReplyDelimit::Length(length) => LengthField::Own(length),
        _ => LengthField::None,
    };
    for (known, name, value) in head.fields.end_to_end() {
        match (known, length) {
            (Known::ContentLength, LengthField::Received) => {
                put_field(name, value, out);
                length = LengthField::None;
            }
            (Known::ContentLength, LengthField::Own(bytes)) => {
                put_length(bytes, out);
                length = LengthField::None;
            }
            (Known::ContentLength, LengthField::None) => {}
            (Known::Trailer, _) if !matches!(delimit, ReplyDelimit::Chunked | ReplyDelimit::Coded) => {}
            _ => put_field(name, value, out),
        }
    }
    if let LengthField::Own(bytes) = length {
        put_length(bytes, out);
    }
    match delimit {
        ReplyDelimit::Chunked => out.put_slice(CHUNKED),
        ReplyDelimit::Coded => put_codings(head, out),
        _ => {}
    }
    out.put_slice(VIA);
    put_connection(head, to, delimit, out);
    out.put_slice(b"\r\n");
}

/// Writes an interim reply (1xx but 101) for an HTTP/1.1 client.
pub fn interim(head: &ReplyHead, out: &mut BytesMut) {
    put_status_line(head, out);
    for (known, name, value) in head.fields.end_to_end() {
        if known != Known::Trailer {
            put_field(name, value, out);
        }
    }
    out.put_slice(VIA);
    out.put_slice(b"\r\n");
}

/// The Content-Length field that is still to be written.
#[derive(Debug, Clone, Copy)]
enum LengthField {
    None,
    Received,
    Own(u64),
}

fn put_status_line(head: &ReplyHead, out: &mut BytesMut) {
    out.reserve(head.fields.section_len() + OWN_FIELDS);
    out.put_slice(b"HTTP/1.1 ");
    put_decimal(head.status.into(), out);
    out.put_u8(b' ');
    out.put_slice(&head.reason);
    out.put_slice(b"\r\n");
}

fn put_codings(head: &ReplyHead, out: &mut BytesMut) {
    out.put_slice(b"Transfer-Encoding: ");
    for (count, coding) in head.fields.members(Known::TransferEncoding).enumerate() {
        if count > 0 {
            out.put_slice(b", ");
        }
        out.put_slice(coding);
    }
    out.put_slice(b"\r\n");
}

/// The one Connection field, made by the device where there is something to say.
fn put_connection(head: &ReplyHead, to: &ReplyTo, delimit: ReplyDelimit, out: &mut BytesMut) {
    let persists = to.persist && !delimit.closes();
    // 101 switches to the protocol that Upgrade names; 426 must name those that it demands (RFC 9110 15.5.22).
    let upgrade = if matches!(head.status, 101 | 426) { head.fields.get(Known::Upgrade) } else { None };
    let options: &[u8] = match (upgrade.is_some(), persists, to.client_version) {
        (true, _, _) if head.upgrade => b"Connection: upgrade\r\n",
        (true, true, _) => b"Connection: upgrade\r\n",
        (true, false, _) => b"Connection: upgrade, close\r\n",
        (false, false, _) => b"Connection: close\r\n",
        (false, true, Version::Http10) => b"Connection: keep-alive\r\n",
        (false, true, Version::Http11) => b"",
    };
    out.put_slice(options);
    if let Some(protocols) = upgrade {
        put_field(b"Upgrade", protocols, out);
    }
}

/// Writes one field line.
#[inline]
pub(super) fn put_field(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn put_length(length: u64, out: &mut BytesMut) {
    out.put_slice(b"Content-Length: ");
    put_decimal(length, out);
    out.put_slice(b"\r\n");
}
