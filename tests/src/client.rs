//! A raw HTTP/1.1 client: writes the bytes it is given and reads replies as strictly as a reply can be read.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::deadline::PATIENCE;
use crate::fields::Fields;
use crate::wire::{Wire, WireError, parse_head};

/// Long enough to notice bytes that should not come, short enough to ask often.
const QUIET: Duration = Duration::from_millis(50);

/// How a reply's end was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It can have no content (HEAD, 1xx, 204, 304).
    NoContent,
    Length(u64),
    Chunked,
    /// Up to the close of the connection.
    Close,
}

/// A reply's head.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Fields,
    pub framing: Framing,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub head: Head,
    pub content: Vec<u8>,
    pub trailers: Fields,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn fields(&self) -> &Fields {
        &self.head.fields
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// Panics unless this is a 200 with a Content-Length of its own content.
    #[track_caller]
    pub fn assert_whole(&self, content: &[u8]) {
        assert_eq!(self.status(), 200, "{self:?}");
        assert_eq!(self.head.framing, Framing::Length(content.len() as u64), "{:?}", self.head);
        assert!(!self.fields().has("transfer-encoding"), "{:?}", self.head);
        assert!(self.content == content, "content differs: {} bytes for {}", self.content.len(), content.len());
    }
}

#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        Self::connect_with(address, |_| Ok(()))
    }

    /// A client whose kernel takes little: what it does not read stays in the device.
    #[track_caller]
    pub fn connect_slow(address: SocketAddr, receive_buffer: usize) -> Self {
        Self::connect_with(address, |socket| socket.set_recv_buffer_size(receive_buffer))
            .unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    fn connect_with(
        address: SocketAddr,
        prepare: impl FnOnce(&Socket) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        prepare(&socket)?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { wire: Wire::new(socket, PATIENCE) })
    }

    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    pub fn into_wire(self) -> Wire {
        self.wire
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).unwrap_or_else(|error| panic!("sending: {error}"));
    }

    /// Sends `GET target` and reads the final reply.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "", b"")
    }

    /// Sends a request with `fields` (whole lines with CRLF) and `content` (with its length, where there is any).
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &str, content: &[u8]) -> Reply {
        self.send(request(method, target, fields, content));
        self.reply_to(method)
    }

    /// The next final reply, for any request but HEAD.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    #[track_caller]
    pub fn reply_to(&mut self, method: &str) -> Reply {
        self.try_reply(method).unwrap_or_else(|error| panic!("no whole reply to {method}: {error}"))
    }

    /// The next final reply; interim ones before it are read and dropped.
    pub fn try_reply(&mut self, method: &str) -> Result<Reply, WireError> {
        loop {
            let head = self.try_head(method)?;
            if head.status >= 200 || head.status == 101 {
                let mut content = Vec::new();
                let trailers = self.content(head.framing, &mut |part| content.extend_from_slice(part))?;
                return Ok(Reply { head, content, trailers });
            }
        }
    }

    /// The next head, interim ones too. Its content is for the caller to read.
    #[track_caller]
    pub fn head(&mut self, method: &str) -> Head {
        self.try_head(method).unwrap_or_else(|error| panic!("no head of a reply to {method}: {error}"))
    }

    pub fn try_head(&mut self, method: &str) -> Result<Head, WireError> {
        let bytes = self.wire.head()?;
        let (line, fields) = parse_head(&bytes)?;
        let malformed = || WireError::Malformed(format!("status line `{line}`"));
        let (version, rest) = line.split_once(' ').ok_or_else(malformed)?;
        let (code, reason) = rest.split_once(' ').ok_or_else(malformed)?;
        let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
            return Err(malformed());
        }
        let status: u16 = code.parse().map_err(|_| malformed())?;
        let framing = framing(method, status, &fields)?;
        Ok(Head { version: version.into(), status, reason: reason.into(), fields, framing })
    }

    /// Hands the content that follows a head to `sink`, to its end.
    pub fn content(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> Result<Fields, WireError> {
        match framing {
            Framing::NoContent => Ok(Fields::default()),
            Framing::Length(count) => self.wire.exactly(count, sink).map(|()| Fields::default()),
            Framing::Chunked => self.wire.chunked(sink),
            Framing::Close => self.wire.to_end(sink).map(|()| Fields::default()),
        }
    }

    /// Panics unless the device ends the connection without another byte.
    #[track_caller]
    pub fn assert_ended(&mut self) {
        assert!(
            self.wire.ends(PATIENCE),
            "the connection should have been closed; it is open, or brought `{}`",
            self.wire.ahead().escape_ascii()
        );
    }

    /// Panics if a byte comes that nobody asked for, or the connection ends.
    #[track_caller]
    pub fn assert_quiet(&mut self) {
        assert!(!self.wire.brings_more(QUIET), "bytes behind the reply: `{}`", self.wire.ahead().escape_ascii());
        assert!(!self.wire.ends(QUIET), "the connection should have stayed open");
    }
}

/// The bytes of a plain HTTP/1.1 request; with a length where there is a content or the method expects one (RFC 9110 8.6).
pub fn request(method: &str, target: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let expected = matches!(method, "POST" | "PUT" | "PATCH") || !content.is_empty();
    let length = if expected { format!("Content-Length: {}\r\n", content.len()) } else { String::new() };
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: test.example\r\n{fields}{length}\r\n").into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// RFC 9112 6.3 for a reply, with everything ambiguous refused.
fn framing(method: &str, status: u16, fields: &Fields) -> Result<Framing, WireError> {
    let lengths = fields.all("content-length");
    let codings = fields.joined("transfer-encoding");
    if !codings.is_empty() && !lengths.is_empty() {
        return Err(WireError::Malformed("a reply with Transfer-Encoding and Content-Length".into()));
    }
    if lengths.len() > 1 {
        return Err(WireError::Malformed(format!("a reply with lengths {lengths:?}")));
    }
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        return Ok(Framing::NoContent);
    }
    if let Some(length) = lengths.first() {
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = length.parse().ok().filter(|_| digits);
        return parsed.map(Framing::Length).ok_or_else(|| WireError::Malformed(format!("length `{length}`")));
    }
    if codings.is_empty() {
        return Ok(Framing::Close);
    }
    let last_is_chunked = codings.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"));
    Ok(if last_is_chunked { Framing::Chunked } else { Framing::Close })
}
