//! Whether requests may stand behind one another at a server: only while that costs them next to nothing, and only as
//! long as the server copes with it.

use std::time::{Duration, Instant};

/// Connections in a row that ended under requests behind one another, of which none behind another got a reply.
const STRIKES: u32 = 3;
/// How long a server that does not cope gets no two requests on one connection.
const PAUSE: Duration = Duration::from_mins(1);
/// How long a server that broke off a response with others behind it gets no two requests on one connection. Long: it may
/// have cost a client its response, and most that do so always do.
const CUT_PAUSE: Duration = Duration::from_hours(1);
/// What standing behind others may cost a request: so many are sent behind one another as the server answers within this.
/// Nanoseconds.
const BUDGET: u64 = 10_000_000;
/// How long a server that is not quick is left alone before one request finds out again.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// The mean moves by this part of a new reply's difference: some ten replies decide.
const WEIGHT: u64 = 8;

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Coping {
    strikes: u32,
    /// Until then each request has a connection of its own; from then on one finds out.
    out_until: Option<Instant>,
    /// It broke off a response: until then nothing that is heard of it changes that.
    cut_until: Option<Instant>,
    /// It answered a request behind another one, and has broken off nothing since.
    proven: bool,
    /// How long the server is waited for behind a reply. That is what it takes for a request, while what the first one
    /// on a connection waits says how many others it has. Nanoseconds.
    mean: u64,
}

impl Coping {
    /// For how long a server that does not cope is left alone.
    pub const PAUSE: Duration = PAUSE;
    /// For how long one that broke off a response is.
    pub const CUT_PAUSE: Duration = CUT_PAUSE;

    /// How many requests may be on one connection at once, the new one included.
    #[must_use]
    pub fn most(&mut self, now: Instant) -> u64 {
        if let Some(until) = self.cut_until {
            if now < until {
                return 1;
            }
            (self.cut_until, self.out_until) = (None, Some(now));
        }
        match self.out_until {
            None => BUDGET.checked_div(self.mean).unwrap_or(u64::MAX),
            Some(until) if now < until => 1,
            Some(_) => {
                self.out_until = Some(now + SLOW_PAUSE);
                2
            }
        }
    }

    /// A request that was sent behind another one is answered. `waited`: how long the server was waited for once it was
    /// this one's turn.
    pub fn replied(&mut self, waited: Duration, now: Instant) {
        self.strikes = 0;
        self.waits(waited, now);
    }

    /// The response to a request that was sent behind another one is whole, and the connection goes on.
    pub fn proved(&mut self) {
        self.proven = self.cut_until.is_none();
    }

    /// A request that was sent behind another one has waited so long.
    pub fn waits(&mut self, waited: Duration, now: Instant) {
        if self.cut_until.is_some() {
            return;
        }
        // One that took very long is no more than that: one.
        let waited = u64::try_from(waited.as_nanos()).map_or(BUDGET, |waited| waited.min(BUDGET));
        let is_quick = |time: u64| time <= BUDGET / 2;
        if self.out_until.is_some() {
            if is_quick(waited) {
                (self.out_until, self.mean) = (None, waited);
            }
            return;
        }
        self.mean = self.mean - self.mean / WEIGHT + waited / WEIGHT;
        if !is_quick(self.mean) {
            self.out_until = Some(now + SLOW_PAUSE);
        }
    }

    /// The server left requests without a reply that it had got behind another one. True: it is found not to cope.
    #[must_use]
    pub fn failed(&mut self, now: Instant) -> bool {
        if self.cut_until.is_some() {
            return false;
        }
        self.strikes += 1;
        let out = self.strikes >= STRIKES;
        if out {
            self.strikes = 0;
            self.out_until = Some(now + PAUSE);
        }
        out
    }

    /// Whether the server is known to answer requests that stand behind another one.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The server ended a connection before the first response on it was whole, with other requests behind it.
    pub fn cut(&mut self, now: Instant) {
        self.strikes = 0;
        self.proven = false;
        self.cut_until = Some(now + CUT_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_server_that_ends_connections_under_waiting_requests_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut coping = Coping::default();
        for _ in 1..STRIKES {
            assert!(!coping.failed(now));
            assert!(coping.most(now) > 1);
        }
        assert!(coping.failed(now));
        assert_eq!(coping.most(now + PAUSE / 2), 1);
        assert_eq!(coping.most(now + PAUSE), 2);
        assert_eq!(coping.most(now + PAUSE), 1, "one finds out for all");
    }

    #[test]
    fn a_server_that_breaks_off_a_response_with_others_behind_it_gets_one_request_at_a_time_from_then_on() {
        let now = Instant::now();
        let mut coping = Coping::default();
        coping.proved();
        assert!(coping.is_proven());
        coping.cut(now);
        assert_eq!(coping.most(now), 1);
        // Those that were on their way say nothing of it.
        coping.replied(Duration::ZERO, now);
        coping.waits(Duration::ZERO, now);
        coping.proved();
        (0..STRIKES).for_each(|_| _ = coping.failed(now));
        assert!(!coping.is_proven());
        assert_eq!(coping.most(now + CUT_PAUSE / 2), 1);
        assert_eq!(coping.most(now + CUT_PAUSE), 2, "one finds out for all");
        assert_eq!(coping.most(now + CUT_PAUSE), 1);
        coping.replied(Duration::ZERO, now + CUT_PAUSE);
        assert!(coping.most(now + CUT_PAUSE) > 2);
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
        assert!(coping.most(now) > 1);
    }

    #[test]
    fn as_many_stand_behind_one_another_as_the_server_answers_in_time() {
        let now = Instant::now();
        let mut coping = Coping::default();
        assert!(coping.most(now) >= 64);
        (0..100).for_each(|_| coping.replied(MILLISECOND, now));
        assert!((10..=11).contains(&coping.most(now)), "{coping:?}");
        (0..100).for_each(|_| coping.replied(MILLISECOND / 100, now));
        assert!(coping.most(now) >= 64, "{coping:?}");
    }

    #[test]
    fn slow_replies_get_connections_of_their_own_until_one_finds_them_quick_again() {
        let now = Instant::now();
        let mut coping = Coping::default();
        coping.replied(MILLISECOND * 20, now);
        assert!(coping.most(now) > 1, "one slow reply decides nothing");
        (0..20).for_each(|_| coping.replied(MILLISECOND * 20, now));
        assert_eq!(coping.most(now), 1);
        let later = now + SLOW_PAUSE;
        assert_eq!(coping.most(later), 2);
        coping.replied(MILLISECOND * 20, later);
        assert_eq!(coping.most(later), 1);
        let later = later + SLOW_PAUSE;
        assert_eq!(coping.most(later), 2);
        coping.replied(MILLISECOND * 2, later);
        assert_eq!(coping.most(later), 5);
    }
}
