//! One end of a connection that speaks HTTP/1.1 without believing the other: raw writes, strictly parsed reads, a
//! deadline on every operation.
//!
//! Owns the bytes read ahead. Knows heads, fields and framing by shape only; what a reply or request means is for
//! [`crate::client`] and [`crate::origin`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::Socket;
use thiserror::Error;

use crate::fields::Fields;

const READ_SIZE: usize = 64 * 1024;
/// Far above any limit that a device is tested with.
const LONGEST_HEAD: usize = 4 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum WireError {
    /// Closed where a message may end or begin.
    #[error("the connection was closed")]
    Closed,
    /// Closed in the middle of a message.
    #[error("the connection was closed in the middle of a message")]
    Cut,
    #[error("the connection was reset")]
    Reset,
    #[error("nothing came within {0:?}")]
    Deadline(Duration),
    #[error("not HTTP/1.1: {0}")]
    Malformed(String),
    #[error("input or output failed: {0}")]
    Io(#[source] io::Error),
}

/// Every byte that one connection received, shared with whoever wants to look.
pub type Record = Arc<Mutex<Vec<u8>>>;

#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    inbox: Vec<u8>,
    /// Read from `inbox` already.
    taken: usize,
    patience: Duration,
    record: Option<Record>,
}

impl Wire {
    pub fn new(socket: Socket, patience: Duration) -> Self {
        socket.set_read_timeout(Some(patience)).expect("a read deadline");
        socket.set_write_timeout(Some(patience)).expect("a write deadline");
        Self { socket, inbox: Vec::new(), taken: 0, patience, record: None }
    }

    pub fn recording(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn set_patience(&mut self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).expect("a read deadline");
        self.socket.set_write_timeout(Some(patience)).expect("a write deadline");
        self.patience = patience;
    }

    /// The socket, and what was read from it and not used.
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        let rest = self.inbox.get(self.taken..).unwrap_or_default().to_vec();
        (self.socket, rest)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        (&self.socket).write_all(bytes).map_err(|error| self.io_error(error))
    }

    /// No more will be sent; reading goes on.
    pub fn finish_sending(&self) -> Result<(), WireError> {
        self.socket.shutdown(Shutdown::Write).map_err(|error| self.io_error(error))
    }

    /// Closes so that the peer sees a reset.
    pub fn reset(self) {
        // Both ends may be gone already; then there is nothing left to reset.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// What is read ahead and not used yet.
    pub fn ahead(&self) -> &[u8] {
        self.inbox.get(self.taken..).unwrap_or_default()
    }

    /// Reads once more into the inbox; `false`: the peer has finished sending.
    pub fn fill(&mut self) -> Result<bool, WireError> {
        if self.taken > READ_SIZE {
            self.inbox.drain(..self.taken);
            self.taken = 0;
        }
        let old = self.inbox.len();
        self.inbox.resize(old + READ_SIZE, 0);
        let outcome = loop {
            match (&self.socket).read(&mut self.inbox[old..]) {
                // signal(7): a read with a deadline is interrupted by SIGCONT, handler or not.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let count = outcome.as_ref().copied().unwrap_or(0);
        self.inbox.truncate(old + count);
        if let Some(record) = &self.record {
            record.lock().expect("the record").extend_from_slice(&self.inbox[old..]);
        }
        outcome.map(|count| count > 0).map_err(|error| self.io_error(error))
    }

    /// A head with its closing empty line, and without its last CRLF.
    pub fn head(&mut self) -> Result<Vec<u8>, WireError> {
        let mut searched = 0;
        loop {
            let ahead = self.ahead();
            let from = usize::saturating_sub(searched, 3);
            if let Some(at) = find(&ahead[from..], b"\r\n\r\n") {
                let head = ahead[..from + at + 2].to_vec();
                self.taken += from + at + 4;
                return Ok(head);
            }
            searched = ahead.len();
            if searched > LONGEST_HEAD {
                return Err(WireError::Malformed("a head without an end".into()));
            }
            if !self.fill()? {
                return Err(if self.ahead().is_empty() { WireError::Closed } else { WireError::Cut });
            }
        }
    }

    /// Hands `count` bytes of content to `sink`.
    pub fn exactly(&mut self, mut count: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), WireError> {
        while count > 0 {
            if self.ahead().is_empty() && !self.fill()? {
                return Err(WireError::Cut);
            }
            let ahead = self.ahead();
            let part = ahead.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            sink(&ahead[..part]);
            self.taken += part;
            count -= part as u64;
        }
        Ok(())
    }

    /// A chunked content, decoded, and its trailer fields.
    pub fn chunked(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Fields, WireError> {
        loop {
            let line = self.line()?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = hexadecimal(digits)
                .ok_or_else(|| WireError::Malformed(format!("chunk size `{}`", line.escape_ascii())))?;
            if size == 0 {
                break;
            }
            self.exactly(size, sink)?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(WireError::Malformed("a chunk that does not end where its size says".into()));
            }
        }
        let mut trailers = Fields::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            let (name, value) = field(&line)?;
            trailers.push(name, value);
        }
    }

    /// All bytes up to the peer's orderly close.
    pub fn to_end(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<(), WireError> {
        loop {
            let ahead = self.ahead();
            sink(ahead);
            self.taken += ahead.len();
            if !self.fill()? {
                return Ok(());
            }
        }
    }

    /// Whether a byte comes within `span` (or lies read ahead); the end of the connection is none.
    pub fn brings_more(&mut self, span: Duration) -> bool {
        if !self.ahead().is_empty() {
            return true;
        }
        self.within(span, Self::fill).unwrap_or(false)
    }

    /// Whether the peer ends the connection within `span`, in order or by a reset, without sending another byte.
    pub fn ends(&mut self, span: Duration) -> bool {
        self.ahead().is_empty() && matches!(self.within(span, Self::fill), Ok(false) | Err(WireError::Reset))
    }

    fn within<T>(
        &mut self,
        span: Duration,
        act: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        self.socket.set_read_timeout(Some(span)).expect("a read deadline");
        let outcome = act(self);
        self.socket.set_read_timeout(Some(self.patience)).expect("a read deadline");
        outcome
    }

    fn line(&mut self) -> Result<Vec<u8>, WireError> {
        loop {
            if let Some(at) = find(self.ahead(), b"\r\n") {
                let line = self.ahead()[..at].to_vec();
                self.taken += at + 2;
                return Ok(line);
            }
            if self.ahead().len() > READ_SIZE {
                return Err(WireError::Malformed("a line without an end".into()));
            }
            if !self.fill()? {
                return Err(WireError::Cut);
            }
        }
    }

    fn io_error(&self, error: io::Error) -> WireError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => WireError::Deadline(self.patience),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => WireError::Reset,
            _ => WireError::Io(error),
        }
    }
}

/// A head's first line and fields; anything that RFC 9112 forbids a sender is an error.
pub fn parse_head(head: &[u8]) -> Result<(String, Fields), WireError> {
    let text = head.strip_suffix(b"\r\n").ok_or_else(|| WireError::Malformed("a head without CRLF".into()))?;
    let mut lines = Lines(Some(text));
    let first = lines.next().unwrap_or_default();
    check_bytes(first)?;
    let mut fields = Fields::default();
    for line in lines {
        let (name, value) = field(line)?;
        fields.push(name, value);
    }
    Ok((String::from_utf8_lossy(first).into_owned(), fields))
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), WireError> {
    check_bytes(line)?;
    let malformed = || WireError::Malformed(format!("field line `{}`", line.escape_ascii()));
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(malformed());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
}

fn check_bytes(line: &[u8]) -> Result<(), WireError> {
    if line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(WireError::Malformed(format!("a control character in `{}`", line.escape_ascii())));
    }
    Ok(())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// 1 to 16 hexadecimal digits and nothing else.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Splits at CRLF only.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match find(rest, b"\r\n") {
            Some(at) => {
                self.0 = Some(&rest[at + 2..]);
                Some(&rest[..at])
            }
            None => self.0.take(),
        }
    }
}
