//! The guard's judgement of one packet, and which counter it belongs to.
//!
//! Pure. The XDP program parses a packet, looks its source up, and asks here. What is
//! none of its business passes; what it cannot read and the kernel might deliver does not.

use crate::counters::Counters;

/// Why a packet passes or not; there is a counter for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    /// Neither IPv4 nor IPv6.
    PassNotIp,
    /// Cut short within its headers. The kernel drops it for that.
    PassTruncated,
    /// The source is in a deny list.
    DropDenied,
    /// To a listener, with flags that no real connection sends.
    DropFlags,
    /// A SYN to a listener, over its source's or the listener's rate.
    DropRate,
    /// To this host, and wrapped so that its source or its TCP header cannot be read.
    DropWrapped,
    /// A SYN to a listener, over the listener's rate, that became its own reply.
    AnswerCookie,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Back out of the interface that it came in by.
    Answer,
}

/// Counts one packet of `length` bytes and says what becomes of it.
#[inline(always)]
pub const fn judge(counters: &mut Counters, outcome: Outcome, length: u64) -> Verdict {
    counters.packets = counters.packets.wrapping_add(1);
    counters.bytes = counters.bytes.wrapping_add(length);
    let (verdict, counter) = match outcome {
        Outcome::Pass => (Verdict::Pass, None),
        Outcome::PassNotIp => (Verdict::Pass, Some(&mut counters.not_ip)),
        Outcome::PassTruncated => (Verdict::Pass, Some(&mut counters.truncated)),
        Outcome::DropDenied => (Verdict::Drop, Some(&mut counters.dropped_denied)),
        Outcome::DropFlags => (Verdict::Drop, Some(&mut counters.dropped_flags)),
        Outcome::DropRate => (Verdict::Drop, Some(&mut counters.dropped_rate)),
        Outcome::DropWrapped => (Verdict::Drop, Some(&mut counters.dropped_wrapped)),
        Outcome::AnswerCookie => (Verdict::Answer, Some(&mut counters.cookies_sent)),
    };
    if let Some(counter) = counter {
        *counter = counter.wrapping_add(1);
    }
    if matches!(verdict, Verdict::Pass) {
        counters.passed = counters.passed.wrapping_add(1);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Verdict, judge};
    use crate::counters::Counters;

    #[test]
    fn every_packet_is_counted_once_as_passed_dropped_or_answered() {
        let mut counters = Counters::default();
        assert_eq!(judge(&mut counters, Outcome::Pass, 60), Verdict::Pass);
        assert_eq!(judge(&mut counters, Outcome::PassNotIp, 42), Verdict::Pass);
        assert_eq!(judge(&mut counters, Outcome::PassTruncated, 15), Verdict::Pass);
        assert_eq!(judge(&mut counters, Outcome::DropDenied, 100), Verdict::Drop);
        assert_eq!(judge(&mut counters, Outcome::DropFlags, 60), Verdict::Drop);
        assert_eq!(judge(&mut counters, Outcome::DropRate, 60), Verdict::Drop);
        assert_eq!(judge(&mut counters, Outcome::DropWrapped, 60), Verdict::Drop);
        assert_eq!(judge(&mut counters, Outcome::AnswerCookie, 60), Verdict::Answer);
        assert_eq!(
            counters,
            Counters {
                packets: 8,
                bytes: 457,
                passed: 3,
                dropped_denied: 1,
                dropped_flags: 1,
                dropped_rate: 1,
                dropped_wrapped: 1,
                cookies_sent: 1,
                not_ip: 1,
                truncated: 1,
                ..Counters::default()
            }
        );
    }
}
