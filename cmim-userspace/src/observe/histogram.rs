//! Durations counted into fixed buckets.
//!
//! Owns the bucket bounds and the atomics of one worker's histogram; knows nothing of what is timed. The data path calls
//! [`Histogram::observe`]; the status page and `/metrics` read the sum over all workers from [`HistogramTotals`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds, inclusive. From a reply out of a local cache to a long download, a factor of about 2.5
/// between neighbours, so that a percentile read from them is off by no more than that.
pub const BUCKET_BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

/// The bounds' buckets and one for everything above them.
const BUCKETS: usize = BUCKET_BOUNDS_MICROS.len() + 1;

/// One worker's histogram.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// The sum of several workers' histograms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    buckets: [u64; BUCKETS],
    sum_micros: u64,
}

impl HistogramTotals {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, count) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total = total.wrapping_add(count.load(Ordering::Relaxed));
        }
        self.sum_micros = self.sum_micros.wrapping_add(histogram.sum_micros.load(Ordering::Relaxed));
    }

    /// All observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros).as_secs_f64()
    }

    /// Each bound in seconds with the observations at or under it, as Prometheus counts them; `+Inf` is [`Self::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        BUCKET_BOUNDS_MICROS.iter().zip(&self.buckets).scan(0_u64, |below, (bound, count)| {
            *below += count;
            Some((Duration::from_micros(*bound).as_secs_f64(), *below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_on_a_bound_counts_in_that_bounds_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_micros(101));
        let mut totals = HistogramTotals::default();
        totals.add(&histogram);
        let cumulative: Vec<_> = totals.cumulative().collect();
        assert_eq!(cumulative[0], (0.0001, 1));
        assert_eq!(cumulative[1], (0.00025, 2));
    }

    #[test]
    fn what_is_above_every_bound_counts_only_in_the_whole() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_secs(3600));
        let mut totals = HistogramTotals::default();
        totals.add(&histogram);
        assert_eq!(totals.cumulative().last(), Some((60.0, 0)));
        assert_eq!(totals.count(), 1);
        assert!((totals.sum_seconds() - 3600.0).abs() < f64::EPSILON);
    }

    #[test]
    fn totals_add_several_workers() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_millis(1));
        two.observe(Duration::from_millis(2));
        let mut totals = HistogramTotals::default();
        totals.add(&one);
        totals.add(&two);
        assert_eq!(totals.count(), 2);
    }
}
