//! One job's way through its states, counted in the worker's ledger and listed with its connection.

use std::sync::Arc;

use bytes::Bytes;

use super::link::Link;
use super::site::Site;
use super::trail::Trail;
use crate::h1::{Method, RequestHead};
use crate::job::State;
use crate::observe::counters::Counters;
use crate::observe::roll::Record;
use crate::stack::Seq;

/// A job from its entry to its end; dropped before that, it was cancelled.
#[derive(Debug)]
pub struct Progress {
    counters: Arc<Counters>,
    record: Arc<Record>,
    seq: Seq,
    state: State,
    /// It came behind another request of its connection.
    stacked: bool,
}

impl Progress {
    /// `head`: `None` where the request could not be parsed.
    pub fn begin(site: &Site, link: &Link, seq: Seq, head: Option<&RequestHead>, trail: &Trail) -> Self {
        site.counters.jobs.lock().enter();
        let stacked = trail.stacked > 1;
        if stacked {
            site.counters.stacked_noticed.add(1);
            site.counters.stacked_in_flight.inc();
        }
        let (method, target) =
            head.map_or((Method::Other(Bytes::new()), Bytes::new()), |head| (head.method.clone(), head.target.clone()));
        link.record.job_begins(seq, trail.began, method, target);
        Self {
            counters: Arc::clone(&site.counters),
            record: Arc::clone(&link.record),
            seq,
            state: State::Received,
            stacked,
        }
    }

    pub fn to(&mut self, next: State) {
        if !self.step(next) {
            return;
        }
        if next.is_finished() {
            if self.stacked {
                self.counters.stacked_in_flight.dec();
            }
            self.record.job_ends(self.seq);
        } else {
            self.record.job_becomes(self.seq, next);
        }
    }

    /// It goes to a server.
    pub fn dispatched(&mut self, server: &Arc<str>) {
        self.step(State::Dispatched);
        self.record.job_dispatched(self.seq, server);
    }

    /// Counts the step from the present state to `next`; false: there is none.
    fn step(&mut self, next: State) -> bool {
        let is_step = self.state != next;
        if is_step {
            self.counters.jobs.lock().step(self.state, next);
            self.state = next;
        }
        is_step
    }

    /// Whether the job has come to its end.
    pub fn has_ended(&self) -> bool {
        self.state.is_finished()
    }

    /// The lane on which its content or tunnel is.
    pub fn takes(&self, lane: &'static str) {
        self.record.job_takes(self.seq, lane);
    }

    pub fn has(&self, bytes: u64, tier: &'static str) {
        self.record.job_has(self.seq, bytes, tier);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.state.is_finished() {
            self.to(State::Cancelled);
        }
    }
}
