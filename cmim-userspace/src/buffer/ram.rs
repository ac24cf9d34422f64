//! The RAM tier's account over all workers: pure counting, nothing here holds a byte.
//!
//! The size is divided for good into two parts, so that neither can ever take what the other needs. The ordinary part
//! is for bytes that stay in RAM; the staging part, which exists only where there are file tiers, is for bytes on their
//! way to a file. However full the ordinary part is, a content can still move on to a file through the staging part.

use std::sync::atomic::{AtomicU64, Ordering};

/// The staging part is at most this share of the RAM tier …
const STAGING_SHARE: u64 = 4;
/// … and at most this many bytes: more of them in flight makes no file tier faster.
const STAGING_MOST: u64 = 32 << 20;

/// A size and how much of it is taken. All operations are sequentially consistent: whoever finds no room registers for
/// it and looks again, and whoever gives room back looks for registrations afterwards; one of the two sees the other.
#[derive(Debug)]
pub(super) struct Budget {
    size: u64,
    used: AtomicU64,
}

impl Budget {
    /// `size` in bytes.
    pub(super) fn new(size: u64) -> Self {
        Self { size, used: AtomicU64::new(0) }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Takes `bytes`, or takes nothing where that would pass the size.
    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&used| used <= self.size);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Takes `bytes` or as many as there are; says how many.
    #[must_use]
    pub(super) fn take_up_to(&self, bytes: u64) -> u64 {
        let room = |used: u64| self.size.saturating_sub(used).min(bytes);
        let more = |used: u64| used.checked_add(room(used)).filter(|_| room(used) > 0);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).map_or(0, room)
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more given back than taken");
    }
}

/// Which part of the RAM tier a piece is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// None: heads, chunk lines, and what is sent at once.
    Free,
    Ordinary,
    Staging,
}

/// The RAM tier.
#[derive(Debug)]
pub(super) struct Ram {
    ordinary: Budget,
    staging: Budget,
    /// The part of `staging` that has nowhere to go for now.
    stranded: AtomicU64,
    contents: AtomicU64,
    spilled: AtomicU64,
    refused: AtomicU64,
}

impl Ram {
    /// `size` in bytes; `with_tiers`: there are tiers to which contents can move on.
    pub(super) fn new(size: u64, with_tiers: bool) -> Self {
        let staging = if with_tiers { (size / STAGING_SHARE).min(STAGING_MOST) } else { 0 };
        Self {
            ordinary: Budget::new(size - staging),
            staging: Budget::new(staging),
            stranded: AtomicU64::new(0),
            contents: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.ordinary.size() + self.staging.size()
    }

    pub(super) fn used(&self) -> u64 {
        self.ordinary.used() + self.staging.used()
    }

    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> bool {
        self.ordinary.take(bytes)
    }

    /// Takes room for `bytes` on their way to a file, or for as many as there is room for.
    #[must_use]
    pub(super) fn take_staging(&self, bytes: u64) -> u64 {
        self.staging.take_up_to(bytes)
    }

    /// Whether staging room is going to come back without anyone's doing: bytes in it are being written.
    pub(super) fn staging_moves(&self) -> bool {
        self.staging_moves_beside(0)
    }

    /// The same, where the caller has just taken `own` bytes that nobody writes yet.
    pub(super) fn staging_moves_beside(&self, own: u64) -> bool {
        self.staging.used().saturating_sub(own) > self.stranded.load(Ordering::SeqCst)
    }

    pub(super) fn give_back(&self, account: Account, bytes: u64) {
        match account {
            Account::Free => {}
            Account::Ordinary => self.ordinary.give_back(bytes),
            Account::Staging => self.staging.give_back(bytes),
        }
    }

    /// Notes that `bytes` of the staging part wait for a tier to recover; [`Ram::moves_again`] takes it back.
    pub(super) fn strand(&self, bytes: u64) {
        self.stranded.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn moves_again(&self, bytes: u64) {
        let before = self.stranded.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more bytes move again than were stranded");
    }

    /// Contents with a byte in the ordinary part.
    pub(super) fn contents(&self) -> u64 {
        self.contents.load(Ordering::Relaxed)
    }

    pub(super) fn content_came(&self) {
        self.contents.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn content_left(&self) {
        self.contents.fetch_sub(1, Ordering::Relaxed);
    }

    /// Contents that moved on to a file tier.
    pub(super) fn spilled_total(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    pub(super) fn content_spilled(&self) {
        self.spilled.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a content came to a halt because neither RAM nor any file tier had room.
    pub(super) fn refused_total(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn content_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Room in the RAM tier, by the part in which it is counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub ordinary: u64,
    pub staging: u64,
}

impl Owed {
    pub(super) fn add(&mut self, account: Account, bytes: u64) {
        match account {
            Account::Free => {}
            Account::Ordinary => self.ordinary += bytes,
            Account::Staging => self.staging += bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_passes_the_size_and_everything_comes_back() {
        let ram = Ram::new(100, true);
        assert!(!ram.take(76));
        assert!(ram.take(75));
        assert_eq!((ram.take_staging(20), ram.take_staging(20), ram.take_staging(20)), (20, 5, 0));
        assert_eq!(ram.used(), 100);
        assert!(ram.staging_moves() && ram.staging_moves_beside(5) && !ram.staging_moves_beside(25));
        ram.strand(25);
        assert!(!ram.staging_moves(), "all of it has nowhere to go");
        ram.moves_again(25);
        ram.give_back(Account::Staging, 25);
        ram.give_back(Account::Ordinary, 75);
        assert_eq!(ram.used(), 0);
    }

    #[test]
    fn without_file_tiers_nothing_is_set_aside() {
        assert!(Ram::new(100, false).take(100));
    }

    #[test]
    fn threads_together_never_pass_the_size() {
        let ram = Arc::new(Ram::new(1000, true));
        let threads: Vec<_> = (0..4_u64)
            .map(|seed| {
                let ram = Arc::clone(&ram);
                std::thread::spawn(move || {
                    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                    for _ in 0..20_000 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let bytes = random >> 56;
                        if random & 1 == 0 {
                            if ram.take(bytes) {
                                assert!(ram.used() <= 1000);
                                ram.give_back(Account::Ordinary, bytes);
                            }
                        } else {
                            let taken = ram.take_staging(bytes);
                            assert!(taken <= bytes && ram.used() <= 1000);
                            ram.give_back(Account::Staging, taken);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(ram.used(), 0);
    }
}
