//! The choice of the worker that takes a new connection.
//!
//! Pure. The daemon's workers keep their open connections in `CMIM_WORKERS`, which they share with the kernel as memory;
//! the sk_reuseport program asks here which of them has the fewest.

use core::mem::{align_of, size_of};

/// The value of `CMIM_WORKERS`, one for each worker. As large as a cache line, so that workers do not slow each other
/// down by writing.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worker {
    /// Client connections that it has open. Written by the worker.
    pub open: u64,
    /// Times it was chosen for connections that it has not accepted yet. The program adds, the worker takes off.
    pub chosen: u64,
    pub reserved: [u64; 6],
}

/// Workers that connections can be spread over. The program looks at each of them for each SYN; a device with more
/// leaves the choice to the kernel's hash.
pub const MAX_WORKERS: usize = 64;

/// Listener addresses with a row of sockets in `CMIM_LISTENING`. Connections to further ones are spread by hash.
pub const MAX_ROWS: usize = 128;

/// Entries of `CMIM_LISTENING`.
pub const MAX_LISTENING: usize = MAX_ROWS * MAX_WORKERS;

/// Where the socket of `worker` stands in the row of a listener's address.
#[inline(always)]
#[must_use]
pub const fn place(row: u32, worker: u32) -> u32 {
    row.wrapping_mul(MAX_WORKERS as u32).wrapping_add(worker)
}

/// The least busy of the workers that were looked at so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Least {
    pub worker: u32,
    load: u64,
}

impl Least {
    /// The first that is looked at.
    #[inline(always)]
    #[must_use]
    pub const fn of(worker: u32, open: u64, chosen: u64) -> Self {
        Self { worker, load: open.saturating_add(chosen) }
    }

    /// Looks at one more. Of equals the first stays: begin with another one each time.
    #[inline(always)]
    pub const fn consider(&mut self, worker: u32, open: u64, chosen: u64) {
        let other = Self::of(worker, open, chosen);
        if other.load < self.load {
            *self = other;
        }
    }
}

const _: () = {
    assert!(size_of::<Worker>() == 64);
    assert!(align_of::<Worker>() == 8);
};

#[cfg(test)]
mod tests {
    use super::{Least, MAX_LISTENING, MAX_ROWS, MAX_WORKERS, place};

    fn least(loads: &[(u64, u64)]) -> u32 {
        let (open, chosen) = loads[0];
        let mut least = Least::of(0, open, chosen);
        for (worker, (open, chosen)) in (0..).zip(loads).skip(1) {
            least.consider(worker, *open, *chosen);
        }
        least.worker
    }

    #[test]
    fn the_worker_with_the_fewest_is_taken_and_those_under_way_count() {
        assert_eq!(least(&[(3, 0), (1, 0), (2, 0)]), 1);
        assert_eq!(least(&[(3, 0), (1, 5), (2, 0)]), 2);
        assert_eq!(least(&[(3, 0), (u64::MAX, u64::MAX)]), 0);
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        assert_eq!(least(&[(2, 0), (1, 1), (0, 2)]), 0);
    }

    #[test]
    fn places_of_all_rows_and_workers_fit_the_map_and_none_is_shared() {
        let (rows, workers) = (MAX_ROWS as u32, MAX_WORKERS as u32);
        let mut places: std::vec::Vec<_> =
            (0..rows).flat_map(|row| (0..workers).map(move |worker| place(row, worker))).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), MAX_LISTENING);
        assert_eq!(places.last(), Some(&(MAX_LISTENING as u32 - 1)));
    }
}
