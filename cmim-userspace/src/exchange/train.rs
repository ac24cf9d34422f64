//! Server connections that several requests share at a time: the requests go out behind one another, and the
//! connection's reading side goes from each exchange to the next.
//!
//! [`crate::upstream::Train`] decides the order; here are the heads that wait to be sent, the wakers, and the connection
//! while it is between two exchanges. The exchange whose turn it is writes for all: what others add in one turn of the
//! event loop goes out with one system call. All of it stays on one worker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::server::Carriage;
use crate::net::Stream;
use crate::upstream::{Coping, Endpoint, Next, Seat, Train};

/// Heads that one write takes.
const SLICES: usize = 64;
/// A request that stands behind a reply for longer than this is sent on another connection. Servers take the requests of
/// one connection one by one, so that they have hardly begun with it.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// How long a reply to a request that stood behind another one may take to begin. A server that took both in one read
/// and forgot the second never answers it.
pub(super) const SECOND_PATIENCE: Duration = Duration::from_secs(1);

/// Nobody is put behind a reply that has been awaited, or is on its way, for longer: it is slower than the others.
const STUCK: Duration = Duration::from_millis(10);

/// The trains of one worker that take requests, by server.
#[derive(Debug, Default)]
pub struct Trains {
    servers: RefCell<Vec<Rc<Platform>>>,
}

/// One server, as its trains have to know it.
#[derive(Debug)]
struct Platform {
    endpoint: Arc<Endpoint>,
    coping: RefCell<Coping>,
    /// It was found not to cope, and that was logged.
    told: Cell<bool>,
    trains: RefCell<Vec<Rc<Shared>>>,
}

/// One connection with its requests.
#[derive(Debug)]
struct Shared {
    platform: Rc<Platform>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    order: Train,
    /// Not sent yet, the rest of a partly sent one first; the last is of the last seat.
    heads: VecDeque<Bytes>,
    /// A byte of the first of `heads` was sent.
    partly: bool,
    /// The server takes no more.
    broken: bool,
    /// From the seat whose turn it is on.
    wakers: VecDeque<Option<Waker>>,
    /// The connection, between two exchanges.
    carriage: Option<Carriage>,
    /// Since when it is the present one's turn.
    since: Instant,
}

/// A request's place on a server connection; given up when dropped before its reply is whole.
#[derive(Debug)]
pub(super) struct Ride {
    train: Rc<Shared>,
    seat: Seat,
}

/// The connection ended, or is held up, before it was this request's turn.
#[derive(Debug)]
pub(super) struct Overtaken;

impl Trains {
    /// A seat for the request with this head on a connection to `endpoint`: behind others where there is room and the
    /// server copes, else the first on a connection that the caller has to provide. `most`: requests at once on one
    /// connection. `last`: nobody may stand behind it.
    pub(super) fn board(&self, endpoint: &Arc<Endpoint>, head: Bytes, most: usize, last: bool, now: Instant) -> Ride {
        let platform = self.platform(endpoint);
        let mut trains = platform.trains.borrow_mut();
        let at_once = platform.coping.borrow_mut().most(now);
        if at_once > 1 {
            for train in trains.iter() {
                if let Some(seat) = train.board(&head, last, at_once, now) {
                    return Ride { train: Rc::clone(train), seat };
                }
            }
        }
        let mut order = Train::new(most);
        let seat = order.board(last).unwrap_or(Seat(0));
        trains.retain(|train| !train.state.borrow().order.is_sealed());
        let state = State {
            order,
            heads: VecDeque::from([head]),
            partly: false,
            broken: false,
            wakers: VecDeque::from([None]),
            carriage: None,
            since: now,
        };
        let train = Rc::new(Shared { platform: Rc::clone(&platform), state: RefCell::new(state) });
        trains.push(Rc::clone(&train));
        Ride { train, seat }
    }

    fn platform(&self, endpoint: &Arc<Endpoint>) -> Rc<Platform> {
        let mut servers = self.servers.borrow_mut();
        if let Some(platform) = servers.iter().find(|platform| Arc::ptr_eq(&platform.endpoint, endpoint)) {
            return Rc::clone(platform);
        }
        // Those that the configuration has no more.
        servers.retain(|platform| Arc::strong_count(&platform.endpoint) > 1);
        let platform = Rc::new(Platform {
            endpoint: Arc::clone(endpoint),
            coping: RefCell::default(),
            told: Cell::new(false),
            trains: RefCell::default(),
        });
        servers.push(Rc::clone(&platform));
        platform
    }
}

impl Platform {
    /// A connection ended before the first response on it was whole, with requests behind it.
    fn cut(&self) {
        self.coping.borrow_mut().cut(Instant::now());
        if !self.told.replace(true) {
            tracing::warn!(
                "the server {} broke off a response with requests behind it on its connection: each request gets a \
                 connection of its own for {} minutes, now and whenever that is so",
                self.endpoint.name,
                Coping::CUT_PAUSE.as_secs() / 60,
            );
        }
    }

    /// Requests behind another one were left without a reply.
    fn failed(&self) {
        if self.coping.borrow_mut().failed(Instant::now()) && !self.told.replace(true) {
            tracing::warn!(
                "the server {} ends connections on which requests wait behind one another: each gets a connection of its \
                 own for {} s, now and whenever that is so",
                self.endpoint.name,
                Coping::PAUSE.as_secs(),
            );
        }
    }
}

impl Shared {
    fn board(&self, head: &Bytes, last: bool, at_once: u64, now: Instant) -> Option<Seat> {
        let mut state = self.state.borrow_mut();
        if state.order.aboard() >= at_once || now.saturating_duration_since(state.since) > STUCK {
            return None;
        }
        let seat = state.order.board(last)?;
        state.heads.push_back(head.clone());
        state.wakers.push_back(None);
        let turn = state.order.turn();
        state.wake(turn);
        Some(seat)
    }
}

impl State {
    fn wake(&mut self, seat: Seat) {
        let index = seat.0.checked_sub(self.order.turn().0).and_then(|index| usize::try_from(index).ok());
        if let Some(waker) = index.and_then(|index| self.wakers.get_mut(index)?.take()) {
            waker.wake();
        }
    }

    fn listen(&mut self, seat: Seat, cx: &Context<'_>) {
        let index = seat.0.checked_sub(self.order.turn().0).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.wakers.get_mut(index)) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(none) => *none = Some(cx.waker().clone()),
            None => {}
        }
    }

    /// So many bytes of `heads` went out.
    fn sent(&mut self, mut count: usize) {
        let mut whole = 0;
        while let Some(head) = self.heads.front_mut() {
            let step = count.min(head.len());
            head.advance(step);
            count -= step;
            if !head.is_empty() {
                self.partly |= step > 0;
                break;
            }
            self.partly = false;
            whole += 1;
            self.heads.pop_front();
        }
        self.order.went_out(whole, self.partly);
    }

    /// Changes the order and tells those who are out.
    fn cut(&mut self, how: impl FnOnce(&mut Train)) {
        how(&mut self.order);
        self.heads.truncate(usize::try_from(self.order.unsent()).unwrap_or(usize::MAX) + usize::from(self.partly));
        let turn = self.order.turn().0;
        for (seat, waker) in (turn..).zip(&mut self.wakers) {
            if !self.order.is_served(Seat(seat))
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }
}

impl Ride {
    /// Whether the caller has to provide the connection.
    pub(super) fn is_first(&self) -> bool {
        self.seat == Seat(0)
    }

    /// The connection once it is this request's turn.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<Result<Carriage, Overtaken>> {
        let mut state = self.train.state.borrow_mut();
        if !state.order.is_served(self.seat) {
            return Poll::Ready(Err(Overtaken));
        }
        if state.order.is_turn(self.seat)
            && let Some(carriage) = state.carriage.take()
        {
            return Poll::Ready(Ok(carriage));
        }
        state.listen(self.seat, cx);
        Poll::Pending
    }

    /// Sends what waits to be sent, for all; `cx` is woken when there is more of it.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, stream: &Stream) {
        let state = &mut *self.train.state.borrow_mut();
        state.listen(self.seat, cx);
        while !state.heads.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = state.heads.len().min(SLICES);
            for (slice, head) in slices.iter_mut().zip(&state.heads) {
                *slice = IoSlice::new(head);
            }
            match stream.poll_write(cx, slices.get(..count).unwrap_or_default()) {
                Poll::Ready(Ok(count)) => state.sent(count),
                Poll::Ready(Err(_)) => {
                    // Its replies to what it has may be on their way (RFC 9112 section 9.5).
                    state.broken = true;
                    state.cut(Train::cut_behind);
                    state.heads.clear();
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Whether the server stopped taking requests.
    pub(super) fn is_broken(&self) -> bool {
        self.train.state.borrow().broken
    }

    /// Whether somebody stands behind.
    pub(super) fn has_followers(&self) -> bool {
        self.train.state.borrow().order.behind() > 0
    }

    /// Whether a byte of another request was sent behind this one, of which it is the turn.
    pub(super) fn others_were_sent(&self) -> bool {
        self.train.state.borrow().order.was_sent_behind()
    }

    /// Whether the server may break off this request's response for those that were sent behind it. `persistent`: it said
    /// nothing of closing behind the response.
    pub(super) fn may_be_cut(&self, persistent: bool) -> bool {
        self.others_were_sent() && !(persistent && self.train.platform.coping.borrow().is_proven())
    }

    /// Nobody else gets on behind.
    pub(super) fn seal(&self) {
        self.train.state.borrow_mut().order.seal();
    }

    /// Those behind go elsewhere: this one's reply would hold them up.
    pub(super) fn release_followers(&self) {
        self.train.state.borrow_mut().cut(Train::cut_behind);
    }

    /// The head of the reply to this request, which was sent behind another one, came at `now`; `waited`: so long after
    /// it was its turn.
    pub(super) fn was_answered(&self, waited: Duration, now: Instant) {
        self.train.platform.coping.borrow_mut().replied(waited, now);
    }

    /// It is not this request's turn in time.
    pub(super) fn was_overtaken(&self, waited: Duration) {
        self.train.platform.coping.borrow_mut().waits(waited, Instant::now());
    }

    /// The server left this request without an answer that it got behind another one.
    pub(super) fn was_failed(&self) {
        self.train.platform.failed();
    }

    /// The connection ended in the middle, with other requests sent behind this one.
    pub(super) fn was_cut(&self) {
        self.train.platform.cut();
    }

    /// This request's reply is whole; `more_came`: bytes came behind it. What becomes of the connection.
    pub(super) fn finish(&self, persistent: bool, more_came: bool, now: Instant) -> Next {
        let state = &mut *self.train.state.borrow_mut();
        let platform = &self.train.platform;
        let left_alone = !persistent && state.order.behind() > 0;
        state.since = now;
        if left_alone {
            platform.failed();
        } else if persistent && self.seat > Seat(0) {
            platform.coping.borrow_mut().proved();
        }
        let broken = state.broken;
        state.wakers.pop_front();
        let mut next = Next::Close;
        state.cut(|order| next = order.pass_on(persistent && !broken, more_came));
        next
    }

    /// Hands the connection to the one whose turn it is now.
    pub(super) fn hand_on(&self, carriage: Carriage) {
        let mut state = self.train.state.borrow_mut();
        state.carriage = Some(carriage);
        let turn = state.order.turn();
        state.wake(turn);
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        let left = {
            let mut state = self.train.state.borrow_mut();
            let turn = state.order.turn();
            state.cut(|order| order.leave(self.seat));
            if state.order.is_served(turn) { None } else { state.carriage.take() }
        };
        // Closed outside the borrow: closing is a system call.
        drop(left);
    }
}
