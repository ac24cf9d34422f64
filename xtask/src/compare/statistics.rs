//! Medians and spreads of a few measurements.

use std::time::Duration;

/// What several rounds came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) median: Duration,
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Summary {
    /// `None`: there is nothing to sum up.
    pub(super) fn of(rounds: &[Duration]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_unstable();
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let is_odd = sorted.len() % 2 == 1;
        let median = if is_odd { upper } else { (*sorted.get(middle.checked_sub(1)?)? + upper) / 2 };
        Some(Self { median, least, most })
    }
}

/// As tables have it: milliseconds with one digit.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_ones() {
        let ms = |list: &[u64]| list.iter().map(|&n| Duration::from_millis(n)).collect::<Vec<_>>();
        assert_eq!(Summary::of(&[]), None);
        let odd = Summary::of(&ms(&[9, 1, 5])).unwrap();
        assert_eq!((odd.median, odd.least, odd.most), (ms(&[5])[0], ms(&[1])[0], ms(&[9])[0]));
        assert_eq!(Summary::of(&ms(&[4, 2, 8, 6])).unwrap().median, Duration::from_millis(5));
        assert_eq!(milliseconds(Duration::from_micros(107_260)), "107.3");
    }
}
