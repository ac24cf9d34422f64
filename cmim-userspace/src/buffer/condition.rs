//! Whether a tier can be used, and when one that cannot is tried again. Pure: errors and `now` in, decisions out.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// A tier that failed is tried again after this long at first, and twice as long each time …
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// … but a full file system no later than this: looking for room costs one system call …
const LAST_RETRY_FULL: Duration = Duration::from_secs(5);
/// … and a broken one no later than this: a dying drive is not to be hammered.
const LAST_RETRY_BROKEN: Duration = Duration::from_secs(30);
/// A tier that fails again this soon after it recovered goes on with the longer waits.
const RELAPSE: Duration = Duration::from_secs(30);

/// What is wrong with a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file system or the quota is full: what is in the file stays good, and the space it has can be used.
    Full,
    /// The device fails, is read-only or is gone: nothing more is to be written to this file.
    Broken,
}

impl Fault {
    pub(super) fn of(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full,
            _ => Self::Broken,
        }
    }

    fn last_retry(self) -> Duration {
        match self {
            Self::Full => LAST_RETRY_FULL,
            Self::Broken => LAST_RETRY_BROKEN,
        }
    }
}

/// A tier's condition.
#[derive(Debug, Default)]
pub(super) struct Condition {
    bad: Option<Bad>,
    /// When it last became good, and the wait that came before.
    recovered: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Bad {
    fault: Fault,
    reason: String,
    since: Instant,
    tried: Instant,
    wait: Duration,
}

impl Condition {
    /// A call failed. True: the tier was good until now.
    pub(super) fn fail(&mut self, fault: Fault, reason: String, now: Instant) -> bool {
        if let Some(bad) = &mut self.bad {
            // A full file system that turns out to be broken is the worse of the two.
            if bad.fault == Fault::Full && fault == Fault::Broken {
                (bad.fault, bad.reason) = (fault, reason);
            }
            return false;
        }
        let relapse = self.recovered.filter(|(at, _)| now.saturating_duration_since(*at) < RELAPSE);
        let wait = relapse.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(fault.last_retry()));
        self.bad = Some(Bad { fault, reason, since: now, tried: now, wait });
        true
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.bad.as_ref().map(|bad| bad.fault)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.bad.as_ref().map(|bad| bad.reason.as_str())
    }

    /// When to try again; `None`: nothing is wrong.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.bad.as_ref().map(|bad| bad.tried + bad.wait)
    }

    /// A try failed, because of `fault`.
    pub(super) fn failed_again(&mut self, fault: Fault, reason: String, now: Instant) {
        if let Some(bad) = &mut self.bad {
            *bad = Bad { fault, reason, tried: now, wait: (bad.wait * 2).min(fault.last_retry()), ..*bad };
        }
    }

    /// A try succeeded; says for how long the tier was bad.
    pub(super) fn recover(&mut self, now: Instant) -> Option<Duration> {
        let bad = self.bad.take()?;
        self.recovered = Some((now, bad.wait));
        Some(now.saturating_duration_since(bad.since))
    }

    /// Space was given back to a full file system: it is worth trying again soon.
    pub(super) fn hurry(&mut self) {
        if let Some(bad) = self.bad.as_mut().filter(|bad| bad.fault == Fault::Full) {
            bad.wait = bad.wait.min(FIRST_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_tier_is_tried_after_1_2_4_5_5_seconds() {
        let mut now = Instant::now();
        let mut condition = Condition::default();
        assert!(condition.fail(Fault::of(Errno::NOSPC), "full".into(), now));
        assert!(!condition.fail(Fault::Full, "full".into(), now), "it is told once");
        for wait in [1, 2, 4, 5, 5] {
            assert_eq!(condition.retry_at(), Some(now + wait * SECOND));
            now += wait * SECOND;
            condition.failed_again(Fault::Full, "full".into(), now);
        }
        condition.hurry();
        assert_eq!(condition.retry_at(), Some(now + SECOND));
        assert_eq!(condition.recover(now), Some(17 * SECOND));
        assert_eq!((condition.retry_at(), condition.reason()), (None, None));
    }

    #[test]
    fn a_broken_tier_is_tried_every_30_seconds_in_the_end() {
        let mut now = Instant::now();
        let mut condition = Condition::default();
        condition.fail(Fault::of(Errno::IO), "I/O error".into(), now);
        for _ in 0..9 {
            now += 30 * SECOND;
            condition.failed_again(Fault::Broken, "I/O error".into(), now);
        }
        assert_eq!(condition.retry_at(), Some(now + LAST_RETRY_BROKEN));
        condition.hurry();
        assert_eq!(condition.retry_at(), Some(now + LAST_RETRY_BROKEN));
    }

    #[test]
    fn a_tier_that_comes_and_goes_waits_longer_each_time() {
        let now = Instant::now();
        let mut condition = Condition::default();
        condition.fail(Fault::Full, "full".into(), now);
        condition.recover(now + SECOND);
        condition.fail(Fault::Full, "full".into(), now + 2 * SECOND);
        assert_eq!(condition.retry_at(), Some(now + 4 * SECOND));
        condition.recover(now + 4 * SECOND);
        condition.fail(Fault::Full, "full".into(), now + 60 * SECOND);
        assert_eq!(condition.retry_at(), Some(now + 61 * SECOND));
    }

    #[test]
    fn the_worse_of_two_faults_counts() {
        let now = Instant::now();
        let mut condition = Condition::default();
        condition.fail(Fault::Full, "full".into(), now);
        condition.fail(Fault::of(Errno::ROFS), "read-only".into(), now);
        assert_eq!((condition.fault(), condition.reason()), (Some(Fault::Broken), Some("read-only")));
    }
}
