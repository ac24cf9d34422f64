//! The request method and the protocol version.

use std::fmt;

use bytes::Bytes;

/// The HTTP version of a message, as far as it matters: a higher minor version of HTTP/1 is read as 1.1 (RFC 9110 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
}

/// A request method. Methods are case-sensitive: `get` is an [`Method::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    /// Any other token; always valid ASCII.
    Other(Bytes),
}

impl Method {
    /// The method of that name, if it is one of RFC 9110 or PATCH (RFC 5789).
    #[must_use]
    pub fn registered(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => return None,
        })
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Options => b"OPTIONS",
            Self::Patch => b"PATCH",
            Self::Connect => b"CONNECT",
            Self::Trace => b"TRACE",
            Self::Other(name) => name,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // A method is a token and so ASCII; the fallback is never taken for one that a parser made.
        std::str::from_utf8(self.as_bytes()).unwrap_or("?")
    }

    /// Read-only by definition (RFC 9110 9.2.1).
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Several times is the same as once (RFC 9110 9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
