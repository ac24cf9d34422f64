//! A request's head: parsed strictly, framed once, ready to be sent on.

use bytes::{Buf, Bytes, BytesMut};

use super::authority::{host_of, is_host_and_port};
use super::digits::read_decimal;
use super::encode::RequestDelimit;
use super::error::{HeadError, RequestError};
use super::fields::Fields;
use super::framing::{Codings, ConnectionOptions, content_length, request_codings};
use super::known::Known;
use super::limits::Limits;
use super::lines::Section;
use super::method::{Method, Version};
use super::request_line::{Destination, RequestLine, WholeLine};

/// Some old clients send one or two empty lines after a content; a stream of nothing else is no request.
const MOST_EMPTY_LINES: usize = 16;

/// A request's content, as the framing fields announce it (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestContent {
    None,
    /// Never 0.
    Length(u64),
    Chunked,
}

/// A valid request head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    /// In origin-form, `*` (OPTIONS), or the authority (CONNECT); absolute-form was turned into origin-form.
    pub target: Bytes,
    pub version: Version,
    /// The Host to send on: absolute-form's own, else the Host field. Empty only for HTTP/1.0 without a Host.
    pub authority: Bytes,
    pub fields: Fields,
    pub content: RequestContent,
    /// There is no content and the client said so with `Content-Length: 0`, which is passed on.
    pub zero_length: bool,
    /// The client wants its connection kept: HTTP/1.1 without `close`, or HTTP/1.0 with `keep-alive`.
    pub persistent: bool,
    /// The client waits for a 100 before it sends the content.
    pub expects_continue: bool,
    /// The protocols that the client offers to switch to.
    pub upgrade: Option<Bytes>,
}

impl RequestHead {
    /// Whether the connection to the server may go on as a tunnel.
    #[must_use]
    pub fn may_become_tunnel(&self) -> bool {
        self.upgrade.is_some() || self.method == Method::Connect
    }

    /// How the content is announced to the server if it is passed on as it came.
    #[must_use]
    pub fn delimit(&self) -> RequestDelimit {
        match self.content {
            RequestContent::None if self.zero_length => RequestDelimit::ZeroLength,
            RequestContent::None => RequestDelimit::None,
            RequestContent::Length(length) => RequestDelimit::Length(length),
            RequestContent::Chunked => RequestDelimit::Chunked,
        }
    }

    /// How often the request may still be passed on. Of the methods that are let through, only OPTIONS heeds it (RFC 9110
    /// section 7.6.2). A value that is no number says nothing.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u64> {
        if !matches!(self.method, Method::Options) {
            return None;
        }
        self.fields.all(Known::MaxForwards).filter_map(read_decimal).min()
    }

    /// The host of the authority without its port, in the case that the client used.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        host_of(&self.authority)
    }
}

/// Reads request heads off a client connection's buffer.
///
/// It remembers how far it has read, so that the buffer may only grow at its end between two calls. After an error it is
/// of no further use: where the next request would begin is unknown.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Empty lines skipped before this head.
    empty_lines: usize,
    /// The bytes at hand begin as a HEAD request does.
    asks_for_head: bool,
    line: RequestLine,
    whole_line: Option<WholeLine>,
    section: Section,
}

impl RequestParser {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `Some`: a head was split off the front of `buf` and the parser is ready for the next. `None`: more bytes are needed.
    pub fn parse(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Option<RequestHead>, RequestError> {
        if self.whole_line.is_none() {
            self.asks_for_head = false;
            self.skip_empty_lines(buf)?;
            self.asks_for_head = buf.starts_with(b"HEAD ");
            // The first half of one more empty line.
            if **buf == *b"\r" {
                return Ok(None);
            }
        }
        // Nothing past the limit is looked at, so that the outcome does not depend on how much has come in.
        let most = limits.most_head();
        let view = buf.get(..most).unwrap_or(buf);
        let Some((line, end)) = self.read(view, limits)? else {
            return if buf.len() >= most { Err(HeadError::TooLarge.into()) } else { Ok(None) };
        };
        let fields = Fields::new(buf.split_to(end).freeze(), self.section.finish());
        *self = Self { asks_for_head: self.asks_for_head, ..Self::default() };
        RequestHead::new(&line, fields, limits).map(Some)
    }

    /// Whether the head that was read last, or as much of it as there is, is that of a HEAD request: also what refuses it
    /// has no content.
    #[must_use]
    pub fn asks_for_head(&self) -> bool {
        self.asks_for_head
    }

    fn read(&mut self, view: &[u8], limits: &Limits) -> Result<Option<(WholeLine, usize)>, RequestError> {
        let line = match self.whole_line {
            Some(line) => line,
            None => {
                let Some(line) = self.line.read(view, limits)? else { return Ok(None) };
                self.section.skip_to(line.end);
                *self.whole_line.insert(line)
            }
        };
        let end = self.section.read_fields(view, limits.fields)?;
        Ok(end.map(|end| (line, end)))
    }

    /// RFC 9112 2.2: empty lines before a request line are ignored.
    fn skip_empty_lines(&mut self, buf: &mut BytesMut) -> Result<(), RequestError> {
        loop {
            match **buf {
                [b'\r', b'\n', ..] if self.empty_lines < MOST_EMPTY_LINES => {
                    self.empty_lines += 1;
                    buf.advance(2);
                }
                [b'\r', b'\n', ..] => return Err(RequestError::EmptyLines),
                [b'\r', _, ..] => return Err(HeadError::BareCr.into()),
                [b'\n', ..] => return Err(HeadError::BareLf.into()),
                _ => return Ok(()),
            }
        }
    }
}

impl RequestHead {
    fn new(line: &WholeLine, mut fields: Fields, limits: &Limits) -> Result<Self, RequestError> {
        let name = 0..line.method_end;
        if fields.get(Known::Upgrade).is_some() || fields.borrow(name.clone()) == b"CONNECT" {
            // The tunnel that may come of it would keep the read buffer for as long as it lasts.
            fields.detach();
        }
        let method =
            Method::registered(fields.borrow(name.clone())).unwrap_or_else(|| Method::Other(fields.share(name)));
        let version = line.version;
        let framing = framing(&method, version, &fields, limits)?;
        let destination = Destination::of(&method, fields.share(line.method_end + 1..line.target_end))?;
        let host = host(version, &fields)?;
        let options = ConnectionOptions::read(&mut fields)?;
        let expects_continue = version == Version::Http11
            && framing.content != RequestContent::None
            && fields.members(Known::Expect).any(|member| member.eq_ignore_ascii_case(b"100-continue"));
        let upgrade = if options.upgrade && version == Version::Http11 { offered_upgrade(&fields) } else { None };
        Ok(Self {
            target: destination.target,
            version,
            authority: destination.authority.unwrap_or(host),
            content: framing.content,
            zero_length: framing.zero_length,
            persistent: options.persists(version),
            expects_continue,
            upgrade,
            method,
            fields,
        })
    }
}

struct Framing {
    content: RequestContent,
    zero_length: bool,
}

fn framing(method: &Method, version: Version, fields: &Fields, limits: &Limits) -> Result<Framing, RequestError> {
    let codings = request_codings(fields, version)?;
    let length = content_length(fields)?;
    let content = match (codings, length) {
        (Codings::Absent, None | Some(0)) => RequestContent::None,
        (Codings::Absent, Some(length)) if length > limits.content => return Err(RequestError::ContentTooLarge),
        (Codings::Absent, Some(length)) => RequestContent::Length(length),
        _ => RequestContent::Chunked,
    };
    // RFC 9110 9.3.6: what follows a CONNECT is the tunnel's, so that a content could be read in two ways.
    if *method == Method::Connect && content != RequestContent::None {
        return Err(RequestError::ConnectWithContent);
    }
    Ok(Framing { content, zero_length: length == Some(0) })
}

/// The Host field's value: one and valid, missing only in HTTP/1.0 (RFC 9112 3.2).
fn host(version: Version, fields: &Fields) -> Result<Bytes, RequestError> {
    let mut hosts = fields.all(Known::Host);
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::Http10 => Ok(Bytes::new()),
        (None, _) => Err(RequestError::HostMissing),
        (Some(_), Some(_)) => Err(RequestError::HostRepeated),
        (Some(host), None) if is_host_and_port(host) => Ok(fields.get_bytes(Known::Host).unwrap_or_default()),
        (Some(_), None) => Err(RequestError::HostSyntax),
    }
}

/// The Upgrade field, unless it offers another version of HTTP or TLS: behind such a switch the device would carry
/// requests that it cannot see. The server then answers in HTTP/1.1, as RFC 9110 7.8 lets it.
fn offered_upgrade(fields: &Fields) -> Option<Bytes> {
    let is_barred = |protocol: &[u8]| {
        let name = protocol.split(|&b| b == b'/').next().unwrap_or_default();
        [b"h2c".as_slice(), b"h2", b"http", b"tls"].iter().any(|barred| name.eq_ignore_ascii_case(barred))
    };
    let is_one = fields.all(Known::Upgrade).count() == 1;
    (is_one && !fields.members(Known::Upgrade).any(is_barred)).then(|| fields.get_bytes(Known::Upgrade))?
}

/// Whether `buf` holds any byte of a head: empty lines before one do not count.
#[must_use]
pub fn head_has_begun(buf: &[u8]) -> bool {
    buf.iter().any(|&b| b != b'\r' && b != b'\n')
}
