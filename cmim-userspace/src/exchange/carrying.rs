//! A content or tunnel on its lane, counted.

use crate::observe::counters::LaneCounters;

/// Counts a content or tunnel on a lane while it is on its way, also where it is dropped in the middle.
#[derive(Debug)]
pub(super) struct Carrying<'a>(&'a LaneCounters);

impl<'a> Carrying<'a> {
    pub(super) fn begin(lane: &'a LaneCounters) -> Self {
        lane.active.inc();
        Self(lane)
    }

    /// It has carried `bytes`.
    pub(super) fn end(self, bytes: u64) {
        self.0.splices.add(1);
        self.0.bytes.add(bytes);
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}
