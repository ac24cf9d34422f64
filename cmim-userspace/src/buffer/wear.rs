//! How much is written to a tier: in total and within a day. Pure: bytes and `now` in.

use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
const HOURS: usize = 24;

/// Bytes written to one tier.
#[derive(Debug)]
pub(super) struct Wear {
    total: u64,
    /// By the hour, the present one at `hour % HOURS`.
    by_hour: [u64; HOURS],
    hour: u64,
    since: Instant,
}

impl Wear {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: 0, by_hour: [0; HOURS], hour: 0, since: now }
    }

    pub(super) fn wrote(&mut self, bytes: u64, now: Instant) {
        self.turn(now);
        self.total += bytes;
        if let Some(hour) = self.by_hour.get_mut(self.hour as usize % HOURS) {
            *hour += bytes;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of the present hour and the 23 before it.
    pub(super) fn last_day(&mut self, now: Instant) -> u64 {
        self.turn(now);
        self.by_hour.iter().sum()
    }

    fn turn(&mut self, now: Instant) {
        let hour = now.saturating_duration_since(self.since).as_secs() / HOUR.as_secs();
        let passed = hour.saturating_sub(self.hour).min(HOURS as u64);
        for past in 0..passed {
            if let Some(old) = self.by_hour.get_mut((hour - past) as usize % HOURS) {
                *old = 0;
            }
        }
        self.hour = self.hour.max(hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_days_bytes_are_forgotten_hour_by_hour() {
        let start = Instant::now();
        let mut wear = Wear::new(start);
        for hour in 0..30 {
            wear.wrote(1 << hour, start + hour * HOUR);
        }
        let expected: u64 = (6..30).map(|hour| 1 << hour).sum();
        assert_eq!(wear.last_day(start + 29 * HOUR), expected);
        assert_eq!(wear.last_day(start + 52 * HOUR), 1 << 29);
        assert_eq!(wear.last_day(start + 53 * HOUR), 0);
        assert_eq!(wear.last_day(start + 5300 * HOUR), 0);
        assert_eq!(wear.total(), (1 << 30) - 1);
    }
}
