//! Sizes (`64KiB`, `4GiB`, `512`) and durations (`250ms`, `10s`, `5m`, `1h`), both ways.
//!
//! Owns the units and their limits. It knows no key: which values make sense where is `validate`'s to say.

use std::time::Duration;

use super::error::Unfit;

/// Largest size: 1 EiB. More than any host has, and sums of some of them still fit 64 bits.
pub(super) const LARGEST_SIZE: u64 = 1 << 60;

/// Longest duration: a year. Longer ones are slips, and a clock plus one of these never overflows.
pub(super) const LONGEST_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) const EXPECTED_SIZE: &str = "a size such as \"64KiB\", \"256MiB\" or a number of bytes";
pub(super) const EXPECTED_DURATION: &str = "a duration such as \"250ms\", \"10s\", \"5m\" or \"1h\"";

/// Units of sizes in bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of durations in milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A size in bytes; digits without a unit are bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, Unfit> {
    let unfit = || Unfit::new(EXPECTED_SIZE);
    let (digits, unit) = split_unit(text);
    let number = parse_digits(digits).ok_or_else(unfit)?;
    let factor = if unit.is_empty() {
        1
    } else {
        let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = known else {
            let instead = probable_size_unit(unit).map(|unit| format!("{digits}{unit}"));
            return Err(unfit().instead(instead));
        };
        *factor
    };
    number
        .checked_mul(factor)
        .filter(|size| *size <= LARGEST_SIZE)
        .ok_or_else(|| Unfit::new(format!("a size of at most {}", format_size(LARGEST_SIZE))))
}

/// A duration; its unit is never left off.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Unfit> {
    let unfit = || Unfit::new(EXPECTED_DURATION);
    let (digits, unit) = split_unit(text);
    let number = parse_digits(digits).ok_or_else(unfit)?;
    let known = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
    let Some((_, factor)) = known else {
        let instead = probable_duration_unit(unit).map(|unit| format!("{digits}{unit}"));
        return Err(unfit().instead(instead));
    };
    number
        .checked_mul(*factor)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST_DURATION)
        .ok_or_else(|| Unfit::new(format!("a duration of at most {}", format_duration(LONGEST_DURATION))))
}

/// The size with the largest unit that divides it.
pub(super) fn format_size(size: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, factor)| size >= *factor && size.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) if *factor > 1 => format!("{}{name}", size / factor),
        _ => size.to_string(),
    }
}

/// The duration with the largest unit that divides it; nothing finer than a millisecond is kept.
pub(super) fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fits = |name: &str, factor: u128| {
        // One minute stays the 60s that everyone writes.
        millis >= factor && millis.is_multiple_of(factor) && (name != "m" || millis > factor)
    };
    let unit = DURATION_UNITS.iter().find(|(name, factor)| fits(name, u128::from(*factor)));
    match unit {
        Some((name, factor)) => format!("{}{name}", millis / u128::from(*factor)),
        None => "0s".to_owned(),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Digits only, any number that 64 bits hold; a longer one is as good as the largest, since no key takes either.
fn parse_digits(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn probable_size_unit(written: &str) -> Option<&'static str> {
    let first = written.trim().chars().next()?.to_ascii_uppercase();
    SIZE_UNITS.iter().map(|(name, _)| *name).find(|name| name.starts_with(first))
}

fn probable_duration_unit(written: &str) -> Option<&'static str> {
    match written.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "ms" | "msec" | "millis" | "milliseconds" => Some("ms"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hour" | "hours" => Some("h"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        DURATION_UNITS, LARGEST_SIZE, LONGEST_DURATION, SIZE_UNITS, format_duration, format_size, parse_duration,
        parse_size,
    };
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::time::Duration;

    #[test]
    fn sizes_take_binary_units_and_plain_bytes() {
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("7B", 7),
            ("64KiB", 64 << 10),
            ("256MiB", 256 << 20),
            ("4GiB", 4 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_names_the_right_one() {
        for (text, instead) in [
            ("64K", Some("64KiB")),
            ("64kb", Some("64KiB")),
            ("64 KiB", Some("64KiB")),
            ("1GB", Some("1GiB")),
            ("1.5GiB", None),
            ("-1", None),
            ("", None),
            ("KiB", None),
        ] {
            let unfit = parse_size(text).unwrap_err();
            assert_eq!(unfit.instead.as_deref(), instead, "{text}");
        }
        for (text, instead) in [
            ("10", Some("10s")),
            ("10sec", Some("10s")),
            ("5min", Some("5m")),
            ("10 s", Some("10s")),
            ("1d", None),
            ("s", None),
            ("1.5s", None),
        ] {
            let unfit = parse_duration(text).unwrap_err();
            assert_eq!(unfit.instead.as_deref(), instead, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_size_survives_its_text(size in 0..=LARGEST_SIZE) {
            prop_assert_eq!(parse_size(&format_size(size)), Ok(size));
        }

        #[test]
        fn any_duration_survives_its_text(millis in 0..=31_536_000_000_u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_size_is_its_number_times_its_unit_or_refused(number in any::<u128>(), unit in 0..SIZE_UNITS.len()) {
            let (name, factor) = SIZE_UNITS[unit];
            let exact = number.checked_mul(u128::from(factor)).filter(|size| *size <= u128::from(LARGEST_SIZE));
            let read = parse_size(&format!("{number}{name}")).ok().map(u128::from);
            prop_assert_eq!(read, exact);
        }

        #[test]
        fn small_numbers_are_read_exactly(number in 0..5000_u64, unit in 0..SIZE_UNITS.len()) {
            let (name, factor) = SIZE_UNITS[unit];
            prop_assert_eq!(parse_size(&format!("{number}{name}")), Ok(number * factor));
        }

        #[test]
        fn a_duration_is_its_number_times_its_unit_or_refused(number in any::<u64>(), unit in 0..DURATION_UNITS.len()) {
            let (name, factor) = DURATION_UNITS[unit];
            let exact = u128::from(number) * u128::from(factor);
            let exact = Some(exact).filter(|millis| *millis <= LONGEST_DURATION.as_millis());
            let read = parse_duration(&format!("{number}{name}")).ok().map(|duration| duration.as_millis());
            prop_assert_eq!(read, exact);
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
