//! Whether requests may stand behind one another at a server: only while that costs them next to nothing, and only as
//! long as the server copes with it.

use std::time::{Duration, Instant};

/// Connections in a row that ended under requests behind one another, of which none behind another got a reply.
const STRIKES: u32 = 3;
/// How long a server that does not cope gets no two requests on one connection.
const PAUSE: Duration = Duration::from_mins(1);
/// A server that takes longer for the reply behind a reply does better with a connection for each.
const QUICK: Duration = Duration::from_millis(1);
/// How long a server that is not quick is left alone before one request finds out again.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// The mean moves by this part of a new reply's difference: some ten replies decide.
const WEIGHT: u32 = 8;

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Coping {
    strikes: u32,
    /// Until then each request has a connection of its own; from then on one finds out.
    out_until: Option<Instant>,
    /// How long the server is waited for behind a reply. That is what it takes for a request, while what the first one
    /// on a connection waits says how many others it has.
    mean: Duration,
}

impl Coping {
    /// For how long a server that does not cope is left alone.
    pub const PAUSE: Duration = PAUSE;

    /// Whether a request may be sent behind another one.
    #[must_use]
    pub fn allows(&mut self, now: Instant) -> bool {
        match self.out_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.out_until = Some(now + SLOW_PAUSE);
                true
            }
        }
    }

    /// A request that was sent behind another one is answered. `waited`: how long the server was waited for once it was
    /// this one's turn.
    pub fn replied(&mut self, waited: Duration, now: Instant) {
        self.strikes = 0;
        if self.out_until.is_some() {
            if waited <= QUICK {
                (self.out_until, self.mean) = (None, waited);
            }
            return;
        }
        self.mean = self.mean * (WEIGHT - 1) / WEIGHT + waited / WEIGHT;
        if self.mean > QUICK {
            self.out_until = Some(now + SLOW_PAUSE);
        }
    }

    /// The server left requests without a reply that it had got behind another one. True: it is found not to cope.
    #[must_use]
    pub fn failed(&mut self, now: Instant) -> bool {
        self.strikes += 1;
        let out = self.strikes >= STRIKES;
        if out {
            self.strikes = 0;
            self.out_until = Some(now + PAUSE);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_connections_under_waiting_requests_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut coping = Coping::default();
        for _ in 1..STRIKES {
            assert!(!coping.failed(now));
            assert!(coping.allows(now));
        }
        assert!(coping.failed(now));
        assert!(!coping.allows(now + PAUSE / 2));
        assert!(coping.allows(now + PAUSE));
        assert!(!coping.allows(now + PAUSE), "one finds out for all");
    }

    #[test]
    fn a_server_that_answers_one_behind_another_now_and_then_copes() {
        let now = Instant::now();
        let mut coping = Coping::default();
        for _ in 0..10 * STRIKES {
            assert!(!coping.failed(now));
            assert!(!coping.failed(now));
            coping.replied(Duration::ZERO, now);
        }
        assert!(coping.allows(now));
    }

    #[test]
    fn slow_replies_get_connections_of_their_own_until_one_finds_them_quick_again() {
        let now = Instant::now();
        let mut coping = Coping::default();
        coping.replied(QUICK * 4, now);
        assert!(coping.allows(now), "one slow reply decides nothing");
        (0..20).for_each(|_| coping.replied(QUICK * 4, now));
        assert!(!coping.allows(now));
        let later = now + SLOW_PAUSE;
        assert!(coping.allows(later));
        coping.replied(QUICK * 4, later);
        assert!(!coping.allows(later));
        let later = later + SLOW_PAUSE;
        assert!(coping.allows(later));
        coping.replied(QUICK / 2, later);
        assert!(coping.allows(later) && coping.allows(later));
    }
}
