//! One server's health: what its requests find out about it, and what the active checks do where there are any.
//!
//! Each takes a server out for itself. What requests took out is tried again by one request at a time, or found well by
//! `rise` good checks in a row; what the checks took out only they bring back, however well it answers otherwise.

use std::time::{Duration, Instant};

/// Failures in a row that take a server out where the configuration names none.
const DEFAULT_FALL: u32 = 3;
/// Good ones in a row that bring it back where the configuration names none: the next request that works.
const DEFAULT_RISE: u32 = 1;
/// A server that was just taken out is left alone this long while others can do its work. Short, because most that die are
/// started again at once, and until then those that are left have the requests of all.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// At least so long is the pause behind a probe that reached the server and got no response: it cost its client time, or
/// the response. One that was refused cost nothing.
const COSTLY_PAUSE: Duration = Duration::from_secs(2);
/// The pause doubles with each failed probe, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server of which a connection failed is avoided this long by requests that were sent before, also while it is not out,
/// unless it answers somebody meanwhile.
const SUSPECT_FOR: Duration = Duration::from_secs(1);
/// A server that comes back takes up its full share over this time.
const SLOW_START: Duration = Duration::from_secs(10);
/// The share with which it begins, in thousandths.
const SLOW_START_FLOOR: u64 = 100;

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    Up,
    /// Out; tried again after a pause, or where nobody else is up.
    Down,
    /// Out, with one request on its way that will tell.
    Probing,
}

/// After how many in a row a server falls and rises, and who counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub fall: u32,
    pub rise: u32,
    /// There are active checks.
    pub checked: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { fall: DEFAULT_FALL, rise: DEFAULT_RISE, checked: false }
    }
}

/// Counts what fails and works in a row and decides when a server is out and back.
#[derive(Debug, Clone)]
pub(super) struct Health {
    bounds: Bounds,
    found: Found,
    failures_in_row: u32,
    /// Of the probes since it fell.
    successes_in_row: u32,
    /// When a connection last failed, if the server has not answered since.
    failed_at: Option<Instant>,
    pause: Duration,
    checks: Checks,
    /// When it came back; `None`: never was out, or long ago.
    risen_at: Option<Instant>,
}

/// What requests found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Up,
    Down { probe_at: Instant },
    Probing,
}

/// What the active checks found.
#[derive(Debug, Clone, Copy, Default)]
struct Checks {
    bad_in_row: u32,
    good_in_row: u32,
    /// They have taken the server out.
    out: bool,
}

impl Health {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            found: Found::Up,
            failures_in_row: 0,
            successes_in_row: 0,
            failed_at: None,
            pause: FIRST_PAUSE,
            checks: Checks::default(),
            risen_at: None,
        }
    }

    /// Takes other bounds over; what was counted so far counts on, as long as there is somebody who counts.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        if !bounds.checked {
            self.checks = Checks::default();
        }
    }

    pub(super) fn state(&self) -> HealthState {
        match self.found {
            Found::Probing => HealthState::Probing,
            Found::Up if !self.checks.out => HealthState::Up,
            Found::Up | Found::Down { .. } => HealthState::Down,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state() == HealthState::Up
    }

    /// Whether a connection failed just now: the server may be dead although it is not out yet, or out and not back yet.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < SUSPECT_FOR)
    }

    /// Whether the pause after the last failure is over, so that a probe may go out although others are up.
    pub(super) fn probe_is_due(&self, now: Instant) -> bool {
        !self.checks.out && matches!(self.found, Found::Down { probe_at } if now >= probe_at)
    }

    /// A request goes to a server that is out, as the one probe.
    pub(super) fn begin_probe(&mut self) {
        debug_assert_eq!(self.state(), HealthState::Down);
        self.found = Found::Probing;
    }

    /// The probe ended without telling anything (its client left): somebody else may try.
    pub(super) fn abandon_probe(&mut self, now: Instant) {
        if self.found == Found::Probing {
            self.found = Found::Down { probe_at: now };
        }
    }

    /// The server answered the probe.
    pub(super) fn probe_succeeded(&mut self, now: Instant) {
        if self.found != Found::Probing {
            return self.succeeded();
        }
        self.successes_in_row += 1;
        if self.successes_in_row >= self.bounds.rise {
            self.rise(now);
        } else {
            self.found = Found::Down { probe_at: now };
        }
    }

    /// The probe got no response over its connection: the next one waits twice as long, and not only for a moment.
    pub(super) fn probe_failed(&mut self, now: Instant) {
        self.probe_was_for_nothing(COSTLY_PAUSE, now);
    }

    /// The probe got no connection: the next one waits twice as long.
    pub(super) fn probe_refused(&mut self, now: Instant) {
        self.probe_was_for_nothing(FIRST_PAUSE, now);
    }

    fn probe_was_for_nothing(&mut self, least: Duration, now: Instant) {
        if self.found != Found::Probing {
            return self.failed(now);
        }
        self.failed_at = Some(now);
        self.pause = (self.pause * 2).clamp(least, LONGEST_PAUSE);
        self.fall(now);
    }

    /// The server answered a request that is no probe. While it is out that says nothing of now: the request went out
    /// before.
    pub(super) fn succeeded(&mut self) {
        if self.found == Found::Up {
            self.failures_in_row = 0;
            self.failed_at = None;
        }
    }

    /// A connection of a request that is no probe failed. While it is out that is nothing new.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.found != Found::Up {
            return;
        }
        self.failed_at = Some(now);
        self.failures_in_row += 1;
        if self.failures_in_row >= self.bounds.fall {
            self.pause = FIRST_PAUSE;
            self.fall(now);
        }
    }

    /// An active check ended.
    pub(super) fn checked(&mut self, well: bool, now: Instant) {
        let checks = &mut self.checks;
        if well {
            checks.bad_in_row = 0;
            checks.good_in_row = checks.good_in_row.saturating_add(1);
            if checks.good_in_row >= self.bounds.rise && !self.is_up() {
                self.rise(now);
            }
        } else {
            checks.good_in_row = 0;
            checks.bad_in_row = checks.bad_in_row.saturating_add(1);
            checks.out |= checks.bad_in_row >= self.bounds.fall;
        }
    }

    fn fall(&mut self, now: Instant) {
        self.successes_in_row = 0;
        self.checks.good_in_row = 0;
        self.found = Found::Down { probe_at: now + self.pause };
    }

    fn rise(&mut self, now: Instant) {
        self.found = Found::Up;
        self.failures_in_row = 0;
        self.failed_at = None;
        self.successes_in_row = 0;
        self.checks.out &= self.checks.good_in_row < self.bounds.rise;
        self.risen_at = Some(now);
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

    fn health(fall: u32, rise: u32) -> Health {
        Health::new(Bounds { fall, rise, checked: true })
    }

    #[test]
    fn goes_out_after_fall_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut health = health(3, 1);
        for _ in 0..2 {
            health.failed(now);
            health.failed(now);
            assert!(health.is_up());
            health.succeeded();
        }
        (0..3).for_each(|_| health.failed(now));
        assert!(!health.is_up());
    }

    #[test]
    fn one_failure_makes_a_server_suspect_until_it_answers_or_a_second_has_passed() {
        let now = Instant::now();
        let mut health = health(3, 1);
        assert!(!health.is_suspect(now));
        health.failed(now);
        assert!(health.is_up() && health.is_suspect(now));
        assert!(!health.is_suspect(now + SUSPECT_FOR));
        health.succeeded();
        assert!(!health.is_suspect(now));
        (0..3).for_each(|_| health.failed(now));
        health.succeeded();
        assert!(health.is_suspect(now), "it answered a request that went out before");
        health.begin_probe();
        health.probe_succeeded(now);
        assert!(!health.is_suspect(now));
    }

    #[test]
    fn comes_back_after_rise_good_probes_and_starts_slowly() {
        let now = Instant::now();
        let mut health = health(1, 2);
        health.failed(now);
        assert!(!health.probe_is_due(now));
        let later = now + FIRST_PAUSE;
        assert!(health.probe_is_due(later));
        health.begin_probe();
        health.probe_succeeded(later);
        assert!(!health.is_up());
        health.begin_probe();
        health.probe_succeeded(later);
        assert!(health.is_up());
        assert_eq!(health.share(later), SLOW_START_FLOOR);
        assert_eq!(health.share(later + SLOW_START / 2), 500);
        assert_eq!(health.share(later + SLOW_START), 1000);
    }

    #[test]
    fn the_pause_between_probes_doubles_up_to_its_bound() {
        let mut now = Instant::now();
        let mut health = health(1, 1);
        health.failed(now);
        for _ in 0..10 {
            now += LONGEST_PAUSE;
            assert!(health.probe_is_due(now));
            health.begin_probe();
            health.probe_failed(now);
            assert!(!health.probe_is_due(now));
        }
        assert!(health.probe_is_due(now + LONGEST_PAUSE));
    }

    #[test]
    fn a_probe_that_is_refused_is_soon_followed_by_the_next_and_one_without_a_response_is_not() {
        let mut now = Instant::now();
        let mut health = health(1, 1);
        health.failed(now);
        now += FIRST_PAUSE;
        health.begin_probe();
        health.probe_refused(now);
        now += FIRST_PAUSE * 2;
        assert!(health.probe_is_due(now));
        health.begin_probe();
        health.probe_failed(now);
        assert!(!health.probe_is_due(now + COSTLY_PAUSE / 2));
        now += COSTLY_PAUSE;
        assert!(health.probe_is_due(now));
        health.begin_probe();
        health.probe_refused(now);
        assert!(!health.probe_is_due(now + COSTLY_PAUSE));
        assert!(health.probe_is_due(now + COSTLY_PAUSE * 2));
    }

    #[test]
    fn failures_of_requests_that_were_on_their_way_make_no_pause_longer() {
        let now = Instant::now();
        let mut health = health(3, 1);
        (0..20).for_each(|_| health.failed(now));
        assert!(health.probe_is_due(now + FIRST_PAUSE));
    }

    #[test]
    fn answers_to_requests_that_went_out_before_bring_nothing_back() {
        let now = Instant::now();
        let mut health = health(1, 1);
        health.failed(now);
        health.succeeded();
        assert_eq!(health.state(), HealthState::Down);
        health.begin_probe();
        health.succeeded();
        assert_eq!(health.state(), HealthState::Probing);
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_go_at_once() {
        let now = Instant::now();
        let mut health = health(1, 1);
        health.failed(now);
        health.begin_probe();
        health.abandon_probe(now);
        assert!(health.probe_is_due(now));
    }

    #[test]
    fn what_the_checks_took_out_no_request_brings_back() {
        let now = Instant::now();
        let mut health = health(3, 2);
        for _ in 0..3 {
            // Its users' requests still work.
            health.succeeded();
            assert!(health.is_up());
            health.checked(false, now);
        }
        assert_eq!(health.state(), HealthState::Down);
        assert!(!health.probe_is_due(now + LONGEST_PAUSE), "no request finds out");
        // Where all are out, one goes all the same.
        health.begin_probe();
        health.probe_succeeded(now);
        health.begin_probe();
        health.probe_succeeded(now);
        assert_eq!(health.state(), HealthState::Down);
        health.checked(true, now);
        assert!(!health.is_up());
        health.checked(true, now);
        assert!(health.is_up());
        assert_eq!(health.share(now), SLOW_START_FLOOR);
    }

    #[test]
    fn good_checks_bring_back_what_requests_took_out() {
        let now = Instant::now();
        let mut health = health(1, 2);
        health.checked(true, now);
        health.failed(now);
        health.checked(true, now);
        assert!(!health.is_up(), "the one before the failure does not count");
        assert!(!health.probe_is_due(now), "a good check does not shorten the pause");
        health.checked(true, now);
        assert!(health.is_up());
    }

    #[test]
    fn without_checks_what_they_found_is_forgotten() {
        let now = Instant::now();
        let mut health = health(1, 1);
        health.checked(false, now);
        assert!(!health.is_up());
        health.set_bounds(Bounds::default());
        assert!(health.is_up());
    }
}
