//! Requests sent behind one another on one server connection (RFC 9112 section 9.3.2): whose reply is next, and who has
//! to go elsewhere.
//!
//! Replies come in the order of the requests and say nothing of whose they are. So a reply that nobody takes off the
//! connection ends it for all behind, and so does whatever leaves a doubt where a reply ends.

/// A request's position on its connection, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub u64);

/// The requests on one connection, from the one that takes it until none is there any more.
#[derive(Debug, Clone)]
pub struct Train {
    /// Requests at once.
    most: u64,
    /// Whose reply is next.
    turn: u64,
    /// Seats before this one were sent whole.
    sent: u64,
    /// Of the seats before this one at least a byte was sent.
    begun: u64,
    /// The next that is taken.
    next: u64,
    /// Seats from this one on get no reply here.
    end: u64,
    sealed: bool,
}

/// What becomes of the connection behind a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The reply of this seat is next.
    Turn(Seat),
    /// Every request that was sent has its reply.
    Idle,
    /// It is closed.
    Close,
}

impl Train {
    pub fn new(most: usize) -> Self {
        Self { most: most as u64, turn: 0, sent: 0, begun: 0, next: 0, end: u64::MAX, sealed: false }
    }

    /// Takes the next seat, if there is one. `last`: nobody gets one behind it.
    pub fn board(&mut self, last: bool) -> Option<Seat> {
        if !self.has_room() {
            return None;
        }
        let seat = Seat(self.next);
        self.next += 1;
        self.sealed |= last;
        self.check_invariants();
        Some(seat)
    }

    pub fn has_room(&self) -> bool {
        !self.sealed && self.aboard() < self.most
    }

    /// Whether a seat can still get its reply here.
    pub fn is_served(&self, seat: Seat) -> bool {
        seat.0 < self.end
    }

    pub fn is_turn(&self, seat: Seat) -> bool {
        seat.0 == self.turn && self.is_served(seat)
    }

    pub fn turn(&self) -> Seat {
        Seat(self.turn)
    }

    /// How many have a seat and no reply.
    pub fn aboard(&self) -> u64 {
        self.next - self.turn
    }

    /// How many stand behind the one whose turn it is.
    pub fn behind(&self) -> u64 {
        self.next.min(self.end).saturating_sub(self.turn + 1)
    }

    /// Whether a byte of a request behind the one whose turn it is was sent.
    pub fn was_sent_behind(&self) -> bool {
        self.begun > self.turn + 1
    }

    /// Seats of which nothing was sent: the last ones.
    pub fn unsent(&self) -> u64 {
        self.next - self.begun
    }

    /// Requests were sent on: those up to `sent` whole, and a part of the one behind them where `partly`.
    pub fn went_out(&mut self, whole: u64, partly: bool) {
        self.sent += whole;
        self.begun = self.sent + u64::from(partly);
        self.check_invariants();
    }

    /// Whether nobody gets on any more, for good.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Nobody gets on any more.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Those behind the one whose turn it is go elsewhere.
    pub fn cut_behind(&mut self) {
        self.cut(self.turn + 1);
    }

    /// A seat that has not got its whole reply is given up: nobody would know where the next one begins.
    pub fn leave(&mut self, seat: Seat) {
        if seat.0 >= self.turn && self.is_served(seat) {
            self.cut(seat.0);
        }
    }

    /// The reply whose turn it was is whole. `persistent`: the connection takes, and answers, more. `more_came`: bytes
    /// came behind the reply.
    pub fn pass_on(&mut self, persistent: bool, more_came: bool) -> Next {
        debug_assert!(self.is_served(self.turn()), "a reply that was given up was read to its end");
        // Bytes that came before their request was sent are no reply to it.
        let unasked = self.turn >= self.sent || (more_came && self.turn + 1 >= self.sent);
        let goes_on = persistent && !unasked;
        if !goes_on {
            self.cut_behind();
        }
        self.turn += 1;
        let next = if self.turn < self.next.min(self.end) {
            Next::Turn(self.turn())
        } else if self.turn == self.next && goes_on {
            Next::Idle
        } else {
            Next::Close
        };
        if next == Next::Idle {
            // The connection goes to whoever comes next, with a train of its own.
            self.sealed = true;
        }
        self.check_invariants();
        next
    }

    fn cut(&mut self, from: u64) {
        self.sealed = true;
        if from >= self.next {
            return;
        }
        self.end = self.end.min(from);
        if from >= self.begun {
            // The server never hears of them.
            self.next = from;
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert!(self.sent <= self.begun && self.begun <= self.next, "{self:?}");
        debug_assert!(self.turn <= self.next, "{self:?}");
        debug_assert!(self.next - self.turn <= self.most, "{self:?}");
    }
}

#[cfg(test)]
mod tests;
