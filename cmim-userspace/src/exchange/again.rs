//! Whether a request that got no response is sent again, and where. Decisions only.
//!
//! Owns what earlier attempts at one request teach the next one. It must not know sockets or the upstream's state: the
//! attempt that failed comes in, and whoever drives the exchange asks for the next server as the decision says.

use super::failure::Failure;
use crate::upstream::ServerId;

/// How often one request may be sent on because of the others on its connection; then it gets one of its own.
pub(super) const MOST_MOVES: u32 = 2;

/// The connection of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub server: ServerId,
    /// It came out of the pool.
    pub reused: bool,
    pub shared: Shared,
}

/// An attempt of whose response the client has got nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Miss<'a> {
    pub failure: &'a Failure,
    pub at: At,
}

/// How the request shared its connection with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// Nobody else's request was sent on it meanwhile.
    Alone,
    /// Others were sent behind it, and the server has not answered them.
    Ahead,
    /// It was its turn, behind another one.
    Behind,
}

/// What of a request decides whether it may be sent twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeatable {
    /// Several times is the same as once (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// A part of its content went out that the device no longer has.
    pub spent: bool,
    /// `retries` of its upstream.
    pub most: u32,
}

/// Why a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The others on its connection may be the cause: no retry is used up, and where it was this one's turn the same server
    /// comes first.
    Moved,
    /// The server closed an idle connection just when it was taken: the same server again on a fresh connection, and no
    /// retry is used up.
    Stale,
    /// The local lane had no room for it, which is nobody's fault: on no lane, and no retry is used up.
    OffLane,
    /// Another server first, and a retry is used up.
    Retry,
}

/// What earlier attempts at one request teach the next one.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Servers that it comes back to last.
    avoided: Vec<ServerId>,
    /// Servers that may have got a byte of it, each once.
    reached: Vec<ServerId>,
    last: Option<(Again, ServerId)>,
    /// A reused connection was stale: the next one is new.
    fresh: bool,
    /// The local lane was stuck: the next connection is on none.
    off_lane: bool,
    retries: u32,
    moves: u32,
}

impl Tried {
    /// Whether the request may be sent again (RFC 9112 section 9.3.1). `pay` takes one retry from the upstream's budget.
    pub(super) fn again(&mut self, miss: &Miss<'_>, request: &Repeatable, pay: impl FnOnce() -> bool) -> Option<Again> {
        let again = self.judge(miss, request)?;
        match again {
            Again::Moved if matches!(miss.failure, Failure::Overtaken) => self.moves += 1,
            Again::Moved => self.moves = MOST_MOVES,
            Again::Stale => self.fresh = true,
            Again::OffLane => (self.fresh, self.off_lane) = (true, true),
            Again::Retry if self.retries < request.most && pay() => {
                self.retries += 1;
                self.avoided.push(miss.at.server);
            }
            Again::Retry => return None,
        }
        // One that was overtaken was not at fault, whatever became of its connection.
        let overtaken = matches!(miss.failure, Failure::Overtaken);
        let unreached = overtaken || matches!(miss.failure, Failure::Connect(_) | Failure::ConnectTimeout);
        if !unreached && !self.reached.contains(&miss.at.server) {
            self.reached.push(miss.at.server);
        }
        self.last = Some((again, miss.at.server));
        Some(again)
    }

    fn judge(&self, miss: &Miss<'_>, request: &Repeatable) -> Option<Again> {
        let Miss { failure, at: At { reused, shared, .. } } = *miss;
        if request.spent {
            return None;
        }
        let of_the_others = match shared {
            Shared::Alone => false,
            Shared::Ahead => request.idempotent && failure.is_cut(),
            Shared::Behind => failure.is_of_server(),
        };
        if of_the_others || matches!(failure, Failure::Overtaken) {
            return Some(Again::Moved);
        }
        if matches!(failure, Failure::LaneFull) {
            return Some(Again::OffLane);
        }
        let unprocessed = matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout);
        if unprocessed {
            return Some(Again::Retry);
        }
        if !request.idempotent {
            return None;
        }
        // What a server says on an idle connection is no response, and it may come just when the connection is taken.
        if reused && !self.fresh && (failure.is_silent_end() || failure.may_be_unasked()) {
            return Some(Again::Stale);
        }
        failure.is_silent_end().then_some(Again::Retry)
    }

    /// Whether a final response was sent before the server had the request: a 408 on a connection that was idle. The server
    /// gave up waiting, and the request is sent again on a new connection (RFC 9110 section 15.5.9). `was_idle`: the
    /// connection came out of the pool.
    pub(super) fn is_late_408(&self, status: u16, was_idle: bool, request: impl FnOnce() -> Repeatable) -> bool {
        let may_be = || {
            let request = request();
            request.idempotent && !request.spent
        };
        status == 408 && was_idle && !self.fresh && may_be()
    }

    /// Whether the server that was found for the next attempt may get the request. One that kills servers reaches
    /// `1 + retries` of them at most, the one of a stale connection and those of shared ones included.
    pub(super) fn may_reach(&mut self, server: ServerId, most: u32, pay: impl FnOnce() -> bool) -> bool {
        let Some((again, before)) = self.last else { return true };
        if self.reached.contains(&server) {
            return true;
        }
        if self.reached.len() as u64 > u64::from(most) {
            return false;
        }
        if again == Again::Stale {
            // The server whose connection was stale takes no request now: it died, and this is a retry.
            if self.retries >= most || !pay() {
                return false;
            }
            self.retries += 1;
            self.avoided.push(before);
        }
        true
    }

    /// Servers that come last.
    pub(super) fn avoided(&self) -> &[ServerId] {
        &self.avoided
    }

    /// The server that comes first.
    pub(super) fn preferred(&self) -> Option<ServerId> {
        match self.last {
            Some((Again::Stale | Again::OffLane | Again::Moved, server)) if self.reached.contains(&server) => {
                Some(server)
            }
            _ => None,
        }
    }

    /// It was sent before.
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// The next connection is a new one.
    pub(super) fn wants_fresh(&self) -> bool {
        self.fresh
    }

    /// The next connection is not on the local lane.
    pub(super) fn keeps_off_lane(&self) -> bool {
        self.off_lane
    }

    /// It may share its connection with others.
    pub(super) fn may_share(&self) -> bool {
        !self.fresh && self.moves < MOST_MOVES
    }

    /// Retries that were used up.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::h1::ReplyError;

    const GET: Repeatable = Repeatable { idempotent: true, spent: false, most: 2 };
    const POST: Repeatable = Repeatable { idempotent: false, ..GET };
    const SPENT_PUT: Repeatable = Repeatable { spent: true, ..GET };

    fn refused() -> Failure {
        Failure::Connect(io::ErrorKind::ConnectionRefused.into())
    }

    fn broke() -> Failure {
        Failure::ServerBroke(io::ErrorKind::ConnectionReset.into())
    }

    #[test]
    fn what_may_be_sent_again_and_how() {
        use Again::{Moved, OffLane, Retry, Stale};
        use Shared::{Ahead, Alone, Behind};
        let bad = || Failure::BadReply(ReplyError::UnknownVersion);
        let table = [
            // No byte can have been processed: any method.
            (refused(), false, Alone, [Some(Retry), Some(Retry), None]),
            (Failure::ConnectTimeout, false, Alone, [Some(Retry), Some(Retry), None]),
            // No byte of a response has come.
            (Failure::ServerClosed, false, Alone, [Some(Retry), None, None]),
            (broke(), false, Alone, [Some(Retry), None, None]),
            (Failure::ServerClosed, true, Alone, [Some(Stale), None, None]),
            (broke(), true, Alone, [Some(Stale), None, None]),
            // What came may have been sent before the request was.
            (Failure::Unasked, true, Alone, [Some(Stale), None, None]),
            (bad(), true, Alone, [Some(Stale), None, None]),
            (Failure::Truncated, true, Alone, [Some(Stale), None, None]),
            // It is the response.
            (bad(), false, Alone, [None, None, None]),
            (Failure::Truncated, false, Alone, [None, None, None]),
            (Failure::FirstByteTimeout, true, Alone, [None, None, None]),
            (Failure::FirstByteTimeout, false, Alone, [None, None, None]),
            // The requests behind it may have ended the connection.
            (Failure::ServerClosed, false, Ahead, [Some(Moved), None, None]),
            (broke(), true, Ahead, [Some(Moved), None, None]),
            (Failure::Truncated, false, Ahead, [Some(Moved), None, None]),
            (bad(), false, Ahead, [None, None, None]),
            // Those before it may have.
            (Failure::ServerClosed, true, Behind, [Some(Moved), Some(Moved), None]),
            (Failure::FirstByteTimeout, true, Behind, [Some(Moved), Some(Moved), None]),
            (bad(), true, Behind, [Some(Moved), Some(Moved), None]),
            (Failure::Overtaken, false, Alone, [Some(Moved), Some(Moved), None]),
            // Nothing that a server did.
            (Failure::LaneFull, true, Alone, [Some(OffLane), Some(OffLane), None]),
            (Failure::ClientGone, true, Alone, [None, None, None]),
            (Failure::QueueFull, false, Alone, [None, None, None]),
        ];
        for (failure, reused, shared, expected) in table {
            let miss = Miss { failure: &failure, at: At { server: ServerId(0), reused, shared } };
            let found = [GET, POST, SPENT_PUT].map(|request| Tried::default().again(&miss, &request, || true));
            assert_eq!(found, expected, "{miss:?}");
        }
    }

    fn miss(failure: &Failure, server: usize, reused: bool) -> Miss<'_> {
        Miss { failure, at: At { server: ServerId(server), reused, shared: Shared::Alone } }
    }

    #[test]
    fn retries_end_with_their_number_and_with_the_budget() {
        let closed = Failure::ServerClosed;
        let mut tried = Tried::default();
        assert_eq!(tried.again(&miss(&closed, 0, false), &GET, || false), None, "the upstream cannot pay");
        assert_eq!(tried.again(&miss(&closed, 0, false), &GET, || true), Some(Again::Retry));
        assert_eq!(tried.again(&miss(&closed, 1, false), &GET, || true), Some(Again::Retry));
        assert_eq!(tried.again(&miss(&closed, 2, false), &GET, || panic!("not asked")), None);
        assert_eq!((tried.retries(), tried.avoided()), (2, [ServerId(0), ServerId(1)].as_slice()));
    }

    #[test]
    fn a_stale_connection_costs_nothing_at_its_own_server_and_a_retry_at_another() {
        let closed = Failure::ServerClosed;
        let none = Repeatable { most: 0, ..GET };
        let mut tried = Tried::default();
        assert_eq!(tried.again(&miss(&closed, 0, true), &none, || panic!("nothing to pay")), Some(Again::Stale));
        assert_eq!(tried.preferred(), Some(ServerId(0)));
        assert!(tried.wants_fresh() && tried.avoided().is_empty());
        assert!(tried.may_reach(ServerId(0), 0, || panic!("nothing to pay")));
        assert!(!tried.may_reach(ServerId(1), 0, || true));
        assert!(!tried.may_reach(ServerId(1), 1, || false), "the upstream cannot pay");
        assert!(tried.may_reach(ServerId(1), 1, || true));
        assert_eq!((tried.retries(), tried.avoided()), (1, [ServerId(0)].as_slice()));
    }

    #[test]
    fn one_that_was_overtaken_goes_anywhere_without_a_retry() {
        let none = Repeatable { most: 0, ..GET };
        let mut tried = Tried::default();
        for left in [true, false] {
            assert_eq!(tried.again(&miss(&Failure::Overtaken, 0, false), &none, || panic!("free")), Some(Again::Moved));
            assert_eq!((tried.preferred(), tried.may_share()), (None, left));
            assert!(tried.may_reach(ServerId(1), 0, || panic!("free")));
        }
    }

    #[test]
    fn a_connection_is_stale_once_and_then_the_server_died() {
        let closed = Failure::ServerClosed;
        let mut tried = Tried::default();
        assert_eq!(tried.again(&miss(&closed, 0, true), &GET, || true), Some(Again::Stale));
        assert_eq!(tried.again(&miss(&closed, 0, true), &GET, || true), Some(Again::Retry));
    }

    #[test]
    fn a_408_is_late_on_an_idle_connection_only_and_where_the_request_can_be_sent_again() {
        let mut tried = Tried::default();
        assert!(tried.is_late_408(408, true, || GET));
        assert!(!tried.is_late_408(408, true, || POST) && !tried.is_late_408(408, true, || SPENT_PUT));
        assert!(!tried.is_late_408(408, false, || GET) && !tried.is_late_408(503, true, || GET));
        let _: Option<Again> = tried.again(&miss(&Failure::Unasked, 0, true), &GET, || true);
        assert!(!tried.is_late_408(408, true, || GET), "once");
    }

    /// However it comes to them: each server that gets the request dies of it.
    #[test]
    fn a_request_that_kills_servers_reaches_one_and_as_many_as_there_are_retries() {
        let (closed, refused) = (Failure::ServerClosed, refused());
        for most in 0..4 {
            for first in [(true, Shared::Alone), (false, Shared::Alone), (true, Shared::Behind), (false, Shared::Ahead)]
            {
                for stays in [true, false] {
                    let request = Repeatable { most, ..GET };
                    let mut tried = Tried::default();
                    let (mut server, mut dead) = (0, vec![0]);
                    let (mut reused, mut shared) = first;
                    let mut failure = &closed;
                    loop {
                        let miss = Miss { failure, at: At { server: ServerId(server), reused, shared } };
                        let Some(again) = tried.again(&miss, &request, || true) else { break };
                        let same = stays && again != Again::Retry;
                        server = if same { server } else { dead.len() };
                        if !tried.may_reach(ServerId(server), most, || true) {
                            break;
                        }
                        failure = if dead.contains(&server) { &refused } else { &closed };
                        if !dead.contains(&server) {
                            dead.push(server);
                        }
                        (reused, shared) = (false, Shared::Alone);
                    }
                    assert!(dead.len() <= 1 + most as usize, "{most} retries, {first:?}: {} dead", dead.len());
                    assert!(dead.len() == 1 + most as usize || first.1 == Shared::Behind, "{most} {first:?} {dead:?}");
                }
            }
        }
    }
}
