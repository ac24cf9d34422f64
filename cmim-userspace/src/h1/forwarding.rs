//! The fields that say on whose behalf a request is forwarded: Via, X-Forwarded-* and Forwarded (RFC 7239).

use std::io::Write as _;
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

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
        let text = AddressText::of(client);
        out.put_slice(VIA);
        out.put_slice(b"X-Forwarded-For: ");
        self.put_earlier(fields, Known::XForwardedFor, out);
        out.put_slice(text.as_bytes());
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
        self.put_element(client.is_ipv6(), text.as_bytes(), authority, out);
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
    fn put_element(&self, is_ipv6: bool, client: &[u8], authority: &[u8], out: &mut BytesMut) {
        if is_ipv6 {
            out.put_slice(b"for=\"[");
            out.put_slice(client);
            out.put_slice(b"]\"");
        } else {
            out.put_slice(b"for=");
            out.put_slice(client);
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

/// An address as text, on the stack: it goes into two fields of each request.
struct AddressText {
    text: [u8; Self::LONGEST],
    len: usize,
}

impl AddressText {
    /// Of an IPv6 address with an IPv4 address at its end.
    const LONGEST: usize = 45;

    fn of(address: IpAddr) -> Self {
        let mut text = Self { text: [0; Self::LONGEST], len: 0 };
        match address {
            // By hand, because the standard formatter costs more than the rest of the fields.
            IpAddr::V4(address) => text.put_v4(address.octets()),
            IpAddr::V6(address) => {
                let mut rest = text.text.as_mut_slice();
                // It has room for the longest.
                let _ = write!(rest, "{address}");
                text.len = Self::LONGEST - rest.len();
            }
        }
        text
    }

    fn put_v4(&mut self, octets: [u8; 4]) {
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                self.put(b'.');
            }
            if octet >= 100 {
                self.put(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.put(b'0' + octet / 10 % 10);
            }
            self.put(b'0' + octet % 10);
        }
    }

    #[inline]
    fn put(&mut self, octet: u8) {
        if let Some(place) = self.text.get_mut(self.len) {
            *place = octet;
            self.len += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }
}
