//! One server's idle connections, over all workers.

use std::time::{Duration, Instant};

/// An idle connection and what decides whether it is taken.
#[derive(Debug)]
pub struct Idle<C> {
    pub connection: C,
    /// The worker whose event loop watches it.
    pub worker: usize,
    pub since: Instant,
}

/// The idle connections of one server. The one used last is taken first: it is the least likely to be closed by the
/// server, and those that a lower load does not need grow old and leave.
#[derive(Debug)]
pub struct Pool<C> {
    idle: Vec<Idle<C>>,
    most: usize,
    keep: Duration,
}

impl<C> Pool<C> {
    /// `most`: idle connections kept at once. `keep`: how long one may idle.
    pub fn new(most: usize, keep: Duration) -> Self {
        Self { idle: Vec::new(), most, keep }
    }

    pub fn len(&self) -> usize {
        self.idle.len()
    }

    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// The youngest connection of this worker, else the youngest of any other.
    pub fn take(&mut self, worker: usize) -> Option<Idle<C>> {
        let own = self.idle.iter().rposition(|idle| idle.worker == worker);
        match own {
            Some(position) => Some(self.idle.remove(position)),
            None => self.idle.pop(),
        }
    }

    /// Keeps a connection, or gives back the one that has to go for it: the oldest.
    pub fn put(&mut self, idle: Idle<C>) -> Option<Idle<C>> {
        if self.most == 0 {
            return Some(idle);
        }
        let surplus = (self.idle.len() >= self.most).then(|| self.idle.remove(0));
        self.idle.push(idle);
        surplus
    }

    /// Takes out what has idled too long and what `is_dead` says of this worker's own connections.
    pub fn sweep(&mut self, worker: usize, now: Instant, mut is_dead: impl FnMut(&C) -> bool) -> Vec<Idle<C>> {
        let keep = self.keep;
        self.idle
            .extract_if(.., |idle| {
                now.saturating_duration_since(idle.since) >= keep
                    || (idle.worker == worker && is_dead(&idle.connection))
            })
            .collect()
    }

    /// Takes other bounds over; what comes back are the oldest that are too many now.
    pub fn set_bounds(&mut self, most: usize, keep: Duration) -> Vec<Idle<C>> {
        (self.most, self.keep) = (most, keep);
        let surplus = self.idle.len().saturating_sub(most);
        self.idle.drain(..surplus).collect()
    }

    /// Empties the pool: the server is leaving.
    pub fn drain(&mut self) -> Vec<Idle<C>> {
        std::mem::take(&mut self.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(connection: u32, worker: usize, since: Instant) -> Idle<u32> {
        Idle { connection, worker, since }
    }

    #[test]
    fn a_worker_takes_its_own_youngest_first_and_another_workers_before_none() {
        let now = Instant::now();
        let mut pool = Pool::new(8, Duration::from_secs(60));
        for (connection, worker) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
            assert!(pool.put(idle(connection, worker, now)).is_none());
        }
        let order: Vec<u32> = std::iter::from_fn(|| pool.take(0)).map(|idle| idle.connection).collect();
        assert_eq!(order, [3, 1, 4, 2]);
    }

    #[test]
    fn a_full_pool_gives_back_its_oldest() {
        let now = Instant::now();
        let mut pool = Pool::new(2, Duration::from_secs(60));
        pool.put(idle(1, 0, now));
        pool.put(idle(2, 0, now));
        assert_eq!(pool.put(idle(3, 0, now)).map(|idle| idle.connection), Some(1));
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn a_pool_of_none_keeps_none() {
        let mut pool = Pool::new(0, Duration::from_secs(60));
        assert!(pool.put(idle(1, 0, Instant::now())).is_some());
    }

    #[test]
    fn a_sweep_takes_the_old_of_all_and_the_dead_of_its_own_worker() {
        let now = Instant::now();
        let keep = Duration::from_secs(10);
        let mut pool = Pool::new(8, keep);
        pool.put(idle(1, 1, now));
        pool.put(idle(2, 0, now + keep / 2));
        pool.put(idle(3, 1, now + keep / 2));
        let gone: Vec<u32> = pool.sweep(0, now + keep, |_| true).into_iter().map(|idle| idle.connection).collect();
        assert_eq!(gone, [1, 2]);
        assert_eq!(pool.len(), 1);
    }
}
