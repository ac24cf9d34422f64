//! Field names that mean something to the device, recognised once when a head is parsed.

use std::ops::RangeInclusive;

/// Lengths of the protected names that have a hyphen: from `content-length` to `transfer-encoding`.
const SPELT_WITH_HYPHENS: RangeInclusive<usize> = 14..=LONGEST;
const LONGEST: usize = 17;

/// What a field is to the device; every name without a meaning here is [`Known::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    Upgrade,
    Via,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    Expect,
    MaxForwards,
    Date,
    Server,
    ContentType,
    Cookie,
    Authorization,
    UserAgent,
    Referer,
    RetryAfter,
    XAccelBuffering,
    /// A name that a CGI-like server would take for a framing or forwarding field, because it reads `_` and `-` as the
    /// same (`Content_Length`, `X_Forwarded_For`). Never passed on to a server.
    Lookalike,
    Other,
}

impl Known {
    /// What the field of this name is; case does not matter.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match Self::exact(name) {
            Some(known) => known,
            None if SPELT_WITH_HYPHENS.contains(&name.len()) && name.contains(&b'_') => Self::lookalike(name),
            None => Self::Other,
        }
    }

    fn exact(name: &[u8]) -> Option<Self> {
        let (known, spelling): (Self, &[u8]) = match (name.len(), name.first()?.to_ascii_lowercase()) {
            (2, _) => (Self::Te, b"te"),
            (3, _) => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (4, _) => (Self::Date, b"date"),
            (6, b'c') => (Self::Cookie, b"cookie"),
            (6, b'e') => (Self::Expect, b"expect"),
            (6, _) => (Self::Server, b"server"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (7, b'r') => (Self::Referer, b"referer"),
            (7, _) => (Self::Trailer, b"trailer"),
            (9, _) => (Self::Forwarded, b"forwarded"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'u') => (Self::UserAgent, b"user-agent"),
            (10, _) => (Self::KeepAlive, b"keep-alive"),
            (11, _) => (Self::RetryAfter, b"retry-after"),
            (12, b'm') => (Self::MaxForwards, b"max-forwards"),
            (12, _) => (Self::ContentType, b"content-type"),
            (13, _) => (Self::Authorization, b"authorization"),
            (14, _) => (Self::ContentLength, b"content-length"),
            (15, _) => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, b'x') if name.last() == Some(&b't') || name.last() == Some(&b'T') => {
                (Self::XForwardedHost, b"x-forwarded-host")
            }
            (16, _) => (Self::ProxyConnection, b"proxy-connection"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') if name.get(2).is_some_and(|b| b.eq_ignore_ascii_case(&b'a')) => {
                (Self::XAccelBuffering, b"x-accel-buffering")
            }
            (17, _) => (Self::XForwardedProto, b"x-forwarded-proto"),
            _ => return None,
        };
        is_spelt(name, spelling).then_some(known)
    }

    fn lookalike(name: &[u8]) -> Self {
        let mut hyphenated = [0; LONGEST];
        let Some(spelling) = hyphenated.get_mut(..name.len()) else {
            return Self::Other;
        };
        for (to, &from) in spelling.iter_mut().zip(name) {
            *to = if from == b'_' { b'-' } else { from };
        }
        match Self::exact(spelling) {
            Some(known) if known.is_protected() => Self::Lookalike,
            _ => Self::Other,
        }
    }

    /// Never passed on: RFC 9110 7.6.1.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Framing, routing and forwarding fields: the device decides on them, a peer's Connection field does not.
    #[must_use]
    pub fn is_protected(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Via
                | Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedProto
                | Self::XForwardedHost
        )
    }

    /// May not come after a content, because it would have had to be known before (RFC 9110 6.5.1).
    #[must_use]
    pub fn is_barred_from_trailers(self) -> bool {
        self.is_hop_by_hop()
            || self.is_protected()
            || matches!(
                self,
                Self::Lookalike
                    | Self::Trailer
                    | Self::Expect
                    | Self::ContentType
                    | Self::Cookie
                    | Self::Authorization
                    | Self::RetryAfter
            )
    }

    /// This name's bit in a set of names.
    #[inline]
    pub(super) fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Whether `name` is `spelling`, which is in lower case and as long; case does not matter. Eight octets at a time: each
/// field of each head comes by here.
#[inline]
fn is_spelt(name: &[u8], spelling: &[u8]) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (names, name_rest) = name.as_chunks::<8>();
    let (words, word_rest) = spelling.as_chunks::<8>();
    // This bit makes letters lower case and leaves hyphens; of the octets that may stand in a name it makes nothing else
    // look like either.
    let words_fit =
        names.iter().zip(words).all(|(name, word)| u64::from_le_bytes(*name) | LOWER == u64::from_le_bytes(*word));
    words_fit && name_rest.eq_ignore_ascii_case(word_rest)
}

#[cfg(test)]
mod tests {
    use super::super::octet::is_token_octet;
    use super::*;

    const GUARDED: &[u8] = b"transfer-encoding";

    #[test]
    fn a_name_is_known_in_any_case_and_only_if_every_octet_fits() {
        assert_eq!(Known::of(b"Transfer-Encoding"), Known::TransferEncoding);
        assert_eq!(Known::of(b"tRANSFER-eNCODING"), Known::TransferEncoding);
        for at in 0..GUARDED.len() {
            for octet in (0..=u8::MAX).filter(|&octet| is_token_octet(octet)) {
                let mut name = GUARDED.to_vec();
                name[at] = octet;
                let fits = octet.eq_ignore_ascii_case(&GUARDED[at]);
                assert_eq!(Known::of(&name) == Known::TransferEncoding, fits, "{}", String::from_utf8_lossy(&name));
            }
        }
    }
}
