//! The loop of one client connection: heads in, exchanges started and ended, the connection's own clocks.

mod clocks;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::close::Ending;
use super::departure::Departure;
use super::request::{self, Ended, Origin, Parsed};
use super::running::Running;
use crate::config::model::Listener;
use crate::exchange::{Link, Outcome, Owner, Refusal, Site, Trail};
use crate::h1::{Limits, RequestError, RequestHead, RequestParser, Version, head_has_begun};
use crate::observe::roll::Doing;
use crate::stack::{Order, Seq, Turn};

/// A client connection and the requests of it that are in the device.
pub(super) struct Connection<'a> {
    site: &'a Site,
    link: &'a Link,
    listener: &'a Listener,
    limits: Limits,
    parser: RequestParser,
    heads: Heads,
    order: Order,
    running: Running<'a, Ended>,
    /// Read and not started, in order. Dropped behind those that were started, so that the access log has them in order.
    waiting: VecDeque<Parsed<'a>>,
    /// When the first byte of the head that is being read came.
    head_since: Option<Instant>,
    idle_since: Instant,
    /// The version of the request that was read last.
    version: Version,
    departure: Departure,
    /// Ends when the connection breaks; only there while nobody reads from the client.
    presence: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    /// Its listener is gone: it ends behind what the client has sent already.
    last: bool,
    /// Idle for so long that it can be parked.
    rested: bool,
}

/// What a connection takes along between two requests, from one configuration to the next or while it is parked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    /// So many it has had.
    pub requests: Seq,
    pub idle_since: Instant,
    pub last: bool,
}

impl Rest {
    /// Of a connection that has just begun.
    pub(super) fn new() -> Self {
        Self { requests: Seq(0), idle_since: Instant::now(), last: false }
    }
}

/// Whether further heads are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heads {
    Open,
    /// The last request has no content and says `close`: nothing may follow it (RFC 9112 section 9.6).
    Last,
    /// The client has ended its side, said `close`, or sent what is no head.
    Over,
}

/// What came of looking at the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// There is something to look at.
    More,
    Nothing,
    Broken,
}

impl<'a> Connection<'a> {
    pub(super) fn new(site: &'a Site, link: &'a Link, listener: &'a Listener, rest: Rest) -> Self {
        let limits = &site.config.limits;
        let Rest { requests, idle_since, last } = rest;
        Self {
            site,
            link,
            listener,
            limits: Limits {
                head: limits.request_head,
                fields: limits.request_headers,
                target: limits.request_target,
                content: limits.request_content,
            },
            parser: RequestParser::new(),
            heads: Heads::Open,
            order: Order::behind(requests, listener.pipeline_depth),
            running: Running::new(),
            waiting: VecDeque::new(),
            head_since: None,
            idle_since,
            version: Version::Http11,
            departure: Departure::default(),
            presence: None,
            last,
            rested: false,
        }
    }

    /// Whether no request is in the device.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether no request is in the device, none has begun to come, and more may come.
    fn is_between_requests(&self) -> bool {
        self.order.is_empty() && self.head_since.is_none() && self.heads == Heads::Open
    }

    /// Whether it is between two requests, and a newer configuration waits for it.
    pub(super) fn may_move(&self) -> bool {
        self.is_between_requests() && !self.last && self.site.drain.is_superseded()
    }

    /// Whether nothing has happened for a while, and nothing is kept that a parked connection has not.
    pub(super) fn may_park(&self) -> bool {
        self.rested && self.can_park()
    }

    fn can_park(&self) -> bool {
        self.is_between_requests()
            && !self.last
            && self.link.stream.is_tcp()
            && self.link.has_no_input()
            && !self.link.has_ended()
    }

    pub(super) fn rest(&self) -> Rest {
        Rest { requests: self.order.due(), idle_since: self.idle_since, last: self.last }
    }

    /// Drives the connection to its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            if let Some(ending) = self.heed_operator() {
                return Poll::Ready(ending);
            }
            self.read_heads();
            self.start();
            if let Poll::Ready(ended) = self.running.poll_next(cx) {
                if let Some(ending) = self.end(&ended) {
                    return Poll::Ready(ending);
                }
                continue;
            }
            if self.link.has_stepped_back() {
                return Poll::Pending;
            }
            if self.note_whole() {
                continue;
            }
            match self.poll_input(cx) {
                Input::More => continue,
                Input::Nothing => {}
                Input::Broken => return Poll::Ready(Ending::Gone),
            }
            if self.order.is_empty() {
                if self.heads != Heads::Open {
                    return Poll::Ready(self.orderly());
                }
                if self.is_drained() {
                    return Poll::Ready(Ending::Idle);
                }
            }
            match self.poll_clocks(cx) {
                Poll::Ready(Some(ending)) => return Poll::Ready(ending),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The end behind the last reply.
    fn orderly(&self) -> Ending {
        if self.heads == Heads::Last { Ending::Agreed } else { Ending::Orderly }
    }

    fn reads_ahead(&self) -> bool {
        let drain = &self.site.drain;
        // The next request is the newer configuration's; a head that has begun is still this one's.
        let wanted = if self.order.is_empty() {
            !drain.is_superseded() || self.head_since.is_some() || self.last
        } else {
            // Behind a reply that says `close` nothing is taken any more (RFC 9112 section 9.6).
            (!drain.has_begun() && !drain.is_superseded()) || (self.head_since.is_some() && !self.link.has_said_close())
        };
        self.heads == Heads::Open && wanted && self.order.has_room() && self.link.heads_are_next()
    }

    /// Reads what the client sends, or where that has to wait, sees whether the client is still there.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Input {
        if !self.reads_ahead() {
            return self.poll_presence(cx);
        }
        self.presence = None;
        match self.link.poll_fill(cx, self.site) {
            Poll::Ready(Ok(true)) => Input::More,
            Poll::Ready(Ok(false)) => {
                // Heads that are there already come before the end.
                let before = self.order.len();
                self.read_heads();
                if self.order.len() == before {
                    self.heads = Heads::Over;
                }
                Input::More
            }
            Poll::Ready(Err(_)) => Input::Broken,
            Poll::Pending => Input::Nothing,
        }
    }

    /// Watches a client that is not read from while requests of it are in the device.
    fn poll_presence(&mut self, cx: &mut Context<'_>) -> Input {
        if self.order.is_empty() {
            return Input::Nothing;
        }
        let link = self.link;
        if link.is_lent() {
            // Whoever has it sees breaks and ends himself.
            self.presence = None;
            return Input::Nothing;
        }
        let presence = self.presence.get_or_insert_with(|| Box::pin(link.stream.broken()));
        if presence.as_mut().poll(cx).is_ready() {
            return Input::Broken;
        }
        if !self.is_read() && !link.has_ended() && link.poll_end(cx).is_ready() {
            // Nothing follows but what is in the buffer.
            return Input::More;
        }
        Input::Nothing
    }

    /// Whether a request reads what the client sends, and so sees its end: for its content, or because it is a tunnel.
    fn is_read(&self) -> bool {
        match self.link.input_owner() {
            Owner::Heads => false,
            Owner::Content { seq, .. } => !self.order.is_waiting(seq),
            // It is one from the first byte of the server's word on.
            Owner::Tunnel { seq } => self.link.has_begun_reply_to(seq),
        }
    }

    /// The device is shutting down, or the listener is gone, and no head has begun.
    fn is_drained(&self) -> bool {
        (self.site.drain.ends_idle() || self.last) && self.head_since.is_none()
    }

    /// Takes the heads that are there already, up to the depth.
    fn read_heads(&mut self) {
        while self.reads_ahead() {
            let parsed: Result<_, RequestError> = self.link.with_input(|input| {
                if input.is_empty() {
                    return Ok(None);
                }
                let head = self.parser.parse(input, &self.limits)?;
                if head.is_none() && self.head_since.is_none() && head_has_begun(input) {
                    self.head_since = Some(Instant::now());
                    self.link.record.doing(Doing::Reading);
                }
                Ok(head)
            });
            match parsed {
                Ok(Some(head)) => self.accept(head),
                Ok(None) => break,
                // What was read is no request: the valid ones before it are answered first.
                Err(error) => self.refuse_bytes(error.status(), error.to_string()),
            }
        }
    }

    /// A whole head was read.
    fn accept(&mut self, head: RequestHead) {
        let trail = self.arrived();
        self.version = head.version;
        let owner = Owner::behind(self.order.coming(), &head);
        let is_whole = matches!(owner, Owner::Heads);
        if !head.persistent {
            self.heads = if is_whole { Heads::Last } else { Heads::Over };
        }
        let turn = if head.method.is_safe() && is_whole { Turn::Free } else { Turn::Barrier };
        let seq = self.order.arrived(turn);
        self.link.read(seq);
        let parsed = request::admit(self.origin(), seq, head, trail);
        match &parsed {
            Parsed::Job(_) if !is_whole => self.link.give_input_to(owner),
            Parsed::Refused(refused) if !refused.refusal.keep => self.heads = Heads::Over,
            Parsed::Job(_) | Parsed::Refused(_) => {}
        }
        self.waiting.push_back(parsed);
    }

    /// Counts a request that was read, and begins its notes.
    fn arrived(&mut self) -> Trail {
        let stacked = self.order.len() + 1;
        self.link.record.request(stacked);
        let began = self.head_since.take().unwrap_or_else(Instant::now);
        let mut trail = Trail::new(began);
        trail.stacked = stacked as u32;
        trail
    }

    /// Refuses what cannot be read as a request; nothing behind it can be either.
    fn refuse_bytes(&mut self, status: u16, reason: String) {
        let trail = self.arrived();
        self.heads = Heads::Over;
        let seq = self.order.arrived(Turn::Free);
        self.link.read(seq);
        let head_request = self.parser.asks_for_head();
        let refusal = Refusal { seq, status, reason, keep: false, head_request, retry_after: None };
        self.waiting.push_back(Parsed::Refused(request::unreadable(self.origin(), refusal, trail)));
    }

    fn origin(&self) -> Origin<'a> {
        Origin { site: self.site, link: self.link, listener: self.listener }
    }

    /// Starts what may start.
    fn start(&mut self) {
        while let Some(seq) = self.order.start_next() {
            self.link.record.stacked(self.order.len());
            self.link.record.doing(Doing::Waiting);
            match self.waiting.pop_front() {
                Some(Parsed::Job(job)) => self.running.push(request::run(job)),
                Some(Parsed::Refused(refused)) => {
                    // A reply of the device's own making has nobody to wait for.
                    self.order.whole(seq);
                    self.running.push(request::refuse(refused));
                }
                None => debug_assert!(false, "the order knows a request that was not read"),
            }
        }
    }

    /// Tells the order which replies have become whole; true: there was one.
    fn note_whole(&mut self) -> bool {
        if !self.link.has_whole() {
            return false;
        }
        let whole = self.link.take_whole();
        for &seq in &whole {
            self.order.whole(seq);
        }
        // Only a barrier waits for that.
        !self.waiting.is_empty()
    }

    /// A request has run to its end; `Some`: and so has the connection.
    fn end(&mut self, ended: &Ended) -> Option<Ending> {
        match ended.outcome {
            Outcome::Close => return Some(self.orderly()),
            Outcome::Reset => return Some(Ending::Reset),
            Outcome::Keep => {}
        }
        self.note_whole();
        self.order.whole(ended.seq);
        self.order.sent();
        self.link.set_due(self.order.due());
        self.link.record.stacked(self.order.len());
        if self.order.is_empty() {
            self.idle_since = ended.at;
            self.rested = false;
            self.link.record.doing(Doing::Idle);
        }
        None
    }

    /// Stops the jobs that the operator wants stopped.
    fn heed_operator(&mut self) -> Option<Ending> {
        for seq in self.link.record.take_word() {
            if self.link.has_begun_reply_to(seq) {
                // Half a reply cannot be taken back.
                return Some(Ending::Reset);
            }
            self.link.stop(seq);
            self.running.poll_all_again();
        }
        None
    }
}
