//! Waiting for something to become true, with an end to the patience.

use std::thread;
use std::time::{Duration, Instant};

/// What any single step of a test may take unless it says otherwise; generous, for a machine with two busy CPUs.
pub const PATIENCE: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(5);

/// Asks `ready` until it yields something; panics with `what` once `patience` has passed.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        thread::sleep(POLL);
    }
}

/// [`until`] for a condition.
#[track_caller]
pub fn until_true(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) {
    until(what, patience, || ready().then_some(()));
}

/// Holds `calm` to be true for the whole of `span`: for what must not happen.
#[track_caller]
pub fn throughout(what: &str, span: Duration, mut calm: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(calm(), "did not hold for {span:?}: {what}");
        thread::sleep(POLL);
    }
}
