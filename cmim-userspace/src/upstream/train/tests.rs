//! Trains against a plain model of the other side: a server that answers what it got whole, in order.

use std::collections::VecDeque;

use super::*;

/// Requests at once; three show a first, a middle and a last one.
const MOST: usize = 3;
/// Steps of each case that is tried exhaustively.
const STEPS: usize = 10;

#[derive(Debug, Clone, Copy)]
enum Step {
    Board {
        last: bool,
    },
    /// One more request, or a part of one, goes out.
    SendWhole,
    SendPart,
    /// The reply whose turn it is ends.
    Finish {
        persistent: bool,
        more_came: bool,
    },
    /// The client of the seat so far behind the turn leaves.
    Leave(u64),
    CutBehind,
}

const EVERY: [Step; 11] = [
    Step::Board { last: false },
    Step::Board { last: true },
    Step::SendWhole,
    Step::SendPart,
    Step::Finish { persistent: true, more_came: false },
    Step::Finish { persistent: true, more_came: true },
    Step::Finish { persistent: false, more_came: false },
    Step::Leave(0),
    Step::Leave(1),
    Step::Leave(2),
    Step::CutBehind,
];

/// A connection as both of its ends see it.
#[derive(Debug, Clone)]
struct World {
    train: Train,
    /// Heads that were not sent.
    unsent: VecDeque<u64>,
    partly: bool,
    /// What the server got whole and has not answered, in order.
    server: VecDeque<u64>,
    /// Requests that still expect their reply here.
    waiting: VecDeque<Seat>,
    boarded: u64,
    over: bool,
}

impl World {
    fn new() -> Self {
        Self {
            train: Train::new(MOST),
            unsent: VecDeque::new(),
            partly: false,
            server: VecDeque::new(),
            waiting: VecDeque::new(),
            boarded: 0,
            over: false,
        }
    }

    /// False: nothing of this kind can happen now.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Board { last } => {
                let had_room = self.train.has_room();
                let Some(seat) = self.train.board(last) else {
                    assert!(!had_room);
                    return false;
                };
                assert_eq!(seat, Seat(self.boarded), "a seat was given twice");
                assert!(self.waiting.len() < MOST);
                assert!(!last || !self.train.has_room(), "somebody could stand behind the last one");
                self.boarded += 1;
                self.unsent.push_back(seat.0);
                self.waiting.push_back(seat);
            }
            Step::SendWhole => {
                let Some(request) = self.unsent.pop_front() else { return false };
                self.server.push_back(request);
                self.partly = false;
                self.train.went_out(1, false);
            }
            Step::SendPart => {
                if self.unsent.is_empty() || self.partly {
                    return false;
                }
                self.partly = true;
                self.train.went_out(0, true);
            }
            Step::Finish { persistent, more_came } => return self.finish(persistent, more_came),
            Step::Leave(distance) => {
                let seat = Seat(self.train.turn().0 + distance);
                if !self.waiting.contains(&seat) {
                    return false;
                }
                self.train.leave(seat);
                assert!(!self.train.is_served(seat));
                self.settle();
            }
            Step::CutBehind => {
                self.train.cut_behind();
                self.settle();
                assert!(self.waiting.len() <= 1);
            }
        }
        true
    }

    fn finish(&mut self, persistent: bool, more_came: bool) -> bool {
        let turn = self.train.turn();
        // The server answers only what it got, and the exchange reads only while it waits.
        if self.waiting.front() != Some(&turn) || self.server.front() != Some(&turn.0) {
            return false;
        }
        let answered = self.server.pop_front();
        assert_eq!(answered, Some(turn.0), "the reply is another request's");
        self.waiting.pop_front();
        let next = self.train.pass_on(persistent, more_came);
        self.settle();
        match next {
            Next::Turn(seat) => {
                assert_eq!(self.waiting.front(), Some(&seat));
                assert!(persistent);
                assert!(!more_came || self.server.front() == Some(&seat.0), "bytes without a request were passed on");
            }
            Next::Idle => {
                assert!(persistent && !more_came);
                assert!(self.server.is_empty() && self.unsent.is_empty(), "a reply is still to come: {self:?}");
                assert!(self.waiting.is_empty() && !self.train.has_room());
                self.over = true;
            }
            Next::Close => {
                assert!(self.waiting.is_empty(), "requests wait on a closed connection");
                self.over = true;
            }
        }
        true
    }

    /// Those who are out go; heads of which nothing was sent go with them.
    fn settle(&mut self) {
        let train = &self.train;
        self.waiting.retain(|&seat| train.is_served(seat));
        self.unsent.truncate(usize::try_from(train.unsent()).unwrap() + usize::from(self.partly));
        if !train.is_served(train.turn()) {
            // Whoever had the connection has dropped it.
            self.over = true;
        }
    }

    fn check(&self) {
        for (seat, behind) in self.waiting.iter().zip(0..) {
            assert_eq!(*seat, Seat(self.train.turn().0 + behind), "{self:?}");
        }
        assert_eq!(self.train.behind(), (self.waiting.len() as u64).saturating_sub(1), "{self:?}");
    }
}

fn walk(world: &World, left: usize) -> u64 {
    if left == 0 || world.over {
        return 1;
    }
    let mut cases = 0;
    for step in EVERY {
        let mut next = world.clone();
        if next.step(step) {
            if !next.over {
                next.check();
            }
            cases += walk(&next, left - 1);
        }
    }
    cases
}

#[test]
fn every_short_course_gives_each_reply_to_its_own_request_and_keeps_no_connection_that_owes_one() {
    let cases = walk(&World::new(), STEPS);
    assert!(cases > 10_000, "only {cases} courses");
}

/// splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^ (value >> 27)
}

#[test]
fn so_does_every_long_course_of_random_steps() {
    // What ends a connection is rare, so that the courses become long.
    let likely = [EVERY[0], EVERY[2], EVERY[4]];
    let mut longest = 0;
    for case in 0..20_000 {
        let (mut world, mut state) = (World::new(), case);
        while !world.over && world.boarded < 1000 {
            let number = usize::try_from(random(&mut state) >> 33).unwrap();
            let step =
                if number % 100 == 0 { EVERY[number / 100 % EVERY.len()] } else { likely[number % likely.len()] };
            if world.step(step) && !world.over {
                world.check();
            }
            if world.train.is_sealed() && world.waiting.is_empty() {
                break;
            }
        }
        longest = longest.max(world.boarded);
    }
    assert!(longest > 50, "the longest course had {longest} requests");
}

#[test]
fn a_reply_that_came_before_its_request_was_sent_ends_the_connection() {
    let mut train = Train::new(4);
    assert_eq!((train.board(false), train.board(false)), (Some(Seat(0)), Some(Seat(1))));
    train.went_out(1, true);
    assert_eq!(train.pass_on(true, true), Next::Close);
    assert!(!train.is_served(Seat(1)));
}

#[test]
fn a_client_that_leaves_before_its_request_is_sent_costs_no_connection() {
    let mut train = Train::new(4);
    assert_eq!((train.board(false), train.board(false)), (Some(Seat(0)), Some(Seat(1))));
    train.went_out(1, false);
    train.leave(Seat(1));
    assert_eq!(train.pass_on(true, false), Next::Idle);
}
