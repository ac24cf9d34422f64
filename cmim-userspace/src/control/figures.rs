//! How the figures of [`super::message`] read to people, the same in every table and on the status page.

/// Whole numbers up to here are written out; longer ones are rounded.
const WRITTEN_OUT: u64 = 10_000_000;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// "512 B", "80.1 MiB".
#[must_use]
pub fn bytes(n: u64) -> String {
    scaled(n, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// "1,234,567", then "12.3 M".
#[must_use]
pub fn count(n: u64) -> String {
    if n >= WRITTEN_OUT {
        return scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"]);
    }
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many a second, of `n` in this time; a dash where no time has passed.
#[must_use]
pub fn per_second(n: u64, time: std::time::Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    n.saturating_mul(1_000).checked_div(milliseconds).map_or_else(|| "-".to_owned(), count)
}

/// "42s", "3m 12s", "3h 12m", "4d 3h".
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m {}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h {}m", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{}d {}h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// "96.1%"; a dash of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    match fraction(part, whole) {
        Some(fraction) => format!("{:.1}%", fraction * 100.0),
        None => "-".to_owned(),
    }
}

/// `part / whole`, from 0 to 1; `None` of nothing.
#[must_use]
pub fn fraction(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (approximate(part) / approximate(whole)).min(1.0))
}

fn scaled(n: u64, step: f64, units: &[&str]) -> String {
    let mut value = approximate(n);
    let mut units = units.iter().peekable();
    let mut unit = units.next().copied().unwrap_or_default();
    let smallest = unit;
    // 0.05 below the step: what would round up to "1024.0" belongs to the next unit.
    while value >= step - 0.05 {
        let Some(next) = units.next() else { break };
        value /= step;
        unit = next;
    }
    if unit == smallest { format!("{n} {unit}") } else { format!("{value:.1} {unit}") }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, rounded to one decimal anyway")]
fn approximate(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal_above_a_kibibyte() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (84_000_000, "80.1 MiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn counts_are_grouped_then_rounded() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (12_345_678, "12.3 M"),
            (4_500_000_000, "4.5 G"),
        ];
        for (n, text) in cases {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let cases = [(0, "0s"), (59, "59s"), (192, "3m 12s"), (11_520, "3h 12m"), (356_400, "4d 3h")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_part_of_nothing_is_a_dash() {
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(961, 1_000), "96.1%");
        assert_eq!(fraction(5, 4), Some(1.0), "torn readings stay within the bar");
    }
}
