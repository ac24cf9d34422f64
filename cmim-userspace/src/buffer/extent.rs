//! One extent in a content's hands: given back to its tier when the last part of the content in it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::spool::Spool;
use super::tier::Tier;

/// A piece of a tier's file. It belongs to one content.
#[derive(Debug)]
pub(super) struct Extent {
    pub tier: Arc<Tier>,
    pub spool: Arc<Spool>,
    pub number: u32,
    pub presence: Arc<Presence>,
    /// Its space is allocated on the file system.
    allocated: AtomicBool,
    /// A write to it failed: nothing more goes there.
    failed: AtomicBool,
}

impl Extent {
    pub(super) fn new(tier: Arc<Tier>, spool: Arc<Spool>, number: u32, presence: Arc<Presence>) -> Arc<Self> {
        presence.comes(&tier);
        Arc::new(Self {
            tier,
            spool,
            number,
            presence,
            allocated: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    /// Where it begins in the file.
    pub(super) fn start(&self) -> u64 {
        self.spool.offset_of(self.number)
    }

    pub(super) fn len(&self) -> u64 {
        self.tier.extent_size()
    }

    pub(super) fn losses(&self) -> u32 {
        self.spool.losses()
    }

    pub(super) fn is_allocated(&self) -> bool {
        self.allocated.load(Ordering::Acquire)
    }

    pub(super) fn set_allocated(&self) {
        self.allocated.store(true, Ordering::Release);
    }

    pub(super) fn set_failed(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether more can be written to it.
    pub(super) fn takes_more(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.spool.is_retired() && self.tier.takes_writes(self)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.presence.goes(&self.tier);
        self.tier.extent_dropped(&self.spool, self.number);
    }
}

/// In which tiers one content is, for the figures. Shared with the threads, which can move its parts.
#[derive(Debug)]
pub(super) struct Presence {
    by_tier: Box<[PresenceIn]>,
}

#[derive(Debug, Default)]
struct PresenceIn {
    extents: AtomicU32,
    /// It moved on from here for want of room, and was counted for it.
    moved_on: AtomicBool,
    refused: AtomicBool,
}

impl Presence {
    pub(super) fn new(tiers: usize) -> Arc<Self> {
        Arc::new(Self { by_tier: (0..tiers).map(|_| PresenceIn::default()).collect() })
    }

    fn comes(&self, tier: &Tier) {
        if self.by_tier.get(tier.index).is_some_and(|here| here.extents.fetch_add(1, Ordering::SeqCst) == 0) {
            tier.figures.content_came();
        }
    }

    fn goes(&self, tier: &Tier) {
        if self.by_tier.get(tier.index).is_some_and(|here| here.extents.fetch_sub(1, Ordering::SeqCst) == 1) {
            tier.figures.content_left();
        }
    }

    /// Whether the content has an extent in the tier of this number.
    pub(super) fn is_in(&self, tier: usize) -> bool {
        self.by_tier.get(tier).is_some_and(|here| here.extents.load(Ordering::SeqCst) > 0)
    }

    /// The content asked `tier` for room in vain; counted once.
    pub(super) fn refused_by(&self, tier: &Tier) {
        if self.by_tier.get(tier.index).is_some_and(|here| !here.refused.swap(true, Ordering::SeqCst)) {
            tier.figures.content_refused();
        }
    }

    /// The content goes on in a later tier than `tier`; counted once.
    pub(super) fn moves_on_from(&self, tier: &Tier) {
        if self.by_tier.get(tier.index).is_some_and(|here| !here.moved_on.swap(true, Ordering::SeqCst)) {
            tier.figures.content_spilled();
        }
    }
}
