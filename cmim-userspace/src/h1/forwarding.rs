//! The fields that say on whose behalf a request is forwarded: Via, X-Forwarded-* and Forwarded (RFC 7239).

use std::fmt::Write;
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::digits::put_decimal;
use super::fields::Fields;
use super::known::Known;
use super::octet::is_token;

/// The whole field, the same on requests and replies: the device speaks HTTP/1.1 on both sides.
pub(super) const VIA: &[u8] = b"Via: 1.1 cmim\r\n";

/// What the device says about a request's origin to the server.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    pub client: IpAddr,
    /// The scheme by which the client came: `http`.
    pub proto: &'a str,
    /// The client is a proxy that is believed: its own forwarding fields are kept and extended.
    pub trusted: bool,
    /// `Expect: 100-continue` is passed on (the device does not answer it itself).
    pub keep_expect: bool,
    /// The Host for an HTTP/1.0 request that came without one: HTTP/1.1 to the server demands one.
    pub fallback_host: &'a [u8],
}

impl Forwarding<'_> {
    /// Writes the fields; `authority` is the client's own Host and may be empty.
    pub(super) fn put(&self, fields: &Fields, authority: &[u8], out: &mut BytesMut) {
        let client = self.client.to_canonical();
        out.put_slice(VIA);
        out.put_slice(b"X-Forwarded-For: ");
        self.put_earlier(fields, Known::XForwardedFor, out);
        put_address(client, out);
        if !self.keeps(fields, Known::XForwardedProto) {
            out.put_slice(b"\r\nX-Forwarded-Proto: ");
            out.put_slice(self.proto.as_bytes());
        }
        if !authority.is_empty() && !self.keeps(fields, Known::XForwardedHost) {
            out.put_slice(b"\r\nX-Forwarded-Host: ");
            out.put_slice(authority);
        }
        out.put_slice(b"\r\nForwarded: ");
        self.put_earlier(fields, Known::Forwarded, out);
        self.put_element(client, authority, out);
        out.put_slice(b"\r\n");
    }

    /// Whether the client's own field is passed on in its place.
    pub(super) fn keeps(&self, fields: &Fields, known: Known) -> bool {
        self.trusted && fields.contains(known)
    }

    /// The list that a believed client sent, which this device's element is appended to.
    fn put_earlier(&self, fields: &Fields, known: Known, out: &mut BytesMut) {
        if !self.trusted {
            return;
        }
        for value in fields.all(known).filter(|value| !value.is_empty()) {
            out.put_slice(value);
            out.put_slice(b", ");
        }
    }

    /// This hop's element of Forwarded (RFC 7239 4).
    fn put_element(&self, client: IpAddr, authority: &[u8], out: &mut BytesMut) {
        match client {
            IpAddr::V4(_) => {
                out.put_slice(b"for=");
                put_address(client, out);
            }
            IpAddr::V6(_) => {
                out.put_slice(b"for=\"[");
                put_address(client, out);
                out.put_slice(b"]\"");
            }
        }
        if is_token(authority) {
            out.put_slice(b";host=");
            out.put_slice(authority);
        } else if !authority.is_empty() {
            // No quote or backslash can be in it: it was checked to be a host and port.
            out.put_slice(b";host=\"");
            out.put_slice(authority);
            out.put_slice(b"\"");
        }
        out.put_slice(b";proto=");
        out.put_slice(self.proto.as_bytes());
    }
}

fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            put_decimal(a.into(), out);
            for octet in [b, c, d] {
                out.put_u8(b'.');
                put_decimal(octet.into(), out);
            }
        }
        IpAddr::V6(address) => {
            // Writing into a growing buffer cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}
