//! A content as it is read off a connection's buffer: its end found, its coding undone. Pure.

use bytes::{Bytes, BytesMut};

use crate::h1::{ChunkError, ChunkedDecoder, Decoded, Fields, ReplyContent, RequestContent};

/// Finds a content's end in the bytes of its connection.
#[derive(Debug)]
pub enum Content {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Up to the connection's end.
    UntilClose,
}

/// What a step of reading yields.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// More bytes have to be read first.
    NeedMore,
    /// The content is whole; what is left in the buffer is not part of it.
    End {
        trailers: Option<Fields>,
    },
}

impl Content {
    pub fn of_reply(content: ReplyContent) -> Self {
        match content {
            ReplyContent::None => Self::Length(0),
            ReplyContent::Length(length) => Self::Length(length),
            ReplyContent::Chunked | ReplyContent::Coded => Self::Chunked(ChunkedDecoder::new()),
            ReplyContent::UntilClose => Self::UntilClose,
        }
    }

    /// `limit`: bytes that a chunked content may have.
    pub fn of_request(content: RequestContent, limit: u64) -> Self {
        match content {
            RequestContent::None => Self::Length(0),
            RequestContent::Length(length) => Self::Length(length),
            RequestContent::Chunked => Self::Chunked(ChunkedDecoder::with_limit(limit)),
        }
    }

    /// Takes the next piece off the front of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, ChunkError> {
        match self {
            Self::Length(0) => Ok(Piece::End { trailers: None }),
            Self::Length(_) | Self::UntilClose if buffer.is_empty() => Ok(Piece::NeedMore),
            Self::Length(left) => {
                let step = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= step as u64;
                Ok(Piece::Data(buffer.split_to(step).freeze()))
            }
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Self::Chunked(decoder) => Ok(match decoder.decode(buffer)? {
                Decoded::Data(data) => Piece::Data(data),
                Decoded::NeedMore => Piece::NeedMore,
                Decoded::End { trailers } => Piece::End { trailers: Some(trailers) },
            }),
        }
    }

    /// Bytes that are known to be still to come.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// So many bytes of a content of known length went past the buffer.
    pub fn went_past(&mut self, count: u64) {
        if let Self::Length(left) = self {
            debug_assert!(count <= *left, "bytes beyond the content's end");
            *left = left.saturating_sub(count);
        }
    }

    /// Whether the connection's end is this content's end.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_of_known_length_ends_at_its_last_byte_and_leaves_the_rest() {
        let mut buffer = BytesMut::from(&b"contentNEXT"[..]);
        let mut content = Content::Length(7);
        assert!(matches!(content.next(&mut buffer), Ok(Piece::Data(data)) if data == b"content"[..]));
        assert!(matches!(content.next(&mut buffer), Ok(Piece::End { trailers: None })));
        assert_eq!(&buffer[..], b"NEXT");
    }

    #[test]
    fn a_content_until_close_takes_all_and_has_no_end_of_its_own() {
        let mut buffer = BytesMut::from(&b"abc"[..]);
        let mut content = Content::UntilClose;
        assert!(matches!(content.next(&mut buffer), Ok(Piece::Data(data)) if data == b"abc"[..]));
        assert!(matches!(content.next(&mut buffer), Ok(Piece::NeedMore)));
        assert!(content.ends_with_connection());
    }
}
