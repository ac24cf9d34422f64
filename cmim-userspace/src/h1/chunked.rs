//! The chunked transfer coding (RFC 9112 7.1): decoding without copies, and encoding.
//!
//! The decoder takes content off the front of the connection's buffer; a chunk size has one spelling only, since a size
//! that two parsers read differently smuggles a request.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::digits::put_hex;
use super::encode::put_field;
use super::error::{ChunkError, HeadError};
use super::fields::Fields;
use super::lines::Section;
use super::octet::first_control;

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// More would not fit a u64.
const MOST_SIZE_DIGITS: usize = 16;

/// Bytes of a chunk's extensions with their CRLF. Nobody uses any; they are skipped.
const MOST_EXTENSION: usize = 256;

/// Bytes and fields of a trailer section.
const MOST_TRAILERS: usize = 16 << 10;
const MOST_TRAILER_FIELDS: usize = 64;

/// What a step of decoding yields.
#[derive(Debug)]
pub enum Decoded {
    /// Content, split off the buffer; never empty.
    Data(Bytes),
    NeedMore,
    /// The content is whole; what follows in the buffer is not part of it.
    End {
        trailers: Fields,
    },
}

/// Decodes one chunked content.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of content that further chunks may have.
    allowance: u64,
    trailers: Section,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailers,
    Ended,
}

impl ChunkedDecoder {
    /// For a content of any size.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(u64::MAX)
    }

    /// For a content of at most `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: u64) -> Self {
        Self { state: State::Size, allowance: limit, trailers: Section::default() }
    }

    /// Decodes until there is a piece of data, the end, or nothing more to decode; to be called again after data. After
    /// an error the connection is of no further use.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, ChunkError> {
        loop {
            self.state = match self.state {
                State::Size => {
                    let Some(line) = SizeLine::of(buf)? else { return Ok(Decoded::NeedMore) };
                    buf.advance(line.len);
                    self.begin(line.size)?
                }
                State::Data { left } => {
                    let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                    if len == 0 {
                        return Ok(Decoded::NeedMore);
                    }
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
                    return Ok(Decoded::Data(buf.split_to(len).freeze()));
                }
                State::DataEnd => match **buf {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        State::Size
                    }
                    [] | [b'\r'] => return Ok(Decoded::NeedMore),
                    _ => return Err(ChunkError::DataEnd),
                },
                State::Trailers => return self.read_trailers(buf),
                State::Ended => return Ok(Decoded::End { trailers: Fields::default() }),
            };
        }
    }

    /// The state after a chunk's size line.
    fn begin(&mut self, size: u64) -> Result<State, ChunkError> {
        if size == 0 {
            return Ok(State::Trailers);
        }
        self.allowance = self.allowance.checked_sub(size).ok_or(ChunkError::ContentTooLarge)?;
        Ok(State::Data { left: size })
    }

    fn read_trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, ChunkError> {
        let view = buf.get(..MOST_TRAILERS).unwrap_or(buf);
        let Some(end) = self.trailers.read_fields(view, MOST_TRAILER_FIELDS)? else {
            return if buf.len() >= MOST_TRAILERS { Err(HeadError::TooLarge.into()) } else { Ok(Decoded::NeedMore) };
        };
        self.state = State::Ended;
        let spans = self.trailers.finish();
        if spans.is_empty() {
            buf.advance(end);
            return Ok(Decoded::End { trailers: Fields::default() });
        }
        Ok(Decoded::End { trailers: Fields::new(buf.split_to(end).freeze(), spans) })
    }
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// A chunk's first line.
struct SizeLine {
    size: u64,
    /// With the CRLF.
    len: usize,
}

impl SizeLine {
    /// The line at the front of `view`; `None` as long as it is not whole.
    fn of(view: &[u8]) -> Result<Option<Self>, ChunkError> {
        let mut size = 0_u64;
        let mut digits = 0;
        for &octet in view {
            let Some(digit) = hex_digit(octet) else { break };
            digits += 1;
            if digits > MOST_SIZE_DIGITS {
                return Err(ChunkError::Size);
            }
            size = (size << 4) | u64::from(digit);
        }
        match view.get(digits..).unwrap_or_default() {
            [_, ..] if digits == 0 => Err(ChunkError::Size),
            [b'\r', b'\n', ..] => Ok(Some(Self { size, len: digits + 2 })),
            [] | [b'\r'] => Ok(None),
            [b'\r' | b'\n', ..] => Err(ChunkError::SizeLineEnd),
            extension @ [b';', ..] => {
                let len = extension_len(extension)?;
                Ok(len.map(|len| Self { size, len: digits + len }))
            }
            _ => Err(ChunkError::Size),
        }
    }
}

/// The length of a chunk's extensions with their CRLF; they are ignored (RFC 9112 7.1.1).
fn extension_len(rest: &[u8]) -> Result<Option<usize>, ChunkError> {
    let view = rest.get(..MOST_EXTENSION).unwrap_or(rest);
    let Some(end) = memchr::memchr(b'\n', view) else {
        return if view.len() == MOST_EXTENSION { Err(ChunkError::Extension) } else { Ok(None) };
    };
    match view.get(..end) {
        Some([extension @ .., b'\r']) if first_control(extension) == extension.len() => Ok(Some(end + 1)),
        Some([.., b'\r']) => Err(ChunkError::Extension),
        _ => Err(ChunkError::SizeLineEnd),
    }
}

#[inline]
fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Writes the line before a chunk of `len` bytes; the chunk's data is to be followed by CRLF. `len` is not 0: that would
/// be the last chunk.
pub fn chunk_header(len: usize, out: &mut BytesMut) {
    debug_assert_ne!(len, 0, "an empty chunk ends the content");
    put_hex(len as u64, out);
    out.put_slice(b"\r\n");
}

/// Writes the last chunk and those of `trailers` that may stand there.
pub fn last_chunk(trailers: &Fields, out: &mut BytesMut) {
    out.put_slice(b"0\r\n");
    for (known, name, value) in trailers.iter() {
        if !known.is_barred_from_trailers() {
            put_field(name, value, out);
        }
    }
    out.put_slice(b"\r\n");
}
