//! Medians and spreads of a few rounds.

use serde_json::{Value, json};

/// What the rounds of one path gave for one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Summary {
    /// `None` without a single value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

/// So many hundredths of the values are not above it. They are sorted.
pub(crate) fn percentile(sorted: &[f64], hundredths: usize) -> Option<f64> {
    sorted.get((sorted.len() * hundredths / 100).min(sorted.len().checked_sub(1)?)).copied()
}

/// A figure with three significant digits, thousands apart: 43,100 or 1.24 or 0.012.
pub(crate) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        return thousands(&format!("{value:.0}"));
    }
    let digits = match magnitude {
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn thousands(whole: &str) -> String {
    let mut text = String::with_capacity(whole.len() + whole.len() / 3);
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_at_the_ends() {
        let odd = Summary::of([3.0, 1.0, 2.0]);
        assert_eq!(odd, Some(Summary { median: 2.0, least: 1.0, most: 3.0 }));
        let even = Summary::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(even, Some(Summary { median: 2.5, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0, 50, 99, 100].map(|at| percentile(&values, at)), [Some(1.0), Some(3.0), Some(4.0), Some(4.0)]);
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn nothing_measured_has_no_median() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN]), None);
    }

    #[test]
    fn figures_have_three_digits() {
        let shown: Vec<String> = [43_123.4, 1_234_567.0, 123.4, 12.34, 1.234, 0.0123, 0.0].map(figure).into();
        assert_eq!(shown, ["43,123", "1,234,567", "123", "12.3", "1.23", "0.012", "0.000"]);
        assert_eq!(figure(-123_456.0), "-123,456");
    }
}
