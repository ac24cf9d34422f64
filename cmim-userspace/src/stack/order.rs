//! The order of one client connection's requests.

use std::collections::VecDeque;

/// A request's number on its client connection, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// What a request's method allows (RFC 9112 section 9.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Safe and without content: runs beside its neighbours.
    Free,
    /// Starts when all earlier replies are whole; later requests wait until its own is.
    Barrier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    /// The reply is in the device to its last byte, or is of the device's own making.
    Whole,
}

#[derive(Debug)]
struct Entry {
    turn: Turn,
    stage: Stage,
}

/// Requests from the one whose reply is due to the one read last.
#[derive(Debug)]
pub struct Order {
    /// The request whose reply is due, which is the front of `entries` where there is one.
    due: u64,
    entries: VecDeque<Entry>,
    depth: usize,
}

impl Order {
    /// `depth`: requests read ahead at once, `pipeline_depth`; at least 1.
    pub fn new(depth: usize) -> Self {
        Self { due: 0, entries: VecDeque::new(), depth: depth.max(1) }
    }

    /// Of a connection that has had as many requests already, and each its reply.
    pub fn behind(requests: Seq, depth: usize) -> Self {
        Self { due: requests.0, ..Self::new(depth) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether another request may be read.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.depth
    }

    /// The request whose reply is sent next, whether or not it has been read.
    pub fn due(&self) -> Seq {
        Seq(self.due)
    }

    /// The number of the request that is read next.
    pub fn coming(&self) -> Seq {
        Seq(self.due + self.entries.len() as u64)
    }

    /// A request was read.
    pub fn arrived(&mut self, turn: Turn) -> Seq {
        let seq = self.coming();
        self.entries.push_back(Entry { turn, stage: Stage::Waiting });
        self.check_invariants();
        seq
    }

    /// Whether a request was read and has not started.
    pub fn is_waiting(&self, seq: Seq) -> bool {
        let at = seq.0.checked_sub(self.due);
        at.and_then(|at| self.entries.get(at as usize)).is_some_and(|entry| entry.stage == Stage::Waiting)
    }

    /// The next request that may start; it counts as started.
    pub fn start_next(&mut self) -> Option<Seq> {
        let at = self.entries.iter().position(|entry| entry.stage == Stage::Waiting)?;
        let mut earlier = self.entries.iter().take(at);
        let may_start = match self.entries.get(at)?.turn {
            Turn::Free => earlier.all(|entry| entry.turn == Turn::Free || entry.stage == Stage::Whole),
            Turn::Barrier => earlier.all(|entry| entry.stage == Stage::Whole),
        };
        if !may_start {
            return None;
        }
        self.entries.get_mut(at)?.stage = Stage::Running;
        self.check_invariants();
        Some(Seq(self.due + at as u64))
    }

    /// A running request's reply is whole.
    pub fn whole(&mut self, seq: Seq) {
        let entry = seq.0.checked_sub(self.due).and_then(|at| self.entries.get_mut(at as usize));
        debug_assert!(entry.is_some(), "a reply without a request");
        if let Some(entry) = entry {
            entry.stage = Stage::Whole;
        }
        self.check_invariants();
    }

    /// The due reply was sent to its end: the next one is due.
    pub fn sent(&mut self) {
        let entry = self.entries.pop_front();
        debug_assert!(entry.is_some_and(|entry| entry.stage != Stage::Waiting), "sent before it ran");
        self.due += 1;
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert!(self.entries.len() <= self.depth);
        let mut barrier_open = false;
        for (at, entry) in self.entries.iter().enumerate() {
            debug_assert!(!barrier_open || entry.stage == Stage::Waiting, "request {at} passed a barrier");
            barrier_open |= entry.turn == Turn::Barrier && entry.stage != Stage::Whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_requests_start_at_once_and_a_barrier_waits_for_them() {
        let mut order = Order::new(16);
        let turns = [Turn::Free, Turn::Free, Turn::Barrier, Turn::Free];
        let seqs = turns.map(|turn| order.arrived(turn));
        assert_eq!(order.start_next(), Some(seqs[0]));
        assert_eq!(order.start_next(), Some(seqs[1]));
        assert_eq!(order.start_next(), None);
        order.whole(seqs[1]);
        assert_eq!(order.start_next(), None);
        order.whole(seqs[0]);
        assert_eq!(order.start_next(), Some(seqs[2]));
        assert_eq!(order.start_next(), None);
        order.sent();
        order.sent();
        order.whole(seqs[2]);
        assert_eq!(order.start_next(), Some(seqs[3]));
    }

    #[test]
    fn reading_ahead_stops_at_the_depth() {
        let mut order = Order::new(2);
        order.arrived(Turn::Free);
        assert!(order.has_room());
        order.arrived(Turn::Free);
        assert!(!order.has_room());
        order.start_next();
        order.sent();
        assert!(order.has_room());
        assert_eq!(order.due(), Seq(1));
    }

    #[test]
    fn a_depth_of_one_runs_one_request_at_a_time() {
        let mut order = Order::new(1);
        for number in 0..3 {
            assert_eq!(order.arrived(Turn::Free), Seq(number));
            assert!(!order.has_room());
            assert_eq!(order.start_next(), Some(Seq(number)));
            order.sent();
        }
    }
}
