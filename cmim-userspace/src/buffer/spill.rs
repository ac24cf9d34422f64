//! How a content moves on to the file tiers.
//!
//! Bytes that RAM does not keep are gathered until a block is full, and then handed to a tier's thread. Room in a file
//! is taken before they are gathered, so that a full block always has a place to go. Where the ordinary part of RAM is
//! taken, they are counted in the staging part and handed over at once, in what blocks they come: they join the last
//! write for as long as that waits for its turn, so that blocks grow by themselves when a tier falls behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::content::{Held, Placed, Position};
use super::extent::{Extent, Presence};
use super::part::{Part, Piece};
use super::ram::{Account, Owed};
use super::reader::Fetch;
use super::send::Cached;
use super::space::Space;
use super::tier::Room;
use super::write::{Place, Whereabouts, Write};

/// Blocks that one content may have on their way, so that one fast server does not fill RAM in front of a slow disk.
const FLYING_BLOCKS: u64 = 4;
/// A write of less is not begun while there is hope for more room.
const LEAST_WRITE: u64 = 4096;

/// What a content has in the file tiers, beside its parts.
#[derive(Debug)]
pub(super) struct Spill {
    presence: Arc<Presence>,
    /// Extents with room for what comes next, in order.
    ahead: VecDeque<Ahead>,
    /// The last extent that got any.
    last: Option<Arc<Extent>>,
    /// A tier has given it room.
    has_begun: bool,
    /// Being brought into the page cache.
    pub fetch: Option<Arc<Fetch>>,
    /// What comes next of the part that is sent, as far as it is known to be in the page cache.
    pub cached: Cached,
}

#[derive(Debug)]
struct Ahead {
    extent: Arc<Extent>,
    filled: u64,
}

impl Ahead {
    fn room(&self) -> u64 {
        self.extent.len() - self.filled
    }

    /// Has the front of `gathered` written here: it joins `last`, or makes a write of its own, which is given back.
    fn fill(
        &mut self,
        space: &Arc<Space>,
        gathered: &mut VecDeque<Piece>,
        last: Option<&Arc<Write>>,
    ) -> (Option<Arc<Write>>, Owed) {
        let offset = self.extent.start() + self.filled;
        let spare = last.map_or(0, |write| write.spare(&self.extent, offset, space.block));
        let most = self.room().min(if spare > 0 { spare } else { space.block });
        let (mut pieces, owed) = cut(gathered, most);
        let count = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.filled += count;
        if let Some(write) = last.filter(|_| spare > 0) {
            match write.join(pieces, owed) {
                Ok(()) => return (None, owed),
                Err(back) => pieces = back,
            }
        }
        let place = Place { extent: Arc::clone(&self.extent), range: offset..offset + count, losses: 0 };
        (Some(Write::new(Arc::clone(space), place, pieces, owed)), owed)
    }
}

impl Spill {
    fn new(tiers: usize) -> Self {
        Self {
            presence: Presence::new(tiers),
            ahead: VecDeque::new(),
            last: None,
            has_begun: false,
            fetch: None,
            cached: Cached::default(),
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn is_in(&self, tier: usize) -> bool {
        self.presence.is_in(tier)
    }

    pub(super) fn give_up_ahead(&mut self) {
        self.ahead.clear();
        self.last = None;
    }

    /// Takes extents until there is room for `wanted` bytes; says how much there is, and whether more is to come.
    fn reserve(&mut self, space: &Space, wanted: u64) -> (u64, bool) {
        self.ahead.retain(|ahead| ahead.extent.takes_more());
        let mut room: u64 = self.ahead.iter().map(Ahead::room).sum();
        while room < wanted {
            let after = self.ahead.back().map(|ahead| &ahead.extent).or(self.last.as_ref());
            match space.find_room(after.map(AsRef::as_ref), &self.presence) {
                Room::Taken(extent) => {
                    room += extent.len();
                    self.ahead.push_back(Ahead { extent, filled: 0 });
                }
                Room::Soon => return (room, true),
                Room::None => return (room, false),
            }
        }
        (room, false)
    }
}

impl Held {
    /// Takes the front of `bytes` to the file tiers.
    pub(super) fn spill(&mut self, bytes: &mut Bytes) -> Placed {
        let space = Arc::clone(&self.store.space);
        self.settle();
        if self.flying() >= FLYING_BLOCKS * space.block {
            return Placed::Behind;
        }
        let spill = self.spill.get_or_insert_with(|| Box::new(Spill::new(space.tiers.len())));
        let wanted = (bytes.len() as u64).min(space.block);
        let (room, soon) = spill.reserve(&space, self.gathered_bytes + wanted);
        if room > 0 && !std::mem::replace(&mut spill.has_begun, true) {
            space.ram.content_spilled();
        }
        let count = room.saturating_sub(self.gathered_bytes).min(wanted);
        if count == 0 {
            return if soon { Placed::Crowded } else { Placed::Full };
        }
        if space.ram.take(count) {
            self.take(bytes, count, Account::Ordinary, true);
            if self.gathered_bytes >= space.block {
                self.hand_over(&space);
            }
            return Placed::Taken;
        }
        let staged = space.ram.take_staging(count);
        let moves = space.ram.staging_moves_beside(staged);
        if staged > 0 && (staged >= count.min(LEAST_WRITE) || !moves) {
            self.take(bytes, staged, Account::Staging, true);
            self.hand_over(&space);
            return Placed::Taken;
        }
        space.return_unused(staged);
        // What it has gathered frees RAM once it is written.
        if self.gathered_bytes > 0 {
            self.hand_over(&space);
            return Placed::Crowded;
        }
        if moves { Placed::Crowded } else { Placed::Full }
    }

    /// Makes writes of what was gathered. There is room for it in the extents ahead.
    fn hand_over(&mut self, space: &Arc<Space>) {
        let Some(spill) = &mut self.spill else { return };
        let first = self.parts.len() - self.gathered;
        let read = self.at.part.checked_sub(first).map(|parts| {
            let whole = self.parts.iter().skip(first).take(parts);
            whole.map(Part::len).sum::<u64>() + self.at.sent
        });
        let mut gathered: VecDeque<Piece> = VecDeque::with_capacity(self.gathered);
        for part in self.parts.drain(first..) {
            if let Part::Ram(piece) = part {
                gathered.push_back(piece);
            }
        }
        (self.gathered, self.gathered_bytes) = (0, 0);
        let mut owed_by_writes = Owed::default();
        // Where the first of the gathered bytes is now.
        let mut begin = Position { part: first, sent: 0 };
        while !gathered.is_empty() {
            let Some(ahead) = spill.ahead.front_mut() else { break };
            let last = match self.parts.back() {
                Some(Part::Write(write)) => Some(write),
                _ => None,
            };
            let before = last.map_or(0, |write| write.len());
            let (next, owed) = ahead.fill(space, &mut gathered, last);
            owed_by_writes.ordinary += owed.ordinary;
            owed_by_writes.staging += owed.staging;
            match next {
                Some(write) => {
                    self.parts.push_back(Part::Write(Arc::clone(&write)));
                    ahead.extent.tier.work.put(write);
                }
                None if self.parts.len() == first => begin = Position { part: first.saturating_sub(1), sent: before },
                None => {}
            }
            if ahead.room() == 0 {
                spill.last = spill.ahead.pop_front().map(|full| full.extent);
            }
        }
        debug_assert!(gathered.is_empty(), "bytes were gathered without room for them");
        self.gathered = gathered.len();
        self.gathered_bytes = gathered.iter().map(|piece| piece.len() as u64).sum();
        self.parts.extend(gathered.into_iter().map(Part::Ram));
        self.no_longer_owes(owed_by_writes);
        if let Some(read) = read {
            self.at = begin;
            self.step_over(read);
        }
    }

    /// Bytes of this content that are on their way.
    pub(super) fn flying(&self) -> u64 {
        let unsettled = self.parts.iter().skip(self.settled);
        unsettled.map(|part| if let Part::Write(write) = part { write.flying() } else { 0 }).sum()
    }

    /// Ready once a write of this content is no longer on its way.
    pub(super) fn poll_landed(&mut self, cx: &Context<'_>) -> Poll<()> {
        let first = self.parts.iter().skip(self.settled).find_map(|part| match part {
            Part::Write(write) if write.flying() > 0 => Some(write),
            _ => None,
        });
        first.map_or(Poll::Ready(()), |write| write.poll_landed(cx))
    }

    /// Turns writes that are done into places in a file, neighbours into one: a long content is to need few parts.
    pub(super) fn settle(&mut self) {
        while let Some(part) = self.parts.get(self.settled) {
            let place = match part {
                Part::Ram(_) if self.settled + self.gathered >= self.parts.len() => return,
                Part::Ram(_) | Part::File(_) => {
                    self.settled += 1;
                    continue;
                }
                Part::Write(write) => match write.whereabouts() {
                    Whereabouts::File(place) => place,
                    Whereabouts::Ram(_) => return,
                },
            };
            let before = self.settled.checked_sub(1).and_then(|before| self.parts.get_mut(before));
            if let Some(Part::File(earlier)) = before
                && Arc::ptr_eq(&earlier.extent, &place.extent)
                && earlier.range.end == place.range.start
                && earlier.losses == place.losses
            {
                let grown = earlier.range.end - earlier.range.start;
                earlier.range.end = place.range.end;
                self.parts.remove(self.settled);
                if self.at.part == self.settled {
                    self.at.sent += grown;
                }
                if self.at.part >= self.settled {
                    self.at.part -= 1;
                }
            } else if let Some(slot) = self.parts.get_mut(self.settled) {
                *slot = Part::File(place);
                self.settled += 1;
            }
        }
    }
}

/// Takes up to `most` bytes off the front of `gathered`.
fn cut(gathered: &mut VecDeque<Piece>, mut most: u64) -> (Vec<Bytes>, Owed) {
    let (mut pieces, mut owed) = (Vec::with_capacity(gathered.len()), Owed::default());
    while let Some(piece) = gathered.front_mut().filter(|_| most > 0) {
        let count = most.min(piece.len() as u64);
        most -= count;
        owed.add(piece.account, count);
        pieces.push(piece.split_to(usize::try_from(count).unwrap_or(usize::MAX)));
        if piece.len() == 0 {
            gathered.pop_front();
        }
    }
    (pieces, owed)
}
