//! What the data path counts.
//!
//! Owns one [`Counters`] for each worker, written with relaxed atomics by that worker alone, and their sum, [`Totals`],
//! read by the control socket, `/metrics` and the status page. It knows neither HTTP nor sockets; what a figure means is
//! said by [`crate::control::message`], whose names these follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::histogram::{Histogram, HistogramTotals};
use crate::control::message::{ClientConnections, Jobs, Lane, Lanes, Replies, Stacked, Status};
use crate::job::Ledger;

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A figure that grows and shrinks.
///
/// One worker may count up what another counts down (an idle server connection that changes hands), so a single worker's
/// gauge wraps below zero; only the sum over all workers is a number of things.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One lane's figures.
#[derive(Debug, Default)]
pub struct LaneCounters {
    pub active: Gauge,
    /// Contents and tunnels carried.
    pub splices: Counter,
    /// Content bytes carried.
    pub bytes: Counter,
}

#[derive(Debug, Default)]
pub struct LanesCounters {
    pub copy: LaneCounters,
    pub pipe: LaneCounters,
    pub sockmap: LaneCounters,
    pub local: LaneCounters,
}

/// The statuses of replies of the device's own making that are counted one by one; any other counts as 0.
pub const REFUSAL_STATUSES: [u16; 12] = [400, 405, 408, 413, 414, 431, 501, 502, 503, 504, 505, 0];

/// Replies of the device's own making, by status.
#[derive(Debug, Default)]
pub struct Refusals([Counter; REFUSAL_STATUSES.len()]);

impl Refusals {
    pub fn count(&self, status: u16) {
        let listed = REFUSAL_STATUSES.iter().zip(&self.0);
        for (name, counter) in listed {
            if *name == status || *name == 0 {
                counter.add(1);
                return;
            }
        }
    }
}

/// One worker's counters. Aligned so that two workers never write to one cache line (128: adjacent-line prefetch).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    pub client_accepted: Counter,
    pub client_open: Gauge,
    /// Under one lock, so that its sums hold whenever it is read; only the worker itself and a reader now and then take
    /// it.
    pub jobs: Mutex<Ledger>,
    /// From a request head's first byte to its reply's last.
    pub request_duration: Histogram,

    pub replies_rewritten: Counter,
    pub replies_streamed: Counter,
    pub replies_spilled: Counter,
    pub replies_local: Counter,
    pub trailers_dropped: Counter,
    pub refusals: Refusals,

    pub server_opened: Counter,
    pub server_reused: Counter,
    /// Requests sent behind another one on its connection; each of them reused it.
    pub server_pipelined: Counter,
    pub server_open: Gauge,

    pub stacked_noticed: Counter,
    pub stacked_distributed: Counter,
    pub stacked_in_flight: Gauge,

    /// Attempts within the retry budget.
    pub retries: Counter,
    /// Attempts on a fresh connection because a reused one was already closed; not part of `retries`.
    pub stale_retries: Counter,
    /// Requests sent again because their connection ended, or was held up, while they stood behind others on it.
    pub pipelined_again: Counter,

    pub lanes: LanesCounters,

    /// Access log lines lost to a full buffer or a failing file.
    pub access_log_dropped: Counter,
}

/// One lane's sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneTotals {
    pub active: u64,
    pub splices: u64,
    pub bytes: u64,
}

/// The sum of all workers' [`Counters`]; field by field the same names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub client_accepted: u64,
    pub client_open: u64,
    pub jobs: Ledger,
    pub request_duration: HistogramTotals,
    pub replies_rewritten: u64,
    pub replies_streamed: u64,
    pub replies_spilled: u64,
    pub replies_local: u64,
    pub trailers_dropped: u64,
    /// In the order of [`REFUSAL_STATUSES`].
    pub refusals: [u64; REFUSAL_STATUSES.len()],
    pub server_opened: u64,
    pub server_reused: u64,
    pub server_pipelined: u64,
    pub server_open: u64,
    pub stacked_noticed: u64,
    pub stacked_distributed: u64,
    pub stacked_in_flight: u64,
    pub retries: u64,
    pub stale_retries: u64,
    pub pipelined_again: u64,
    pub lane_copy: LaneTotals,
    pub lane_pipe: LaneTotals,
    pub lane_sockmap: LaneTotals,
    pub lane_local: LaneTotals,
    pub access_log_dropped: u64,
}

/// Adds up the counters of all workers.
#[must_use]
pub fn sum(all: &[Arc<Counters>]) -> Totals {
    let mut totals = Totals::default();
    for counters in all {
        totals.add(counters);
    }
    // Read at slightly different moments, a pair of workers can look as if less than nothing were open.
    for gauge in totals.gauges() {
        if (*gauge).cast_signed() < 0 {
            *gauge = 0;
        }
    }
    totals
}

impl Totals {
    fn add(&mut self, counters: &Counters) {
        for (total, counter) in self.counter_pairs(counters) {
            *total = total.wrapping_add(counter.get());
        }
        for (total, gauge) in self.gauge_pairs(counters) {
            *total = total.wrapping_add(gauge.get());
        }
        for (total, counter) in self.refusals.iter_mut().zip(&counters.refusals.0) {
            *total = total.wrapping_add(counter.get());
        }
        self.jobs.add(&counters.jobs.lock());
        self.request_duration.add(&counters.request_duration);
        let lanes = &counters.lanes;
        self.lane_copy.add(&lanes.copy);
        self.lane_pipe.add(&lanes.pipe);
        self.lane_sockmap.add(&lanes.sockmap);
        self.lane_local.add(&lanes.local);
    }

    fn counter_pairs<'a>(&'a mut self, counters: &'a Counters) -> [(&'a mut u64, &'a Counter); 15] {
        [
            (&mut self.client_accepted, &counters.client_accepted),
            (&mut self.replies_rewritten, &counters.replies_rewritten),
            (&mut self.replies_streamed, &counters.replies_streamed),
            (&mut self.replies_spilled, &counters.replies_spilled),
            (&mut self.replies_local, &counters.replies_local),
            (&mut self.trailers_dropped, &counters.trailers_dropped),
            (&mut self.server_opened, &counters.server_opened),
            (&mut self.server_reused, &counters.server_reused),
            (&mut self.server_pipelined, &counters.server_pipelined),
            (&mut self.stacked_noticed, &counters.stacked_noticed),
            (&mut self.stacked_distributed, &counters.stacked_distributed),
            (&mut self.retries, &counters.retries),
            (&mut self.stale_retries, &counters.stale_retries),
            (&mut self.pipelined_again, &counters.pipelined_again),
            (&mut self.access_log_dropped, &counters.access_log_dropped),
        ]
    }

    fn gauge_pairs<'a>(&'a mut self, counters: &'a Counters) -> [(&'a mut u64, &'a Gauge); 3] {
        [
            (&mut self.client_open, &counters.client_open),
            (&mut self.server_open, &counters.server_open),
            (&mut self.stacked_in_flight, &counters.stacked_in_flight),
        ]
    }

    fn gauges(&mut self) -> [&mut u64; 7] {
        [
            &mut self.client_open,
            &mut self.server_open,
            &mut self.stacked_in_flight,
            &mut self.lane_copy.active,
            &mut self.lane_pipe.active,
            &mut self.lane_sockmap.active,
            &mut self.lane_local.active,
        ]
    }

    /// Each listed status with its count.
    pub fn refusals_by_status(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        REFUSAL_STATUSES.iter().copied().zip(self.refusals.iter().copied())
    }

    /// Writes into `status` every figure that these totals know; idle server connections, buffers, kernel part and
    /// servers are for its caller.
    pub fn fill(&self, status: &mut Status) {
        status.client_connections = ClientConnections { open: self.client_open, accepted_total: self.client_accepted };
        status.server_connections.open = self.server_open;
        status.server_connections.opened_total = self.server_opened;
        status.server_connections.reused_total = self.server_reused;
        status.server_connections.pipelined_total = self.server_pipelined;
        status.requests_total = self.jobs.received;
        status.replies = Replies {
            rewritten_total: self.replies_rewritten,
            streamed_total: self.replies_streamed,
            spilled_total: self.replies_spilled,
            local_total: self.replies_local,
            trailers_dropped_total: self.trailers_dropped,
        };
        status.stacked = Stacked {
            noticed_total: self.stacked_noticed,
            distributed_total: self.stacked_distributed,
            in_flight: self.stacked_in_flight,
        };
        status.jobs = Jobs {
            active: self.jobs.active,
            queued: self.jobs.queued,
            done_total: self.jobs.finished(),
            failed_total: self.jobs.failed,
            cancelled_total: self.jobs.cancelled,
        };
        status.lanes = Lanes {
            copy: self.lane_copy.message(),
            pipe: self.lane_pipe.message(),
            sockmap: self.lane_sockmap.message(),
            local: self.lane_local.message(),
        };
    }
}

impl LaneTotals {
    fn add(&mut self, lane: &LaneCounters) {
        self.active = self.active.wrapping_add(lane.active.get());
        self.splices = self.splices.wrapping_add(lane.splices.get());
        self.bytes = self.bytes.wrapping_add(lane.bytes.get());
    }

    fn message(self) -> Lane {
        Lane { active: self.active, splices_total: self.splices, bytes_total: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_counted_up_here_and_down_there_is_zero_in_the_sum() {
        let (here, there) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        here.server_open.inc();
        here.server_open.inc();
        there.server_open.dec();
        assert_eq!(sum(&[Arc::clone(&here), Arc::clone(&there)]).server_open, 1);
        there.server_open.dec();
        assert_eq!(sum(&[Arc::clone(&here), Arc::clone(&there)]).server_open, 0);
        assert_eq!(sum(&[there]).server_open, 0, "a torn reading never shows a huge number");
    }

    #[test]
    fn refusals_count_under_their_status_and_unlisted_ones_under_zero() {
        let counters = Arc::new(Counters::default());
        counters.refusals.count(502);
        counters.refusals.count(502);
        counters.refusals.count(418);
        let counted: Vec<_> = sum(&[counters]).refusals_by_status().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(502, 2), (0, 1)]);
    }

    #[test]
    fn every_counter_reaches_the_status() {
        let counters = Arc::new(Counters::default());
        counters.client_accepted.add(3);
        counters.client_open.inc();
        for _ in 0..7 {
            counters.jobs.lock().enter();
        }
        counters.replies_rewritten.add(2);
        counters.server_reused.add(5);
        counters.lanes.sockmap.bytes.add(1 << 20);
        let mut status = Status::default();
        sum(&[counters]).fill(&mut status);
        assert_eq!(status.client_connections, ClientConnections { open: 1, accepted_total: 3 });
        assert_eq!(status.requests_total, 7);
        assert_eq!(status.replies.rewritten_total, 2);
        assert_eq!(status.server_connections.reused_total, 5);
        assert_eq!(status.lanes.sockmap.bytes_total, 1 << 20);
        assert_eq!(status.jobs.active, 7);
    }
}
