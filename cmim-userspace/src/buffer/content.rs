//! One content held over RAM and the file tiers: appended at one end, sent in order from the other, at the same time.
//!
//! The first bytes stay in RAM, up to the content's share and while the device's RAM has room. What comes then is
//! gathered to blocks and goes to the first file tier with room ([`super::spill`]); what was written is sent from the file
//! ([`super::send`]). As the reader empties RAM, later bytes can stay there again: the parts are a plain sequence, in which
//! each kind can follow each.
//!
//! It knows no HTTP, and of the socket only that it takes bytes. Room is taken before a byte is kept, and given back by
//! sending and by Drop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::part::{COPY_BELOW, Part, Piece};
use super::ram::{Account, Owed};
use super::spill::Spill;
use super::store::{Store, kind_name};

/// Neither RAM nor any file tier has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no tier has room")]
pub struct Full;

/// What placing bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// Some or all of them were taken.
    Taken,
    /// Too many of this content's own bytes are on their way already.
    Behind,
    /// There will be room without anyone's doing.
    Crowded,
    Full,
}

/// One content's bytes.
#[derive(Debug)]
pub struct Held {
    pub(super) store: Arc<Store>,
    pub(super) parts: VecDeque<Part>,
    pub(super) at: Position,
    keep_sent: bool,
    total: u64,
    /// Not sent yet.
    len: u64,
    /// What the pieces in `parts` owe the RAM tier.
    pub(super) owed: Owed,
    /// So many parts at the end, all of them in RAM, are gathered for the next write …
    pub(super) gathered: usize,
    /// … with so many bytes.
    pub(super) gathered_bytes: u64,
    /// Parts before this one have found their place; those from here on may still be on their way.
    pub(super) settled: usize,
    pub(super) spill: Option<Box<Spill>>,
    name: u64,
    waiting: bool,
    refused: bool,
}

/// Where the reader is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub part: usize,
    pub sent: u64,
}

impl Held {
    /// A content of which what was sent is let go.
    pub fn new(store: &Arc<Store>) -> Self {
        Self::with(store, false)
    }

    /// A content that may have to be sent again: nothing is let go before it is dropped.
    pub fn for_replay(store: &Arc<Store>) -> Self {
        Self::with(store, true)
    }

    fn with(store: &Arc<Store>, keep_sent: bool) -> Self {
        Self {
            store: Arc::clone(store),
            parts: VecDeque::new(),
            at: Position::default(),
            keep_sent,
            total: 0,
            len: 0,
            owed: Owed::default(),
            gathered: 0,
            gathered_bytes: 0,
            settled: 0,
            spill: None,
            name: store.space.waiters.name(),
            waiting: false,
            refused: false,
        }
    }

    /// Bytes appended and not sent yet.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes appended so far, whatever has become of them.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last tier that has a byte of it: "memory", "flash", "disk", or "" while there is none.
    pub fn tier(&self) -> &'static str {
        let spill = self.spill.as_ref();
        let tiers = self.store.space.tiers.iter().rev();
        match tiers.map(|tier| (tier.index, tier.kind)).find(|(tier, _)| spill.is_some_and(|spill| spill.is_in(*tier)))
        {
            Some((_, kind)) => kind_name(kind),
            None if self.len > 0 || self.owed != Owed::default() => "memory",
            None => "",
        }
    }

    /// Whether it has ever moved on from RAM.
    pub fn has_spilled(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.has_begun())
    }

    /// Takes `piece`, or as much of it as there is room for; what is left in it was not taken.
    ///
    /// Pending: room is on its way, and the task is woken when it is worth trying again. `Err`: no tier has room; the task is
    /// woken when that may have changed, and the content with all that was taken stays as it is.
    pub fn poll_append(&mut self, cx: &mut Context<'_>, piece: &mut Option<Bytes>) -> Poll<Result<(), Full>> {
        let mut registered = false;
        while let Some(bytes) = piece.as_mut() {
            if bytes.is_empty() {
                *piece = None;
                break;
            }
            match self.place(bytes) {
                Placed::Taken => {}
                Placed::Behind => {
                    if self.poll_landed(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Placed::Crowded | Placed::Full if !registered => {
                    self.store.space.waiters.register(self.name, cx.waker());
                    (registered, self.waiting) = (true, true);
                }
                Placed::Crowded => return Poll::Pending,
                Placed::Full => {
                    if !std::mem::replace(&mut self.refused, true) {
                        self.store.space.ram.content_refused();
                    }
                    return Poll::Ready(Err(Full));
                }
            }
        }
        self.stop_waiting();
        self.refused = false;
        self.check_invariants();
        Poll::Ready(Ok(()))
    }

    /// Room is no longer waited for: what it was for goes another way.
    pub fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) && !self.store.space.waiters.forget(self.name) {
            // It was woken for room of which there may be more than it took.
            self.store.space.waiters.wake(0);
        }
    }

    /// Appends what is sent at once, or is small and of the device's own making (heads, chunk lines), outside the
    /// account: the last steps of a reply cannot be refused for want of room.
    pub fn append_unaccounted(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let bytes = piece.len() as u64;
        // Between two parts of a content in a file it goes to the file with them.
        let gathers = self.gathered > 0 || matches!(self.parts.back(), Some(Part::Write(_)));
        self.push(piece, Account::Free, gathers);
        self.count_in(bytes);
    }

    /// Says that nothing more is appended: room that was taken ahead is given back.
    pub fn finish(&mut self) {
        self.stop_waiting();
        if let Some(spill) = &mut self.spill {
            spill.give_up_ahead();
        }
    }

    /// Begins to send from the first byte again. Only for a content that is kept for it.
    pub fn rewind(&mut self) {
        debug_assert!(self.keep_sent, "what was sent is gone");
        if self.keep_sent {
            self.at = Position::default();
            self.len = self.total;
        }
    }

    /// Finds room for the front of `bytes` and takes it there.
    fn place(&mut self, bytes: &mut Bytes) -> Placed {
        let len = bytes.len() as u64;
        let space = &self.store.space;
        let in_ram = self.owed.ordinary;
        if (in_ram + len <= space.share || space.tiers.is_empty()) && space.ram.take(len) {
            (self.gathered, self.gathered_bytes) = (0, 0);
            self.take(bytes, len, Account::Ordinary, false);
            return Placed::Taken;
        }
        let placed = if space.tiers.is_empty() { Placed::Full } else { self.spill(bytes) };
        // Beyond its share, rather than not at all.
        if placed == Placed::Full && self.store.space.ram.take(len) {
            self.take(bytes, len, Account::Ordinary, self.gathered > 0);
            return Placed::Taken;
        }
        placed
    }

    /// Takes the first `count` of `bytes`, for which there is room in `account`.
    pub(super) fn take(&mut self, bytes: &mut Bytes, count: u64, account: Account, gathers: bool) {
        let taken = bytes.split_to(usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len()));
        debug_assert_eq!(taken.len() as u64, count);
        if account == Account::Ordinary && self.owed.ordinary == 0 {
            self.store.space.ram.content_came();
        }
        self.owed.add(account, count);
        self.count_in(count);
        self.push(taken, account, gathers);
    }

    fn count_in(&mut self, bytes: u64) {
        self.total += bytes;
        self.len += bytes;
    }

    fn push(&mut self, bytes: Bytes, account: Account, gathers: bool) {
        let len = bytes.len() as u64;
        let joins = gathers == (self.gathered > 0) && !self.is_past_the_end();
        let small = bytes.len() < COPY_BELOW && account != Account::Free;
        if gathers {
            self.gathered_bytes += len;
        }
        if small
            && joins
            && let Some(Part::Ram(last)) = self.parts.back_mut()
            && last.extend(&bytes, account)
        {
            return;
        }
        let piece = if small { Piece::copied(&bytes, account) } else { Piece::shared(bytes, account) };
        self.parts.push_back(Part::Ram(piece));
        if gathers {
            self.gathered += 1;
        }
    }

    /// Whether the reader is behind the last part already, which then takes no more bytes.
    pub(super) fn is_past_the_end(&self) -> bool {
        self.at.part >= self.parts.len()
    }

    /// The first `count` unread bytes were sent.
    pub(super) fn advance(&mut self, count: u64) {
        debug_assert!(count <= self.len);
        self.len = self.len.saturating_sub(count);
        if self.keep_sent {
            self.step_over(count)
        } else {
            self.let_go(count)
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let before: u64 = self.parts.iter().take(self.at.part).map(Part::len).sum();
        let all: u64 = self.parts.iter().map(Part::len).sum();
        assert_eq!(
            all,
            self.len + before + self.at.sent,
            "the parts are the unread bytes and what is kept of the others"
        );
        let mut owed = Owed::default();
        for part in &self.parts {
            if let Part::Ram(piece) = part {
                owed.add(piece.account, piece.len() as u64);
            }
        }
        assert_eq!(owed, self.owed, "the pieces owe what they take");
        let gathered = self.parts.iter().rev().take(self.gathered);
        assert_eq!(gathered.map(Part::len).sum::<u64>(), self.gathered_bytes);
        assert!(self.settled + self.gathered <= self.parts.len());
    }

    /// Moves the reader on by `count` bytes.
    pub(super) fn step_over(&mut self, mut count: u64) {
        while let Some(part) = self.parts.get(self.at.part) {
            let step = count.min(part.len() - self.at.sent);
            count -= step;
            self.at.sent += step;
            if self.at.sent < part.len() {
                return;
            }
            self.at = Position { part: self.at.part + 1, sent: 0 };
        }
    }

    fn let_go(&mut self, mut count: u64) {
        let mut owed = Owed::default();
        while let Some(part) = self.parts.front_mut() {
            let step = count.min(part.len() - self.at.sent);
            count -= step;
            if let Part::Ram(piece) = part {
                piece.advance(usize::try_from(step).unwrap_or(usize::MAX));
                owed.add(piece.account, step);
                if self.gathered == self.parts.len() {
                    self.gathered_bytes -= step;
                }
            } else {
                self.at.sent += step;
            }
            if self.parts.front().is_some_and(|part| self.at.sent < part.len()) {
                break;
            }
            self.at.sent = 0;
            if let Some(Part::Write(write)) = self.parts.pop_front() {
                write.abandon();
            }
            self.settled = self.settled.saturating_sub(1);
            self.gathered = self.gathered.min(self.parts.len());
        }
        self.release(owed);
    }

    /// Takes `owed` off what the pieces owe; it goes on in `owed`.
    pub(super) fn no_longer_owes(&mut self, owed: Owed) {
        let before = self.owed.ordinary;
        self.owed.ordinary -= owed.ordinary;
        self.owed.staging -= owed.staging;
        if before > 0 && self.owed.ordinary == 0 {
            self.store.space.ram.content_left();
        }
    }

    fn release(&mut self, owed: Owed) {
        self.no_longer_owes(owed);
        self.store.space.release(owed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for part in self.parts.drain(..) {
            if let Part::Write(write) = part {
                write.abandon();
            }
        }
        self.release(self.owed);
        self.stop_waiting();
    }
}
