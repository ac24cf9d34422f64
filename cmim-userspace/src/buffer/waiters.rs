//! Contents that wait for room, woken in the order in which they came.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Whoever gives this many bytes back wakes one content more: about what one takes at a time.
const BYTES_PER_WAITER: u64 = 64 * 1024;

/// A queue of wakers. A waiter registers and then looks for room once more; room is given back before [`Waiters::wake`]
/// looks into the queue: so no room comes unseen.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<(u64, Waker)>>,
    next: AtomicU64,
}

impl Waiters {
    /// Names a waiter.
    pub(super) fn name(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Wakes `waker` when there is room; a name that waits already keeps its place.
    pub(super) fn register(&self, name: u64, waker: &Waker) {
        let mut queue = self.queue.lock();
        match queue.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => old.clone_from(waker),
            None => queue.push_back((name, waker.clone())),
        }
        self.waiting.store(queue.len(), Ordering::SeqCst);
    }

    /// No longer waits. False: it was woken already, and has perhaps not made use of it.
    pub(super) fn forget(&self, name: u64) -> bool {
        let mut queue = self.queue.lock();
        let at = queue.iter().position(|(other, _)| *other == name);
        let found = at.and_then(|at| queue.remove(at)).is_some();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        found
    }

    /// `bytes` of room have come.
    pub(super) fn wake(&self, bytes: u64) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_first(usize::try_from(bytes / BYTES_PER_WAITER).unwrap_or(usize::MAX).saturating_add(1));
        }
    }

    /// Things have changed for all.
    pub(super) fn wake_all(&self) {
        self.wake_first(usize::MAX);
    }

    fn wake_first(&self, count: usize) {
        let mut queue = self.queue.lock();
        let count = count.min(queue.len());
        let woken: Vec<(u64, Waker)> = queue.drain(..count).collect();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        for (_, waker) in woken {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn room_wakes_as_many_as_it_can_serve_in_their_order() {
        let waiters = Waiters::default();
        let counts: Vec<Arc<Count>> = (0..4).map(|_| Arc::default()).collect();
        for (name, count) in (0..).zip(&counts) {
            waiters.register(name, &Waker::from(Arc::clone(count)));
        }
        let woken = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        waiters.wake(BYTES_PER_WAITER);
        assert_eq!(woken(), [1, 1, 0, 0]);
        assert!(!waiters.forget(0));
        assert!(waiters.forget(2));
        waiters.wake_all();
        assert_eq!(woken(), [1, 1, 0, 1]);
    }
}
