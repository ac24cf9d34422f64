//! The decision of the sockmap lane: may the kernel hand this burst to the other socket, or must userspace see it?
//!
//! Pure. The sk_skb verdict asks it for each burst (one skb: the kernel gives a verdict on a whole one and cannot cut
//! it at a byte). Whatever is not handed over is left in the receive queue of the connection it came on, where the
//! daemon reads it, and where TCP itself slows the sender down.

use crate::connection::{Connection, ENDLESS, State};

/// What the verdict saw of one burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Bytes of it.
    pub length: u64,
    /// Whether the target is in the sockhash right now. A redirect to a missing socket drops bytes that the sender was
    /// told have arrived (`sk_psock_skb_redirect`), so it must be known before.
    pub target_present: bool,
}

/// What to do with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Hand it to the target.
    Redirect,
    /// Leave it to userspace.
    Pass(Reason),
}

/// Why a burst is left to userspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The entry is in another state than splicing.
    NotSplicing,
    /// No bytes: a FIN comes so, and ends of connections are userspace's to forward.
    Empty,
    /// The target left the sockhash.
    TargetMissing,
    /// It reaches past the content's end, which is the sender's fault and userspace's to judge.
    PastEnd,
    /// The target has not accepted enough of what it was given.
    OverWindow,
}

impl Reason {
    /// Whether the splice must pause: once a burst went to userspace, a later one that overtook it in the kernel would
    /// reorder the content.
    #[inline(always)]
    #[must_use]
    pub const fn pauses(self) -> bool {
        match self {
            Self::NotSplicing | Self::Empty => false,
            Self::TargetMissing | Self::PastEnd | Self::OverWindow => true,
        }
    }
}

/// The decision for one burst on a connection with this entry.
#[inline(always)]
#[must_use]
pub const fn decide(connection: &Connection, burst: Burst) -> Decision {
    if connection.state != State::Splicing as u8 {
        return Decision::Pass(Reason::NotSplicing);
    }
    if burst.length == 0 {
        return Decision::Pass(Reason::Empty);
    }
    if !burst.target_present {
        return Decision::Pass(Reason::TargetMissing);
    }
    if connection.remaining != ENDLESS && burst.length > connection.remaining {
        return Decision::Pass(Reason::PastEnd);
    }
    // Figures that contradict each other (more accepted than spliced) count as nothing in flight.
    let in_flight = connection.spliced.saturating_sub(connection.accepted);
    if in_flight.saturating_add(burst.length) > connection.window {
        return Decision::Pass(Reason::OverWindow);
    }
    Decision::Redirect
}

#[cfg(test)]
mod tests {
    use super::{Burst, Decision, Reason, decide};
    use crate::connection::{Connection, ConnectionKey, ENDLESS, Lane, State};

    const WINDOW: u64 = 1_000;

    fn splicing() -> Connection {
        let address = "192.0.2.1:80".parse().expect("a literal of this test");
        Connection {
            generation: 1,
            remaining: 5_000,
            spliced: 0,
            accepted: 0,
            window: WINDOW,
            target: ConnectionKey::new(address, address),
            lane: Lane::Sockmap as u8,
            state: State::Splicing as u8,
            reserved: [0; 2],
        }
    }

    fn burst(length: u64) -> Burst {
        Burst { length, target_present: true }
    }

    #[test]
    fn a_burst_within_content_and_window_is_redirected() {
        assert_eq!(decide(&splicing(), burst(1)), Decision::Redirect);
        assert_eq!(decide(&splicing(), burst(WINDOW)), Decision::Redirect);
    }

    #[test]
    fn a_burst_over_the_window_goes_to_userspace() {
        assert_eq!(decide(&splicing(), burst(WINDOW + 1)), Decision::Pass(Reason::OverWindow));
        let filled = Connection { spliced: 900, accepted: 100, ..splicing() };
        assert_eq!(decide(&filled, burst(200)), Decision::Redirect);
        assert_eq!(decide(&filled, burst(201)), Decision::Pass(Reason::OverWindow));
    }

    #[test]
    fn what_the_target_accepted_opens_the_window_again() {
        let drained = Connection { spliced: 900, accepted: 900, ..splicing() };
        assert_eq!(decide(&drained, burst(WINDOW)), Decision::Redirect);
    }

    #[test]
    fn a_burst_that_ends_the_content_is_redirected_and_one_past_it_is_not() {
        let ending = Connection { remaining: 10, ..splicing() };
        assert_eq!(decide(&ending, burst(10)), Decision::Redirect);
        assert_eq!(decide(&ending, burst(11)), Decision::Pass(Reason::PastEnd));
        let ended = Connection { remaining: 0, ..splicing() };
        assert_eq!(decide(&ended, burst(1)), Decision::Pass(Reason::PastEnd));
    }

    #[test]
    fn a_tunnel_has_no_end_but_has_a_window() {
        let tunnel = Connection { remaining: ENDLESS, ..splicing() };
        assert_eq!(decide(&tunnel, burst(WINDOW)), Decision::Redirect);
        assert_eq!(decide(&tunnel, burst(u64::MAX)), Decision::Pass(Reason::OverWindow));
    }

    #[test]
    fn a_missing_target_goes_to_userspace_whatever_else_holds() {
        let lost = Burst { length: 1, target_present: false };
        assert_eq!(decide(&splicing(), lost), Decision::Pass(Reason::TargetMissing));
    }

    #[test]
    fn only_a_splicing_entry_redirects() {
        for number in 0..=u8::MAX {
            let entry = Connection { state: number, ..splicing() };
            let redirected = decide(&entry, burst(1)) == Decision::Redirect;
            assert_eq!(redirected, number == State::Splicing as u8, "state {number}");
        }
    }

    #[test]
    fn nothing_to_hand_over_neither_redirects_nor_pauses() {
        assert_eq!(decide(&splicing(), burst(0)), Decision::Pass(Reason::Empty));
        assert!(!Reason::Empty.pauses());
        assert!(Reason::OverWindow.pauses());
    }

    #[test]
    fn impossible_figures_never_overflow() {
        let odd = Connection { spliced: 0, accepted: u64::MAX, window: u64::MAX, remaining: ENDLESS, ..splicing() };
        assert_eq!(decide(&odd, burst(u64::MAX)), Decision::Redirect);
        let full = Connection { spliced: u64::MAX, accepted: 0, window: u64::MAX - 1, ..splicing() };
        assert_eq!(decide(&full, burst(1)), Decision::Pass(Reason::OverWindow));
    }
}
