//! Letting other programs have the CPU before a busy worker sleeps.
//!
//! Where clients, servers and the device share CPUs, what the others make of a batch is there by the time the worker
//! has the CPU again: it goes on with a larger batch, and a sleep and a wake-up are saved on each side. Where nobody
//! else is ready to run it costs a system call. Beside a program that never sleeps it would cost that program's whole
//! turn, so that is found out and not tried again for a while.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::lane::turns_taken;

/// So many requests and replies since the worker slept are a batch; a request now and then is answered sooner by sleeping.
const BATCH: u32 = 8;
/// Others that take a batch of their own are done in less.
const TURN: Duration = Duration::from_millis(1);
/// After a longer one the next try waits this long, and twice as long each time, up to a bound.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// So many short turns in a row, and long ones are forgotten. Beside a program that never sleeps some are short, too.
const FORGOTTEN_AFTER: u32 = 64;

thread_local! {
    static YIELDING: RefCell<Yielding> = RefCell::new(Yielding::new(Instant::now()));
}

/// The thread's event loop is about to sleep.
pub(super) fn before_sleep() {
    if turns_taken() < BATCH {
        return;
    }
    YIELDING.with_borrow_mut(|yielding| {
        let before = Instant::now();
        if yielding.is_due(before) {
            rustix::thread::sched_yield();
            let after = Instant::now();
            yielding.took(after - before, after);
        }
    });
}

/// Decides when to yield.
#[derive(Debug)]
struct Yielding {
    not_before: Instant,
    pause: Duration,
    short_in_row: u32,
}

impl Yielding {
    fn new(now: Instant) -> Self {
        Self { not_before: now, pause: FIRST_PAUSE, short_in_row: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.not_before
    }

    /// The others had the CPU for `turn`.
    fn took(&mut self, turn: Duration, now: Instant) {
        if turn <= TURN {
            self.short_in_row = self.short_in_row.saturating_add(1);
            if self.short_in_row >= FORGOTTEN_AFTER {
                self.pause = FIRST_PAUSE;
            }
            return;
        }
        self.short_in_row = 0;
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_program_that_never_sleeps_it_is_tried_ever_more_seldom() {
        let start = Instant::now();
        let mut now = start;
        let mut yielding = Yielding::new(now);
        let mut tries = 0;
        while now < start + Duration::from_secs(600) {
            if yielding.is_due(now) {
                tries += 1;
                // Every other time its turn is nearly over.
                let turn = if tries % 2 == 0 { TURN * 3 } else { TURN / 2 };
                now += turn;
                yielding.took(turn, now);
            }
            now += Duration::from_millis(10);
        }
        assert!((20..50).contains(&tries), "{tries} in ten minutes");
    }

    #[test]
    fn once_the_others_sleep_again_a_long_turn_is_soon_forgotten() {
        let now = Instant::now();
        let mut yielding = Yielding::new(now);
        (0..20).for_each(|_| yielding.took(TURN * 3, now));
        assert!(!yielding.is_due(now + LONGEST_PAUSE / 2));
        let later = now + LONGEST_PAUSE;
        assert!(yielding.is_due(later));
        (0..FORGOTTEN_AFTER).for_each(|_| yielding.took(TURN / 2, later));
        assert!(yielding.is_due(later));
        yielding.took(TURN * 3, later);
        assert!(yielding.is_due(later + FIRST_PAUSE));
    }
}
