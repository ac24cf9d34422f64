//! How long the run will still take: each benchmark has an estimate, and what has passed says how good those are here.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::seconds;

#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// Seconds expected of all benchmarks of this run.
    total: f64,
    position: Mutex<Position>,
}

/// In expected seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    done: f64,
    current: f64,
    share: f64,
}

impl Clock {
    pub(crate) fn start(total: f64) -> Self {
        Self { started: Instant::now(), total, position: Mutex::default() }
    }

    /// The next benchmark begins; the last one is over.
    pub(crate) fn begin(&self, expected: f64) {
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        *position = Position { done: position.done + position.current, current: expected, share: 0.0 };
    }

    /// So many rounds of the current benchmark are over.
    pub(crate) fn reached(&self, round: usize, rounds: usize) {
        let share = f64::from(u32::try_from(round).unwrap_or(0)) / f64::from(u32::try_from(rounds.max(1)).unwrap_or(1));
        self.position.lock().unwrap_or_else(PoisonError::into_inner).share = share;
    }

    fn left(&self) -> Duration {
        let position = *self.position.lock().unwrap_or_else(PoisonError::into_inner);
        left(self.total, position.done + position.current * position.share, self.started.elapsed().as_secs_f64())
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {} left", seconds(self.left()))
    }
}

/// The estimate counts until a tenth is done; from there on the pace so far.
fn left(total: f64, done: f64, elapsed: f64) -> Duration {
    let rest = (total - done).max(0.0);
    let pace = if done > total * 0.1 { elapsed / done } else { 1.0 };
    Duration::from_secs_f64(rest * pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_so_far_corrects_the_estimate() {
        assert_eq!(left(100.0, 0.0, 3.0), Duration::from_secs(100));
        assert_eq!(left(100.0, 50.0, 100.0), Duration::from_secs(100));
        assert_eq!(left(100.0, 120.0, 100.0), Duration::ZERO);
    }
}
