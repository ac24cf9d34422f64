//! How many retries an upstream affords, so that a failing server is not buried under its own retries.
//!
//! Owns the counts of the last ten seconds. It must not know why a request is sent again: the exchange decides that, and
//! asks here whether it may.

use std::time::{Duration, Instant};

/// Retries may be this part of the requests: one in five.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries within the window that also a quiet upstream may make: ten a second. When one of two servers dies, half of all
/// requests that wait are sent again at once, and no request of a quiet upstream has earned that.
const RESERVE: u64 = 100;
/// One part of the window.
const SLOT: Duration = Duration::from_secs(1);
/// The window: ten seconds, the present one included.
const SLOTS: usize = 10;

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    requests: u64,
    retries: u64,
}

/// A window over the last ten seconds, in parts of a second.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    slots: [Slot; SLOTS],
    /// The present one.
    at: usize,
    /// When it began; `None` before the first request.
    since: Option<Instant>,
    /// The sums over all slots.
    total: Slot,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { slots: [Slot::default(); SLOTS], at: 0, since: None, total: Slot::default() }
    }
}

impl RetryBudget {
    /// A request came, which is no retry.
    pub fn earn(&mut self, now: Instant) {
        self.turn_to(now);
        self.slots[self.at].requests += 1;
        self.total.requests += 1;
        self.check_invariants();
    }

    /// Pays for one retry, or says that there is none left.
    #[must_use]
    pub fn spend(&mut self, now: Instant) -> bool {
        self.turn_to(now);
        if self.total.retries >= RESERVE.max(self.total.requests / REQUESTS_PER_RETRY) {
            return false;
        }
        self.slots[self.at].retries += 1;
        self.total.retries += 1;
        self.check_invariants();
        true
    }

    /// Makes the slot of `now` the present one. An earlier `now` than the last, of another thread, counts as the last.
    fn turn_to(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let gone = now.saturating_duration_since(since);
        if gone < SLOT {
            return;
        }
        let steps = gone.as_secs();
        if steps >= SLOTS as u64 {
            *self = Self { since: Some(now), ..Self::default() };
            return;
        }
        for _ in 0..steps {
            self.at = (self.at + 1) % SLOTS;
            let old = std::mem::take(&mut self.slots[self.at]);
            self.total.requests -= old.requests;
            self.total.retries -= old.retries;
        }
        self.since = Some(since + SLOT * steps as u32);
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.total.requests, self.slots.iter().map(|slot| slot.requests).sum::<u64>());
        debug_assert_eq!(self.total.retries, self.slots.iter().map(|slot| slot.retries).sum::<u64>());
        debug_assert!(self.at < SLOTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend_all(budget: &mut RetryBudget, now: Instant) -> u64 {
        (0..100_000).take_while(|_| budget.spend(now)).count() as u64
    }

    #[test]
    fn a_quiet_upstream_has_its_reserve_once_in_ten_seconds() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        assert_eq!(spend_all(&mut budget, start), RESERVE);
        assert_eq!(spend_all(&mut budget, start + SLOT * 9), 0);
        assert_eq!(spend_all(&mut budget, start + SLOT * 10), RESERVE);
        assert_eq!(spend_all(&mut budget, start + SLOT * 10_000), RESERVE);
    }

    #[test]
    fn a_fifth_of_the_requests_of_the_last_ten_seconds_is_saved_up_and_no_more() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        for second in 0..60 {
            (0..1000).for_each(|_| budget.earn(start + SLOT * second));
        }
        assert_eq!(spend_all(&mut budget, start + SLOT * 59), 2000);
        // A second later the requests of the oldest second count no more, nor do new ones yet.
        assert_eq!(spend_all(&mut budget, start + SLOT * 60), 0);
        (0..2000).for_each(|_| budget.earn(start + SLOT * 60));
        assert_eq!(spend_all(&mut budget, start + SLOT * 60), 200);
    }

    #[test]
    fn retries_that_fail_again_and_again_stay_a_fifth_of_the_requests() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for request in 0..10_000 {
            let now = start + Duration::from_micros(100) * request;
            budget.earn(now);
            retries += (0..2).filter(|_| budget.spend(now)).count();
        }
        assert_eq!(retries, 2000);
    }

    #[test]
    fn a_clock_of_another_thread_that_is_behind_does_no_harm() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        budget.earn(start + SLOT * 5);
        budget.earn(start);
        assert!(budget.spend(start));
        assert_eq!(budget.total, Slot { requests: 2, retries: 1 });
    }

    #[test]
    fn the_sums_are_those_of_the_slots_whatever_the_steps() {
        let mut now = Instant::now();
        let mut budget = RetryBudget::default();
        for step in 0..2000_u32 {
            now += Duration::from_millis(u64::from(step * 7919 % 2500));
            budget.earn(now);
            let _: bool = budget.spend(now);
        }
        assert!(budget.total.requests <= 2000 && budget.total.retries <= RESERVE);
    }
}
