//! The space of all tiers, as contents and the tiers' threads share it: who gets room where, and who is told of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::extent::{Extent, Presence};
use super::ram::{Account, Owed, Ram};
use super::tier::{Room, Tier};
use super::waiters::Waiters;
use super::write::Write;

/// RAM and the file tiers.
#[derive(Debug)]
pub(super) struct Space {
    pub ram: Ram,
    /// In the order in which they are tried.
    pub tiers: Vec<Arc<Tier>>,
    pub waiters: Waiters,
    /// Bytes of RAM that one content takes before it moves on.
    pub share: u64,
    /// Bytes of one write at most; no tier's extents are smaller, so that a write fits one of any.
    pub block: u64,
    stranded: Mutex<Vec<Weak<Write>>>,
    /// How many of them there are, for a glance.
    stranded_count: AtomicUsize,
}

impl Space {
    pub(super) fn new(ram: Ram, tiers: Vec<Arc<Tier>>, share: u64, block: u64) -> Arc<Self> {
        Arc::new(Self {
            ram,
            tiers,
            waiters: Waiters::default(),
            share,
            block,
            stranded: Mutex::default(),
            stranded_count: AtomicUsize::new(0),
        })
    }

    /// Takes an extent in the first tier with room.
    pub(super) fn find_room(&self, after: Option<&Extent>, presence: &Arc<Presence>) -> Room {
        let mut soon = false;
        for tier in &self.tiers {
            match tier.take(after, presence) {
                Room::Taken(extent) => {
                    let earlier = self.tiers.iter().take(tier.index);
                    for earlier in earlier.filter(|earlier| presence.is_in(earlier.index)) {
                        presence.moves_on_from(earlier);
                    }
                    return Room::Taken(extent);
                }
                Room::Soon => soon = true,
                Room::None => presence.refused_by(tier),
            }
        }
        if soon { Room::Soon } else { Room::None }
    }

    /// Gives RAM back, and tells who waits for it.
    pub(super) fn release(&self, owed: Owed) {
        if owed == Owed::default() {
            return;
        }
        self.ram.give_back(Account::Ordinary, owed.ordinary);
        self.ram.give_back(Account::Staging, owed.staging);
        if owed.staging > 0 && !self.ram.staging_moves() {
            // Nothing more comes back by itself: whoever waits has to decide anew.
            self.waiters.wake_all();
        } else {
            self.waiters.wake(owed.ordinary + owed.staging);
        }
    }

    /// Gives staging room back that was taken for a look and not used. Nobody can do more with it than before, so nobody is
    /// told, least of all who asks; but where others took it for bytes that move, they have to decide anew.
    pub(super) fn return_unused(&self, staged: u64) {
        self.ram.give_back(Account::Staging, staged);
        if staged > 0 && !self.ram.staging_moves() {
            self.waiters.wake_all();
        }
    }

    /// Finds another place for a write that failed.
    pub(super) fn place_again(&self, write: &Arc<Write>) {
        let find = |from: &Extent| match self.find_room(None, &from.presence) {
            Room::Taken(extent) => Some(extent),
            Room::Soon | Room::None => None,
        };
        match write.place_again(find) {
            Some(extent) => extent.tier.work.put(Arc::clone(write)),
            None if write.is_stranded() => {
                let mut stranded = self.stranded.lock();
                stranded.push(Arc::downgrade(write));
                self.stranded_count.store(stranded.len(), Ordering::SeqCst);
                drop(stranded);
                self.waiters.wake_all();
            }
            None => {}
        }
    }

    /// `bytes` of a file tier are free again.
    pub(super) fn got_room(&self, bytes: u64) {
        self.place_stranded();
        self.waiters.wake(bytes);
    }

    /// A tier that was degraded takes bytes again.
    pub(super) fn recovered(&self) {
        self.place_stranded();
        self.waiters.wake_all();
    }

    fn place_stranded(&self) {
        if self.stranded_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let stranded = {
            let mut stranded = self.stranded.lock();
            // Under the lock: one that comes right behind is not to be counted away.
            self.stranded_count.store(0, Ordering::SeqCst);
            std::mem::take(&mut *stranded)
        };
        for write in stranded.iter().filter_map(Weak::upgrade) {
            self.place_again(&write);
        }
    }
}
