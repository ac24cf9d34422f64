//! SYN rates: a token bucket in one number.
//!
//! Pure. A bucket is kept as the time at which it will be full again: taking a token moves that time on by the interval
//! of one token, and the bucket is empty where that time would be further away than a whole bucket takes to fill. So
//! nothing has to refill it, and one number is all that two CPUs can disagree about.

use core::mem::{align_of, size_of};

/// How long an empty bucket takes to be full: bursts of a second's worth pass.
pub const FILL_TIME: u64 = NANOSECONDS;

const NANOSECONDS: u64 = 1_000_000_000;

/// Sources with a bucket of their own. The least recently seen one makes room for a new one.
pub const MAX_SOURCES: usize = 65_536;

/// The value of `CMIM_SOURCES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, in nanoseconds since the host's start (`bpf_ktime_get_ns`); 0: it was never used.
    pub full_at: u64,
}

/// What came of taking a token, and what to write down for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The bucket was full: its time begins anew from here.
    First { full_at: u64 },
    /// Add the interval to the time that is there. An addition loses nothing when several CPUs take at once, which they
    /// do whenever it matters.
    Further,
    /// It is empty.
    Refused,
}

/// Nanoseconds between two SYNs of a rate; 0: no limit.
#[must_use]
pub const fn interval(per_second: u64) -> u64 {
    match per_second {
        0 => 0,
        // A rate that nanoseconds cannot tell apart is none a host could reach.
        NANOSECONDS.. => 1,
        rate => NANOSECONDS / rate,
    }
}

/// Takes a token at `now` from the bucket that is full at `full_at`.
#[inline(always)]
#[must_use]
pub const fn take(full_at: u64, now: u64, interval: u64) -> Taken {
    if full_at <= now {
        return Taken::First { full_at: now.wrapping_add(interval) };
    }
    if full_at - now > FILL_TIME.saturating_sub(interval) {
        return Taken::Refused;
    }
    Taken::Further
}

/// The source as `CMIM_SOURCES` knows it. An IPv6 host has a network of 64 bits to itself and takes its addresses from
/// it as it likes (RFC 4291, 2.5.1), so the whole network shares one bucket.
#[inline(always)]
#[must_use]
pub const fn source_v6(address: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, ..] = address;
    [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0]
}

const _: () = {
    assert!(size_of::<Bucket>() == 8);
    assert!(align_of::<Bucket>() == 8);
};

#[cfg(test)]
mod tests {
    use super::{FILL_TIME, NANOSECONDS, Taken, interval, source_v6, take};

    const START: u64 = 5 * NANOSECONDS;

    /// Takes as the guard does; whether it got one.
    fn got(full_at: &mut u64, now: u64, interval: u64) -> bool {
        match take(*full_at, now, interval) {
            Taken::First { full_at: anew } => *full_at = anew,
            Taken::Further => *full_at += interval,
            Taken::Refused => return false,
        }
        true
    }

    /// How many of `tries` at one instant pass.
    fn passed(full_at: &mut u64, now: u64, interval: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(got(full_at, now, interval))).sum()
    }

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_the_rate() {
        for rate in [1, 2, 3, 10, 1_000] {
            let (mut full_at, interval) = (0, interval(rate));
            let rate = u32::try_from(rate).expect("a small number of this test");
            assert_eq!(passed(&mut full_at, START, interval, 5_000), rate, "rate {rate}");
            let mut over_ten_seconds = 0;
            for millisecond in 1..=10_000_u64 {
                over_ten_seconds += passed(&mut full_at, START + millisecond * 1_000_000, interval, 10);
            }
            assert!((rate * 10 - 1..=rate * 10 + 1).contains(&over_ten_seconds), "rate {rate}: {over_ten_seconds}");
        }
    }

    #[test]
    fn a_bucket_left_alone_is_full_after_its_fill_time_and_never_fuller() {
        let (mut full_at, interval) = (0, interval(10));
        assert_eq!(passed(&mut full_at, START, interval, 100), 10);
        assert_eq!(passed(&mut full_at, START + FILL_TIME / 2, interval, 100), 5);
        assert_eq!(passed(&mut full_at, START + 100 * FILL_TIME, interval, 100), 10);
    }

    #[test]
    fn no_rate_is_no_interval_and_a_huge_one_still_passes() {
        assert_eq!(interval(0), 0);
        assert_eq!(interval(u64::MAX), 1);
        assert_eq!(passed(&mut 0, START, interval(u64::MAX), 1_000), 1_000);
    }

    #[test]
    fn a_clock_near_its_end_does_not_overflow() {
        assert!(matches!(take(0, u64::MAX, NANOSECONDS), Taken::First { .. }));
        assert_eq!(take(u64::MAX, 0, 1), Taken::Refused);
        assert_eq!(take(2, 1, u64::MAX), Taken::Refused);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_bucket() {
        let one = core::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6).octets();
        let other = core::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 9, 9, 9, 9).octets();
        let neighbour = core::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 3, 4, 5, 6).octets();
        assert_eq!(source_v6(one), source_v6(other));
        assert_ne!(source_v6(one), source_v6(neighbour));
    }
}
