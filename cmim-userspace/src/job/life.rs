//! The states of a request in the device, and the ledger that counts the requests in each.

use std::fmt;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its head is read; it waits for earlier requests of its connection, or for the rest of its content.
    Received,
    /// It waits for a server with room.
    Queued,
    /// A server has it.
    Dispatched,
    /// Its reply's head is known.
    Replying,
    /// A server's reply went out whole.
    Done,
    /// It ended with a reply of the device's own making, or its reply was cut.
    Failed,
    /// Its client left, or the operator stopped it.
    Cancelled,
}

impl State {
    /// The legal transitions of a job's life.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use State::{Cancelled, Dispatched, Done, Failed, Queued, Received, Replying};
        match (self, next) {
            (Received, Queued | Dispatched | Replying)
            | (Queued, Dispatched | Replying)
            // Back: the server did not answer and the request is tried again.
            | (Dispatched, Queued | Dispatched | Replying)
            // Back: the response turned out to be broken before any of it was sent. Another takes its place, or the
            // request is tried again.
            | (Replying, Queued | Dispatched | Replying | Done)
            | (Received | Queued | Dispatched | Replying, Failed | Cancelled) => true,
            (Received | Queued | Dispatched | Replying, _) | (Done | Failed | Cancelled, _) => false,
        }
    }

    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Replying => "replying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many requests are where. A request belongs to one ledger from its first state to its last, so that
/// `received = queued + active + done + failed + cancelled` holds after every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    pub received: u64,
    pub queued: u64,
    /// Received, dispatched or replying.
    pub active: u64,
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
}

impl Ledger {
    /// A request came in.
    pub fn enter(&mut self) {
        self.received += 1;
        self.active += 1;
        self.check_invariants();
    }

    /// A request went on from one state to the next.
    pub fn step(&mut self, from: State, to: State) {
        debug_assert!(from.may_become(to), "{from} cannot become {to}");
        *self.place(from) -= 1;
        *self.place(to) += 1;
        self.check_invariants();
    }

    #[must_use]
    pub fn finished(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }

    /// Adds another worker's figures.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.queued += other.queued;
        self.active += other.active;
        self.done += other.done;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.check_invariants();
    }

    fn place(&mut self, state: State) -> &mut u64 {
        match state {
            State::Received | State::Dispatched | State::Replying => &mut self.active,
            State::Queued => &mut self.queued,
            State::Done => &mut self.done,
            State::Failed => &mut self.failed,
            State::Cancelled => &mut self.cancelled,
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.received, self.queued + self.active + self.finished());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, proptest};

    use super::*;

    const ALL: [State; 7] = [
        State::Received,
        State::Queued,
        State::Dispatched,
        State::Replying,
        State::Done,
        State::Failed,
        State::Cancelled,
    ];

    #[test]
    fn a_finished_job_stays_finished_and_every_other_can_still_fail() {
        for state in ALL {
            for next in ALL {
                assert!(!(state.is_finished() && state.may_become(next)), "{state} became {next}");
            }
            assert_eq!(state.may_become(State::Cancelled), !state.is_finished());
            assert!(!state.may_become(State::Received));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever happens to whichever job, the ledger's sums hold (its own checks say so) and match a plain count.
        #[test]
        fn the_sums_hold_after_any_legal_steps(choices in proptest::collection::vec(any::<(u8, u8)>(), 0..200)) {
            let mut ledger = Ledger::default();
            let mut jobs: Vec<State> = Vec::new();
            for (job, to) in choices {
                if job < 64 {
                    ledger.enter();
                    jobs.push(State::Received);
                } else if let Some(at) = (!jobs.is_empty()).then(|| usize::from(job) % jobs.len()) {
                    let next = ALL[usize::from(to) % ALL.len()];
                    if jobs[at].may_become(next) {
                        ledger.step(jobs[at], next);
                        jobs[at] = next;
                    }
                }
            }
            let count = |wanted: &[State]| jobs.iter().filter(|state| wanted.contains(state)).count() as u64;
            assert_eq!(ledger.received, jobs.len() as u64);
            assert_eq!(ledger.queued, count(&[State::Queued]));
            assert_eq!(ledger.active, count(&[State::Received, State::Dispatched, State::Replying]));
            assert_eq!(ledger.finished(), count(&[State::Done, State::Failed, State::Cancelled]));
        }
    }
}
