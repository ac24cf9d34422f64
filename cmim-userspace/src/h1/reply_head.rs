//! A reply's head: parsed strictly, framed by the request that it answers.

use bytes::{Bytes, BytesMut};

use super::error::{HeadError, ReplyError};
use super::fields::Fields;
use super::framing::{Codings, ConnectionOptions, codings, content_length};
use super::known::Known;
use super::limits::Limits;
use super::lines::Section;
use super::method::{Method, Version};

/// A reply's content, as RFC 9112 6.3 decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyContent {
    /// To HEAD, 1xx, 204, 304 and 2xx to CONNECT.
    None,
    Length(u64),
    Chunked,
    /// The final coding is chunked; inner ones (`gzip, chunked`) are kept as they are.
    Coded,
    UntilClose,
}

/// A valid reply head.
#[derive(Debug, Clone)]
pub struct ReplyHead {
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    pub reason: Bytes,
    pub fields: Fields,
    pub content: ReplyContent,
    /// The server's connection can take another request after this reply.
    pub persistent: bool,
    /// 101: after this head the connection is a tunnel.
    pub upgrade: bool,
}

impl ReplyHead {
    /// A 1xx that is followed by another head; 101 is not.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads reply heads off a server connection's buffer.
///
/// It remembers how far it has read, so that the buffer may only grow at its end between two calls. After an error it is
/// of no further use, and neither is the connection.
#[derive(Debug, Default)]
pub struct ReplyParser {
    status_line: Option<StatusLine>,
    section: Section,
}

impl ReplyParser {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `Some`: the head of a reply to `request` was split off the front of `buf`. `None`: more bytes are needed.
    pub fn parse(
        &mut self,
        buf: &mut BytesMut,
        request: &Method,
        limits: &Limits,
    ) -> Result<Option<ReplyHead>, ReplyError> {
        let most = limits.most_head();
        let view = buf.get(..most).unwrap_or(buf);
        let Some((line, end)) = self.read(view, limits)? else {
            return if buf.len() >= most { Err(HeadError::TooLarge.into()) } else { Ok(None) };
        };
        let fields = Fields::new(buf.split_to(end).freeze(), self.section.finish());
        self.status_line = None;
        ReplyHead::new(line, fields, request).map(Some)
    }

    fn read(&mut self, view: &[u8], limits: &Limits) -> Result<Option<(StatusLine, usize)>, ReplyError> {
        let line = match self.status_line {
            Some(line) => line,
            None => {
                // What cannot become a status line is refused at once, not when the server's time is over.
                if !view.iter().zip(PROTOCOL).all(|(got, want)| got == want) {
                    return Err(ReplyError::StatusLine);
                }
                let Some(line) = self.section.first_line(view)? else { return Ok(None) };
                *self.status_line.insert(StatusLine::of(line)?)
            }
        };
        let end = self.section.read_fields(view, limits.fields)?;
        Ok(end.map(|end| (line, end)))
    }
}

/// `HTTP/1.1 200` and the space after it.
const REASON_START: usize = 13;

const PROTOCOL: &[u8] = b"HTTP/";

#[derive(Debug, Clone, Copy)]
struct StatusLine {
    version: Version,
    status: u16,
    reason_len: usize,
}

impl StatusLine {
    /// Parses a status line (RFC 9112 4). The space before an empty reason may be missing, as many servers leave it out.
    fn of(line: &[u8]) -> Result<Self, ReplyError> {
        let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' ', status @ ..] = line else {
            return Err(ReplyError::StatusLine);
        };
        if !major.is_ascii_digit() || !minor.is_ascii_digit() {
            return Err(ReplyError::StatusLine);
        }
        let version = match (major, minor) {
            (b'1', b'0') => Version::Http10,
            (b'1', _) => Version::Http11,
            _ => return Err(ReplyError::UnknownVersion),
        };
        let ([hundreds @ b'1'..=b'9', tens, ones], reason) = (match status {
            [a, b, c] => ([*a, *b, *c], [].as_slice()),
            [a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(ReplyError::StatusLine),
        }) else {
            return Err(ReplyError::StatusLine);
        };
        if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
            return Err(ReplyError::StatusLine);
        }
        let status = [hundreds, tens, ones].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        Ok(Self { version, status, reason_len: reason.len() })
    }
}

impl ReplyHead {
    fn new(line: StatusLine, mut fields: Fields, request: &Method) -> Result<Self, ReplyError> {
        let StatusLine { version, status, reason_len } = line;
        let content = content(status, version, request, &mut fields)?;
        let options = ConnectionOptions::read(&mut fields)?;
        let upgrade = status == 101;
        if upgrade && !fields.contains(Known::Upgrade) {
            return Err(ReplyError::SwitchWithoutUpgrade);
        }
        let is_tunnel = upgrade || is_tunnel(status, request);
        Ok(Self {
            version,
            status,
            reason: match reason_len {
                0 => Bytes::new(),
                len => fields.share(REASON_START..REASON_START + len),
            },
            content,
            persistent: options.persists(version) && content != ReplyContent::UntilClose && !is_tunnel,
            upgrade,
            fields,
        })
    }
}

/// 2xx to CONNECT: what follows the head is the tunnel's.
fn is_tunnel(status: u16, request: &Method) -> bool {
    *request == Method::Connect && (200..300).contains(&status)
}

/// The cases of RFC 9112 6.3, in its order.
fn content(status: u16, version: Version, request: &Method, fields: &mut Fields) -> Result<ReplyContent, ReplyError> {
    if matches!(status, 100..200 | 204) || is_tunnel(status, request) {
        // Such a reply must not announce a content (RFC 9110 8.6); one that does has none all the same.
        fields.keep_back(Known::ContentLength);
        return Ok(ReplyContent::None);
    }
    if *request == Method::Head || status == 304 {
        // The length of what is not sent is passed on, so it has to be one; with a coding beside it it means nothing.
        content_length(fields)?;
        if fields.contains(Known::TransferEncoding) {
            fields.keep_back(Known::ContentLength);
        }
        return Ok(ReplyContent::None);
    }
    let codings = codings(fields, version)?;
    Ok(match (codings, content_length(fields)?) {
        (Codings::Chunked, _) => ReplyContent::Chunked,
        (Codings::CodedChunked, _) => ReplyContent::Coded,
        (Codings::Absent, Some(length)) => ReplyContent::Length(length),
        (Codings::Absent, None) => ReplyContent::UntilClose,
    })
}
