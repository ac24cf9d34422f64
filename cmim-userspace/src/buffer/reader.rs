//! The thread of a tier that brings bytes into the page cache before a worker sends them, and its queue.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::extent::Extent;
use super::tier::Tier;

/// Room for reading what the page cache lacks; the bytes themselves are of no interest.
const SCRATCH: usize = 256 * 1024;

/// A range of a file that is to be in the page cache.
#[derive(Debug)]
pub(super) struct Fetch {
    extent: Arc<Extent>,
    /// In the file.
    pub range: Range<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: Option<Result<(), Errno>>,
    waiting: Option<Waker>,
}

impl Fetch {
    /// Asks for `range`, which lies in `extent`. Dropping what this returns takes the wish back.
    pub(super) fn ask(extent: &Arc<Extent>, range: Range<u64>) -> Arc<Self> {
        let fetch = Arc::new(Self { extent: Arc::clone(extent), range, state: Mutex::default() });
        extent.tier.fetches.put(Arc::clone(&fetch));
        fetch
    }

    /// Whether it brings what is at `offset` of `extent`'s file.
    pub(super) fn brings(&self, extent: &Arc<Extent>, offset: u64) -> bool {
        Arc::ptr_eq(&self.extent, extent) && self.range.contains(&offset)
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), Errno>> {
        let mut state = self.state.lock();
        if let Some(done) = state.done {
            return Poll::Ready(done);
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn done(&self, outcome: Result<(), Errno>) {
        let mut state = self.state.lock();
        state.done = Some(outcome);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// What a tier's reading thread has to do.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// `None`: the thread is to end.
    queue: Mutex<Option<VecDeque<Arc<Fetch>>>>,
    came: Condvar,
}

impl Fetches {
    pub(super) fn begin(&self) {
        self.queue.lock().get_or_insert_default();
    }

    fn put(&self, fetch: Arc<Fetch>) {
        match self.queue.lock().as_mut() {
            Some(queue) => queue.push_back(fetch),
            None => fetch.done(Err(Errno::CANCELED)),
        }
        self.came.notify_one();
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        *self.queue.lock() = None;
        self.came.notify_one();
    }

    fn next(&self) -> Option<Arc<Fetch>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(fetch) = queue.as_mut()?.pop_front() {
                return Some(fetch);
            }
            self.came.wait(&mut queue);
        }
    }
}

/// Works for `tier` until it is told to end.
pub(super) fn run(tier: &Arc<Tier>) {
    let mut scratch = vec![0; SCRATCH];
    while let Some(fetch) = tier.fetches.next() {
        if Arc::strong_count(&fetch) == 1 {
            continue;
        }
        let outcome = fetch.extent.spool.fetch(&fetch.range, &mut scratch);
        if let Err(errno) = outcome {
            tier.fail(errno);
        }
        fetch.done(outcome);
    }
}
