//! How far a reply is read ahead of its client, and how long it is held back. Pure.

use std::time::{Duration, Instant};

use crate::h1::ReplyDelimit;
use crate::reply::{Fallback, HoldUntil};

/// What is read ahead for a client that keeps up.
const READ_AHEAD: u64 = 256 * 1024;
/// A client that has kept bytes waiting for this long is slower than the server, and the server is freed of it.
pub(super) const SLOW_AFTER: Duration = Duration::from_millis(100);

/// Whether the client may get what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Until the length is known. `until`: when waiting for it ends.
    Holding {
        until: Option<Instant>,
        otherwise: Fallback,
    },
    /// Until the response is whole, because its server may break it off for the requests behind it. `until`: for no longer.
    Guarded {
        until: Instant,
        delimit: ReplyDelimit,
    },
    Open {
        chunked: bool,
    },
}

/// What a moment means for a reply that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Wait,
    /// It goes out, delimited like this.
    Open(ReplyDelimit),
    /// It cannot be held to its end, and must not go out otherwise.
    GiveUp,
}

/// A reply at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub now: Instant,
    /// It is the turn of this reply.
    pub due: bool,
    pub whole: bool,
    /// No tier had room for the last piece.
    pub full: bool,
    /// Content bytes held.
    pub held: u64,
}

/// A reply's bounds, from the configuration of its upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub hold_time: Duration,
    pub hold_size: u64,
    pub memory_per_reply: u64,
}

impl Gate {
    /// Closed, for a reply whose length is not known.
    pub(super) fn holding(until: HoldUntil, otherwise: Fallback, bounds: &Bounds, now: Instant) -> Self {
        Self::Holding { until: (until == HoldUntil::Auto).then(|| now + bounds.hold_time), otherwise }
    }

    /// Closed, for a response with others behind it on its connection.
    pub(super) fn guarded(delimit: ReplyDelimit, bounds: &Bounds, now: Instant) -> Self {
        Self::Guarded { until: now + bounds.hold_time, delimit }
    }

    /// When waiting for the end is over, whatever else.
    pub(super) fn until(&self) -> Option<Instant> {
        match *self {
            Self::Holding { until, .. } => until,
            Self::Guarded { until, .. } => Some(until),
            Self::Open { .. } => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    pub(super) fn is_chunked(&self) -> bool {
        matches!(self, Self::Open { chunked: true })
    }

    /// Whether a held reply goes out now, and how.
    pub(super) fn decide(&self, moment: &Moment, bounds: &Bounds) -> Decision {
        let (until, otherwise) = match *self {
            Self::Open { .. } => return Decision::Wait,
            Self::Guarded { until, delimit } => {
                let over = moment.held > bounds.hold_size || moment.now >= until || moment.full;
                let open = moment.whole || (over && moment.due);
                return if open { Decision::Open(delimit) } else { Decision::Wait };
            }
            Self::Holding { until, otherwise } => (until, otherwise),
        };
        if moment.whole {
            return Decision::Open(ReplyDelimit::Length(moment.held));
        }
        let over = until.is_some_and(|until| moment.held > bounds.hold_size || moment.now >= until);
        if !over && !moment.full {
            return Decision::Wait;
        }
        // Before its turn nothing is gained by giving up the length, and the replies before it make room.
        if !moment.due {
            return Decision::Wait;
        }
        match otherwise {
            Fallback::Refuse => Decision::GiveUp,
            Fallback::Chunked => Decision::Open(ReplyDelimit::Chunked),
            Fallback::UntilClose => Decision::Open(ReplyDelimit::UntilClose),
        }
    }
}

/// How many bytes of a reply are kept waiting for its client before the server is made to wait instead.
///
/// `blocked`: since when the client has kept bytes waiting. `roomy`: the tiers can spare room for replies that could as
/// well wait in the server.
pub(super) fn read_ahead(gate: Gate, due: bool, blocked: Option<Duration>, roomy: bool, bounds: &Bounds) -> u64 {
    match gate {
        Gate::Holding { until: None, .. } => u64::MAX,
        // Above hold_size the gate opens; until it is this reply's turn, the server waits.
        Gate::Holding { until: Some(_), .. } | Gate::Guarded { .. } => bounds.hold_size.saturating_add(1),
        Gate::Open { .. } if due && blocked.is_none_or(|since| since < SLOW_AFTER) => READ_AHEAD,
        Gate::Open { .. } if roomy => bounds.hold_size.max(READ_AHEAD),
        Gate::Open { .. } => bounds.memory_per_reply.max(READ_AHEAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { hold_time: Duration::from_secs(2), hold_size: 1000, memory_per_reply: 300_000 };

    fn moment(now: Instant) -> Moment {
        Moment { now, due: true, whole: false, full: false, held: 10 }
    }

    #[test]
    fn a_whole_reply_goes_out_with_its_length_also_before_its_turn() {
        let now = Instant::now();
        let gate = Gate::holding(HoldUntil::Auto, Fallback::Chunked, &BOUNDS, now);
        let whole = Moment { whole: true, due: false, ..moment(now) };
        assert_eq!(gate.decide(&whole, &BOUNDS), Decision::Open(ReplyDelimit::Length(10)));
    }

    #[test]
    fn auto_gives_the_length_up_after_its_time_its_size_or_its_room_but_not_before_its_turn() {
        let now = Instant::now();
        let gate = Gate::holding(HoldUntil::Auto, Fallback::Chunked, &BOUNDS, now);
        assert_eq!(gate.decide(&moment(now), &BOUNDS), Decision::Wait);
        let largest = Moment { held: 1000, ..moment(now) };
        assert_eq!(gate.decide(&largest, &BOUNDS), Decision::Wait);
        assert!(read_ahead(gate, true, None, true, &BOUNDS) > largest.held, "its end is still to be read");
        let ends = [
            Moment { now: now + BOUNDS.hold_time, ..moment(now) },
            Moment { held: 1001, ..moment(now) },
            Moment { full: true, ..moment(now) },
        ];
        for end in ends {
            assert_eq!(gate.decide(&end, &BOUNDS), Decision::Open(ReplyDelimit::Chunked));
            assert_eq!(gate.decide(&Moment { due: false, ..end }, &BOUNDS), Decision::Wait);
        }
    }

    #[test]
    fn always_holds_whatever_it_takes_and_gives_up_only_where_there_is_no_room() {
        let now = Instant::now();
        let gate = Gate::holding(HoldUntil::Whole, Fallback::Refuse, &BOUNDS, now);
        let late = Moment { now: now + BOUNDS.hold_time * 100, held: 1 << 40, ..moment(now) };
        assert_eq!(gate.decide(&late, &BOUNDS), Decision::Wait);
        let full = Moment { full: true, ..late };
        assert_eq!(gate.decide(&full, &BOUNDS), Decision::GiveUp);
        assert_eq!(gate.decide(&Moment { due: false, ..full }, &BOUNDS), Decision::Wait, "those before it make room");
    }

    #[test]
    fn a_guarded_response_goes_out_as_it_is_once_it_is_whole_or_cannot_be_waited_for() {
        let now = Instant::now();
        let delimit = ReplyDelimit::Length(500);
        let gate = Gate::guarded(delimit, &BOUNDS, now);
        assert_eq!(gate.decide(&moment(now), &BOUNDS), Decision::Wait);
        assert_eq!(gate.decide(&Moment { whole: true, due: false, ..moment(now) }, &BOUNDS), Decision::Open(delimit));
        let ends = [
            Moment { now: now + BOUNDS.hold_time, ..moment(now) },
            Moment { held: 1001, ..moment(now) },
            Moment { full: true, ..moment(now) },
        ];
        for end in ends {
            assert_eq!(gate.decide(&end, &BOUNDS), Decision::Open(delimit));
            assert_eq!(gate.decide(&Moment { due: false, ..end }, &BOUNDS), Decision::Wait);
        }
        assert!(read_ahead(gate, true, None, true, &BOUNDS) > BOUNDS.hold_size, "its end is read");
    }

    #[test]
    fn only_a_client_that_is_slower_than_the_server_gets_much_read_ahead() {
        let open = Gate::Open { chunked: false };
        let slow = Some(SLOW_AFTER);
        assert_eq!(read_ahead(open, true, None, true, &BOUNDS), READ_AHEAD);
        assert_eq!(read_ahead(open, true, Some(SLOW_AFTER / 2), true, &BOUNDS), READ_AHEAD);
        let wide = Bounds { hold_size: 1 << 26, ..BOUNDS };
        assert_eq!(read_ahead(open, true, slow, true, &wide), 1 << 26);
        assert_eq!(read_ahead(open, true, slow, false, &wide), 300_000);
        assert_eq!(read_ahead(open, false, None, true, &wide), 1 << 26);
    }
}
