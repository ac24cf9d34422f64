//! Which extents of a tier's file are taken. Pure: numbers in, numbers out; nothing here touches the file.
//!
//! An extent is free, taken, freed or being cleared. A freed one must not be taken again before its pages are out of the
//! page cache: sendfile(2) hands those very pages to the socket, and a reader that has not drained its socket would see
//! the next content's bytes in them. Clearing (punching the extent out of the file) replaces the pages, and gives
//! the space back to the file system.

use std::collections::BTreeSet;
use std::ops::Range;

/// Extents of one file, by number.
#[derive(Debug)]
pub(super) struct Extents {
    count: u32,
    /// From here on none was taken since the file was last empty above.
    fresh: u32,
    /// Below `fresh`, free.
    free: BTreeSet<u32>,
    freed: BTreeSet<u32>,
    clearing: u32,
    taken: u32,
    retired: bool,
}

/// What has become of an extent that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freed {
    /// It has to be cleared first.
    ToBeCleared,
    /// The file is on its way out and is cleared as a whole.
    AtOnce,
}

impl Extents {
    pub(super) fn new(count: u32) -> Self {
        Self { count, fresh: 0, free: BTreeSet::new(), freed: BTreeSet::new(), clearing: 0, taken: 0, retired: false }
    }

    /// Takes an extent, the one behind `after` where that is free: a content's bytes lie in sequence.
    pub(super) fn take(&mut self, after: Option<u32>) -> Option<u32> {
        if self.retired {
            return None;
        }
        let next = after.and_then(|after| after.checked_add(1));
        let found = next
            .filter(|next| self.free.remove(next))
            .or_else(|| next.filter(|&next| next == self.fresh).and_then(|_| self.take_fresh()))
            .or_else(|| self.free.pop_first())
            .or_else(|| self.take_fresh())?;
        self.taken += 1;
        self.check_invariants();
        Some(found)
    }

    fn take_fresh(&mut self) -> Option<u32> {
        (self.fresh < self.count).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    pub(super) fn give_back(&mut self, extent: u32) -> Freed {
        debug_assert!(extent < self.fresh && !self.free.contains(&extent), "an extent that was not taken came back");
        self.taken -= 1;
        if self.retired {
            return Freed::AtOnce;
        }
        self.freed.insert(extent);
        self.check_invariants();
        Freed::ToBeCleared
    }

    /// Extents that will be free once they are cleared.
    pub(super) fn to_be_cleared(&self) -> bool {
        !self.freed.is_empty() || self.clearing > 0
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    /// The next freed extents in one run, at most `most`; [`Extents::cleared`] or [`Extents::not_cleared`] ends it.
    pub(super) fn begin_clearing(&mut self, most: u32) -> Option<Range<u32>> {
        let start = self.freed.pop_first()?;
        let mut end = start + 1;
        while end - start < most && self.freed.remove(&end) {
            end += 1;
        }
        self.clearing += end - start;
        self.check_invariants();
        Some(start..end)
    }

    pub(super) fn cleared(&mut self, run: Range<u32>) {
        self.clearing -= run.end - run.start;
        self.free.extend(run);
        while self.fresh > 0 && self.free.remove(&(self.fresh - 1)) {
            self.fresh -= 1;
        }
        self.check_invariants();
    }

    pub(super) fn not_cleared(&mut self, run: Range<u32>) {
        self.clearing -= run.end - run.start;
        self.freed.extend(run);
        self.check_invariants();
    }

    /// Takes the file out of use: no extent is taken or cleared any more. Says how many would have had to be cleared.
    pub(super) fn retire(&mut self) -> u32 {
        self.retired = true;
        std::mem::take(&mut self.freed).len() as u32
    }

    fn check_invariants(&self) {
        let below = self.free.len() as u64 + self.freed.len() as u64 + u64::from(self.clearing) + u64::from(self.taken);
        debug_assert_eq!(below, u64::from(self.fresh), "every extent below `fresh` is in exactly one state");
        debug_assert!(self.fresh <= self.count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_freed_extent_is_not_taken_again_before_it_is_cleared() {
        let mut extents = Extents::new(2);
        let (first, second) = (extents.take(None).unwrap(), extents.take(None).unwrap());
        assert_eq!((first, second, extents.take(None)), (0, 1, None));
        assert_eq!(extents.give_back(first), Freed::ToBeCleared);
        assert_eq!(extents.take(None), None);
        let run = extents.begin_clearing(8).unwrap();
        assert_eq!(extents.take(None), None);
        assert!(extents.to_be_cleared());
        extents.cleared(run);
        assert_eq!(extents.take(None), Some(0));
    }

    #[test]
    fn a_content_gets_the_extent_behind_its_last_one() {
        let mut extents = Extents::new(8);
        for _ in 0..6 {
            extents.take(None);
        }
        for extent in [1, 4] {
            extents.give_back(extent);
        }
        while let Some(run) = extents.begin_clearing(8) {
            extents.cleared(run);
        }
        assert_eq!(extents.take(Some(3)), Some(4));
        assert_eq!(extents.take(Some(5)), Some(6));
        assert_eq!(extents.take(Some(2)), Some(1));
    }

    #[test]
    fn neighbours_are_cleared_in_one_run() {
        let mut extents = Extents::new(8);
        for _ in 0..6 {
            extents.take(None);
        }
        for extent in [4, 1, 2, 3] {
            extents.give_back(extent);
        }
        assert_eq!(extents.begin_clearing(3), Some(1..4));
        assert_eq!(extents.begin_clearing(3), Some(4..5));
        extents.not_cleared(1..4);
        assert_eq!(extents.begin_clearing(8), Some(1..4));
    }

    #[test]
    fn a_retired_file_takes_nothing_and_clears_nothing() {
        let mut extents = Extents::new(4);
        for _ in 0..3 {
            extents.take(None);
        }
        extents.give_back(0);
        assert_eq!(extents.retire(), 1);
        assert_eq!((extents.take(None), extents.begin_clearing(8)), (None, None));
        assert_eq!(extents.give_back(1), Freed::AtOnce);
        assert_eq!(extents.taken(), 1);
    }

    proptest! {
        #[test]
        fn no_extent_is_ever_taken_twice(steps in prop::collection::vec((0_u8..4, any::<u32>()), 1..300)) {
            let mut extents = Extents::new(16);
            let (mut taken, mut runs) = (Vec::new(), Vec::new());
            for (step, choice) in steps {
                match step {
                    0 => if let Some(extent) = extents.take((choice % 3 > 0).then_some(choice % 16)) {
                        prop_assert!(extent < 16 && !taken.contains(&extent));
                        prop_assert!(!runs.iter().any(|run: &Range<u32>| run.contains(&extent)));
                        taken.push(extent);
                    },
                    1 if !taken.is_empty() => {
                        let extent = taken.swap_remove(choice as usize % taken.len());
                        extents.give_back(extent);
                    }
                    2 => runs.extend(extents.begin_clearing(choice % 5 + 1)),
                    _ => if let Some(run) = runs.pop() {
                        if choice % 4 == 0 { extents.not_cleared(run) } else { extents.cleared(run) }
                    },
                }
                prop_assert_eq!(extents.taken() as usize, taken.len());
            }
            for extent in taken { extents.give_back(extent); }
            for run in runs { extents.cleared(run); }
            while let Some(run) = extents.begin_clearing(4) { extents.cleared(run); }
            prop_assert_eq!(extents.fresh, 0);
        }
    }
}
