//! Where a content ends and whether the connection goes on: the fields Content-Length, Transfer-Encoding and
//! Connection, read strictly (RFC 9112 6 and 9).
//!
//! Decided once, before anything else looks at the message. What could be read in two ways is an error, never a guess:
//! every such choice has been a request-smuggling hole somewhere.

use super::error::{FramingError, HeadError};
use super::fields::Fields;
use super::known::Known;
use super::method::Version;
use super::octet::is_token;

/// A u64 has at most 20 decimal digits; longer numbers are refused unread.
const MOST_LENGTH_DIGITS: usize = 20;

/// Options that one message's Connection fields may hold. Each may name a field, so that each is compared with all.
const MOST_CONNECTION_OPTIONS: usize = 64;

/// Transfer codings beside chunked that RFC 9112 7.2 registers.
const COMPRESSIONS: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];

/// The transfer codings of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codings {
    Absent,
    Chunked,
    /// Others, then chunked.
    CodedChunked,
}

/// The number that all Content-Length fields give.
pub(super) fn content_length(fields: &Fields) -> Result<Option<u64>, FramingError> {
    let mut lengths = fields.all(Known::ContentLength);
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = decimal(first)?;
    // Identical duplicates are the one repetition that RFC 9110 8.6 allows to collapse; a list in one field is not.
    for other in lengths {
        decimal(other)?;
        if other != first {
            return Err(FramingError::LengthsDiffer);
        }
    }
    Ok(Some(length))
}

fn decimal(digits: &[u8]) -> Result<u64, FramingError> {
    if digits.is_empty() || digits.len() > MOST_LENGTH_DIGITS {
        return Err(FramingError::LengthSyntax);
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        if !digit.is_ascii_digit() {
            return Err(FramingError::LengthSyntax);
        }
        number
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
            .ok_or(FramingError::LengthSyntax)
    })
}

/// The codings of a request: chunked alone or none.
pub(super) fn request_codings(fields: &Fields, version: Version) -> Result<Codings, FramingError> {
    match codings(fields, version)? {
        Codings::CodedChunked => Err(FramingError::UnknownCoding),
        accepted => Ok(accepted),
    }
}

/// The codings of a reply: anything that ends with chunked, or none.
pub(super) fn codings(fields: &Fields, version: Version) -> Result<Codings, FramingError> {
    if !fields.contains(Known::TransferEncoding) {
        return Ok(Codings::Absent);
    }
    if version == Version::Http10 {
        return Err(FramingError::EncodingInHttp10);
    }
    if fields.contains(Known::ContentLength) {
        return Err(FramingError::LengthAndEncoding);
    }
    let mut last_is_chunked = false;
    let mut chunked = 0_usize;
    let mut others = 0_usize;
    let mut all_known = true;
    for coding in fields.members(Known::TransferEncoding) {
        if !is_token(coding) {
            return Err(FramingError::EncodingSyntax);
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if last_is_chunked {
            chunked += 1;
        } else {
            others += 1;
            all_known &= COMPRESSIONS.iter().any(|known| coding.eq_ignore_ascii_case(known));
        }
    }
    match (chunked, last_is_chunked, others) {
        (1, true, 0) => Ok(Codings::Chunked),
        (1, true, _) => Ok(Codings::CodedChunked),
        (2.., _, _) => Err(FramingError::ChunkedTwice),
        (0, _, _) if !all_known => Err(FramingError::UnknownCoding),
        _ => Err(FramingError::ChunkedNotLast),
    }
}

/// What the Connection fields ask for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    pub(super) upgrade: bool,
}

impl ConnectionOptions {
    /// Reads the options and marks the fields that they name as staying with this connection (RFC 9110 7.6.1).
    ///
    /// Framing, Host and forwarding fields cannot be named away: a client could otherwise hide where it comes from, or
    /// make the two sides disagree on the framing.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, HeadError> {
        let mut options = Self::default();
        if !fields.contains(Known::Connection) {
            return Ok(options);
        }
        let mut names_fields = false;
        for (count, option) in fields.members(Known::Connection).enumerate() {
            if count >= MOST_CONNECTION_OPTIONS {
                return Err(HeadError::TooManyOptions);
            }
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                names_fields = true;
            }
        }
        if names_fields {
            fields.keep_back_named_by_connection();
        }
        Ok(options)
    }

    /// Whether the sender keeps the connection open (RFC 9112 9.3).
    pub(super) fn persists(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}
