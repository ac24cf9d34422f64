//! One server's health, learnt from what its connections do and from active probes where there are any.

use std::time::{Duration, Instant};

/// Failures in a row that take a server out where the configuration names none.
pub(super) const DEFAULT_FALL: u32 = 3;
/// Good probes in a row that bring it back where the configuration names none: the next request that works.
pub(super) const DEFAULT_RISE: u32 = 1;
/// A server that was just taken out is left alone this long while others can do its work.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause doubles with each failed probe, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that comes back takes up its full share over this time.
const SLOW_START: Duration = Duration::from_secs(10);
/// The share with which it begins, in thousandths.
const SLOW_START_FLOOR: u64 = 100;

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    Up,
    /// Out; tried again once `probe_at` has passed or where nobody else is up.
    Down {
        probe_at: Instant,
    },
    /// Out, with one request on its way that will tell.
    Probing,
}

/// Counts failures and successes in a row and decides when a server is out and back.
#[derive(Debug, Clone)]
pub(super) struct Health {
    state: HealthState,
    fall: u32,
    rise: u32,
    failures_in_row: u32,
    successes_in_row: u32,
    pause: Duration,
    /// When it came back; `None`: never was out, or long ago.
    risen_at: Option<Instant>,
}

impl Health {
    pub(super) fn new(fall: u32, rise: u32) -> Self {
        Self {
            state: HealthState::Up,
            fall: fall.max(1),
            rise: rise.max(1),
            failures_in_row: 0,
            successes_in_row: 0,
            pause: FIRST_PAUSE,
            risen_at: None,
        }
    }

    /// Takes other bounds over; what was counted so far counts on.
    pub(super) fn set_bounds(&mut self, fall: u32, rise: u32) {
        (self.fall, self.rise) = (fall.max(1), rise.max(1));
    }

    pub(super) fn state(&self) -> HealthState {
        self.state
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == HealthState::Up
    }

    /// Whether the pause after the last failure is over, so that a probe may go out although others are up.
    pub(super) fn probe_is_due(&self, now: Instant) -> bool {
        matches!(self.state, HealthState::Down { probe_at } if now >= probe_at)
    }

    /// A request goes to a server that is out, as the one probe.
    pub(super) fn begin_probe(&mut self) {
        debug_assert!(matches!(self.state, HealthState::Down { .. }));
        self.state = HealthState::Probing;
    }

    /// The probe ended without telling anything (its client left): somebody else may try.
    pub(super) fn abandon_probe(&mut self, now: Instant) {
        if self.state == HealthState::Probing {
            self.state = HealthState::Down { probe_at: now };
        }
    }

    /// The server answered.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.failures_in_row = 0;
        if self.state == HealthState::Up {
            return;
        }
        self.successes_in_row += 1;
        if self.successes_in_row >= self.rise {
            self.state = HealthState::Up;
            self.pause = FIRST_PAUSE;
            self.risen_at = Some(now);
        } else {
            self.state = HealthState::Down { probe_at: now };
        }
    }

    /// A connection to the server failed. True: it was up and is out now.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.successes_in_row = 0;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        match self.state {
            HealthState::Up if self.failures_in_row < self.fall => false,
            HealthState::Up => {
                self.pause = FIRST_PAUSE;
                self.state = HealthState::Down { probe_at: now + self.pause };
                true
            }
            HealthState::Down { .. } | HealthState::Probing => {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.state = HealthState::Down { probe_at: now + self.pause };
                false
            }
        }
    }

    /// The share of its weight that the server takes now, in thousandths.
    pub(super) fn share(&self, now: Instant) -> u64 {
        let Some(risen_at) = self.risen_at else { return 1000 };
        let up_for = now.saturating_duration_since(risen_at);
        if up_for >= SLOW_START {
            return 1000;
        }
        let grown = up_for.as_millis() as u64 * 1000 / SLOW_START.as_millis() as u64;
        grown.max(SLOW_START_FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_out_after_fall_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut health = Health::new(3, 1);
        assert!(!health.failed(now));
        assert!(!health.failed(now));
        health.succeeded(now);
        assert!(!health.failed(now));
        assert!(!health.failed(now));
        assert!(health.failed(now));
        assert!(!health.is_up());
    }

    #[test]
    fn comes_back_after_rise_good_probes_and_starts_slowly() {
        let now = Instant::now();
        let mut health = Health::new(1, 2);
        health.failed(now);
        assert!(!health.probe_is_due(now));
        let later = now + FIRST_PAUSE;
        assert!(health.probe_is_due(later));
        health.begin_probe();
        health.succeeded(later);
        assert!(!health.is_up());
        health.begin_probe();
        health.succeeded(later);
        assert!(health.is_up());
        assert_eq!(health.share(later), SLOW_START_FLOOR);
        assert_eq!(health.share(later + SLOW_START / 2), 500);
        assert_eq!(health.share(later + SLOW_START), 1000);
    }

    #[test]
    fn the_pause_between_probes_doubles_up_to_its_bound() {
        let mut now = Instant::now();
        let mut health = Health::new(1, 1);
        health.failed(now);
        for _ in 0..10 {
            now += LONGEST_PAUSE;
            assert!(health.probe_is_due(now));
            health.begin_probe();
            health.failed(now);
            assert!(!health.probe_is_due(now));
        }
        assert!(health.probe_is_due(now + LONGEST_PAUSE));
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_go_at_once() {
        let now = Instant::now();
        let mut health = Health::new(1, 1);
        health.failed(now);
        health.begin_probe();
        health.abandon_probe(now);
        assert!(health.probe_is_due(now));
    }
}
