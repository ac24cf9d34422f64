//! How much of the RAM tier is taken, over all workers. Pure accounting: nothing here holds a byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The RAM tier's account, shared by all workers.
#[derive(Debug)]
pub struct Memory {
    size: u64,
    used: AtomicU64,
    contents: AtomicU64,
    refused: AtomicU64,
}

impl Memory {
    /// `size` in bytes.
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(Self { size, used: AtomicU64::new(0), contents: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Contents that hold some of it now.
    pub fn contents(&self) -> u64 {
        self.contents.load(Ordering::Relaxed)
    }

    pub fn refused_total(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or takes nothing where that would pass the size.
    fn take(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&used| used <= self.size)
        });
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more given back than taken");
    }
}

/// One content's share of the RAM tier; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Reservation {
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, bytes: 0 }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// False: the tier has no room for that many more, and nothing was taken.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        if !self.memory.take(bytes) {
            return false;
        }
        if self.bytes == 0 {
            self.memory.contents.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes += bytes;
        true
    }

    pub fn shrink(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "a content gave back more than it had");
        let bytes = bytes.min(self.bytes);
        if bytes == 0 {
            return;
        }
        self.memory.give_back(bytes);
        self.bytes -= bytes;
        if self.bytes == 0 {
            self.memory.contents.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_the_size_and_everything_comes_back() {
        let memory = Memory::new(100);
        let mut first = Reservation::new(Arc::clone(&memory));
        let mut second = Reservation::new(Arc::clone(&memory));
        assert!(first.grow(60));
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert_eq!((memory.used(), memory.contents(), memory.refused_total()), (100, 2, 1));
        first.shrink(60);
        assert_eq!((memory.used(), memory.contents()), (40, 1));
        drop(first);
        drop(second);
        assert_eq!((memory.used(), memory.contents()), (0, 0));
    }
}
