//! A content or tunnel on its lane, counted.

use super::progress::Progress;
use super::site::Site;
use crate::lane::Lane;
use crate::net::Stream;
use crate::observe::counters::LaneCounters;

/// Counts a content or tunnel on a lane while it is on its way, also where it is dropped in the middle.
#[derive(Debug)]
pub(super) struct Carrying<'a>(&'a LaneCounters);

impl<'a> Carrying<'a> {
    /// `from`: the server's connection. What is copied from one on the local lane is counted as copied, and listed under
    /// the lane that it came by.
    pub(super) fn begin(site: &'a Site, lane: Lane, from: &Stream, progress: &Progress) -> Self {
        let lanes = &site.counters.lanes;
        let (counters, name) = match lane {
            Lane::Copy if matches!(from, Stream::Local(_)) => (&lanes.copy, "local"),
            Lane::Copy => (&lanes.copy, "copy"),
            Lane::Pipe => (&lanes.pipe, "pipe"),
            Lane::Sockmap => (&lanes.sockmap, "sockmap"),
        };
        counters.active.inc();
        progress.takes(name);
        Self(counters)
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
