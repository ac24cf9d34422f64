//! One content on its way through the device: appended at one end, sent in order from the other.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::tiers::{Memory, Reservation};

/// Bytes in order, all of them in the RAM tier's account.
#[derive(Debug)]
pub struct Held {
    pieces: VecDeque<Bytes>,
    len: u64,
    reservation: Reservation,
}

impl Held {
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { pieces: VecDeque::new(), len: 0, reservation: Reservation::new(memory) }
    }

    /// Bytes appended and not taken yet.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a piece of the content, or gives it back where there is no room for it.
    pub fn append(&mut self, piece: Bytes) -> Result<(), Bytes> {
        if !self.reservation.grow(piece.len() as u64) {
            return Err(piece);
        }
        self.append_unaccounted(piece);
        Ok(())
    }

    /// Takes room for a piece that is appended next, or says that there is none.
    #[must_use]
    pub fn reserve(&mut self, bytes: u64) -> bool {
        self.reservation.grow(bytes)
    }

    /// Appends what is sent at once, or is small and of the device's own making (heads, chunk lines), outside the
    /// account: the last steps of a reply cannot be refused for want of room.
    pub fn append_unaccounted(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    /// Puts a head or a chunk line in front of all that is there, outside the account.
    pub fn prepend_unaccounted(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len() as u64;
            self.pieces.push_front(piece);
        }
    }

    /// The pieces in order; cloning one shares its bytes.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// Fills `slices` with what comes next; says how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Drops the first `count` bytes: they were sent.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count as u64 <= self.len);
        self.len = self.len.saturating_sub(count as u64);
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { break };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
        // What is left can owe the account at most its own length; framing bytes never were in it.
        let surplus = self.reservation.bytes().saturating_sub(self.len);
        self.reservation.shrink(surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_at_any_step() {
        for step in 1..9 {
            let memory = Memory::new(1000);
            let mut held = Held::new(Arc::clone(&memory));
            held.append_unaccounted(Bytes::from_static(b"head"));
            held.append(Bytes::from_static(b"one")).unwrap();
            held.append(Bytes::new()).unwrap();
            held.append(Bytes::from_static(b"three")).unwrap();
            assert_eq!(memory.used(), 8);
            let mut out = Vec::new();
            while !held.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let filled = held.slices(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                let count = step.min(all.len());
                out.extend_from_slice(&all[..count]);
                held.advance(count);
                assert!(memory.used() <= held.len());
            }
            assert_eq!(out, b"headonethree");
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn a_piece_without_room_is_given_back() {
        let mut held = Held::new(Memory::new(4));
        held.append(Bytes::from_static(b"four")).unwrap();
        assert_eq!(held.append(Bytes::from_static(b"5")), Err(Bytes::from_static(b"5")));
        held.advance(1);
        held.append(Bytes::from_static(b"5")).unwrap();
        assert_eq!(held.len(), 4);
    }
}
