//! One stretch of a held content: in RAM, on its way to a file, or in one.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::ram::Account;
use super::write::{Place, Write};

/// Memory for small pieces grows up to this size.
const OWN_MOST: usize = 16 * 1024;
/// Pieces below this size are copied when they have to wait: one that is a slice of a large read buffer would keep all
/// of that buffer in RAM, and the account would know nothing of it.
pub const COPY_BELOW: usize = OWN_MOST;

/// A stretch of bytes.
#[derive(Debug)]
pub(super) enum Part {
    Ram(Piece),
    Write(Arc<Write>),
    File(Place),
}

impl Part {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Ram(piece) => piece.len() as u64,
            Self::Write(write) => write.len(),
            Self::File(place) => place.range.end - place.range.start,
        }
    }
}

/// Bytes in RAM that are not on their way anywhere.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: PieceBytes,
    pub account: Account,
}

#[derive(Debug)]
enum PieceBytes {
    Shared(Bytes),
    /// Copied together from small pieces.
    Own(BytesMut),
}

impl Piece {
    pub(super) fn shared(bytes: Bytes, account: Account) -> Self {
        Self { bytes: PieceBytes::Shared(bytes), account }
    }

    pub(super) fn copied(bytes: &[u8], account: Account) -> Self {
        Self { bytes: PieceBytes::Own(BytesMut::from(bytes)), account }
    }

    /// Copies `more` behind what is there; false where it has no room or is not this piece's own memory.
    pub(super) fn extend(&mut self, more: &[u8], account: Account) -> bool {
        match &mut self.bytes {
            PieceBytes::Own(own) if self.account == account && own.len() + more.len() <= OWN_MOST => {
                own.extend_from_slice(more);
                true
            }
            PieceBytes::Own(_) | PieceBytes::Shared(_) => false,
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            PieceBytes::Shared(bytes) => bytes,
            PieceBytes::Own(bytes) => bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Drops the first `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        match &mut self.bytes {
            PieceBytes::Shared(bytes) => bytes.advance(count),
            PieceBytes::Own(bytes) => bytes.advance(count),
        }
    }

    /// Takes the first `count` bytes off.
    pub(super) fn split_to(&mut self, count: usize) -> Bytes {
        match &mut self.bytes {
            PieceBytes::Shared(bytes) => bytes.split_to(count),
            PieceBytes::Own(bytes) => bytes.split_to(count).freeze(),
        }
    }
}
