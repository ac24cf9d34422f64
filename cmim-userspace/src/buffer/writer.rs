//! The thread of a tier that writes and clears, and its queue.
//!
//! Writes go first, so that RAM comes back soon; clearing goes in between, and first of all once the tier has no extent
//! left. Bytes that fail to be written are placed again in another tier by this thread, whatever their content does.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::space::Space;
use super::spool::Spool;
use super::tier::Tier;
use super::write::Write;

/// Freed extents wait for this many writes at most.
const WRITES_BEFORE_CLEARING: u32 = 8;
/// Bytes that one call clears at most, so that writes do not wait long behind it.
const CLEAR_MOST: u64 = 64 << 20;

/// What a tier's thread has to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writes: VecDeque<Arc<Write>>,
    writes_since_clearing: u32,
    /// Clearing failed: it waits for the tier's next try.
    clearing_failed: bool,
    over: bool,
}

enum Task {
    Write(Arc<Write>),
    Clear(Arc<Spool>, Range<u32>),
    Retry,
}

impl Work {
    pub(super) fn put(&self, write: Arc<Write>) {
        self.state.lock().writes.push_back(write);
        self.came.notify_one();
    }

    /// Something else than a write came up.
    pub(super) fn look(&self) {
        // Whoever is about to wait has looked already or sees it: it looks under this lock.
        drop(self.state.lock());
        self.came.notify_one();
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
        self.came.notify_one();
    }

    /// Waits for the next task; `None`: there will be none.
    fn next(&self, tier: &Tier) -> Option<Task> {
        let most = u32::try_from(CLEAR_MOST / tier.extent_size()).unwrap_or(u32::MAX).max(1);
        let mut state = self.state.lock();
        loop {
            if state.over {
                // Dropped without the lock: an extent that goes with them looks in here.
                let left = std::mem::take(&mut state.writes);
                drop(state);
                drop(left);
                return None;
            }
            let retry_at = tier.retry_at();
            if retry_at.is_some_and(|at| at <= Instant::now()) {
                state.clearing_failed = false;
                return Some(Task::Retry);
            }
            let clears = state.writes.is_empty()
                || state.writes_since_clearing >= WRITES_BEFORE_CLEARING
                || tier.is_out_of_extents();
            if clears && !state.clearing_failed {
                state.writes_since_clearing = 0;
                if let Some((spool, run)) = tier.begin_clearing(most) {
                    return Some(Task::Clear(spool, run));
                }
            }
            if let Some(write) = state.writes.pop_front() {
                state.writes_since_clearing += 1;
                return Some(Task::Write(write));
            }
            match retry_at {
                Some(at) => {
                    self.came.wait_until(&mut state, at);
                }
                None => self.came.wait(&mut state),
            }
        }
    }
}

/// Works for `tier` until it is told to end.
pub(super) fn run(space: &Arc<Space>, tier: &Arc<Tier>) {
    while let Some(task) = tier.work.next(tier) {
        match task {
            Task::Write(write) => carry_out(space, tier, &write),
            Task::Clear(spool, run) => clear(space, tier, &spool, run),
            Task::Retry => {
                if tier.retry() {
                    space.recovered();
                }
            }
        }
        tier.close_retired();
    }
}

fn carry_out(space: &Space, tier: &Tier, write: &Arc<Write>) {
    let Some((pieces, place)) = write.begin() else { return };
    let extent = &place.extent;
    let put = || -> Result<(), Option<Errno>> {
        if !extent.takes_more() {
            return Err(None);
        }
        if !extent.is_allocated() {
            extent.spool.allocate(extent.number)?;
            extent.set_allocated();
        }
        Ok(extent.spool.write(&pieces, place.range.start)?)
    };
    let outcome = put();
    // Before it is settled: what is given back is not to be held here a moment longer.
    drop(pieces);
    match outcome {
        Ok(()) => {
            tier.wrote(place.range.end - place.range.start);
            write.written();
        }
        Err(errno) => {
            extent.set_failed();
            if let Some(errno) = errno {
                tier.fail(errno);
            }
            space.place_again(write);
        }
    }
}

fn clear(space: &Space, tier: &Tier, spool: &Spool, run: Range<u32>) {
    match spool.clear(&run) {
        Ok(()) => {
            let bytes = tier.cleared(spool, run);
            space.got_room(bytes);
        }
        Err(errno) => {
            spool.extents.lock().not_cleared(run);
            tier.work.state.lock().clearing_failed = true;
            tier.fail(errno);
        }
    }
}
