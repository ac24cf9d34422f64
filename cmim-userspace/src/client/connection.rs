//! The loop of one client connection: heads in, exchanges started and ended, the connection's own clocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use super::close::Ending;
use super::log;
use super::route::route;
use super::running::Running;
use crate::config::model::Listener;
use crate::exchange::{self, Job, Link, Outcome, Refusal, Site, Timer, Trail};
use crate::h1::{Limits, Method, RequestContent, RequestError, RequestHead, RequestParser, head_has_begun};
use crate::observe::roll::Doing;
use crate::stack::{Order, Seq, Turn};

/// A client that has sent requests whose replies are under way.
pub(super) struct Connection<'a> {
    site: &'a Site,
    link: &'a Link,
    listener: &'a Listener,
    limits: Limits,
    parser: RequestParser,
    heads: Heads,
    order: Order,
    /// Read and not started, in order.
    waiting: VecDeque<Parsed>,
    running: Running<'a, Ended>,
    /// When the first byte of the head that is being read came.
    head_since: Option<Instant>,
    idle_since: Instant,
    timer: Timer,
}

/// Whether further heads are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heads {
    Open,
    /// The client has ended its side, said `close`, or sent what is no head.
    Over,
}

/// What was read in a request's place.
enum Parsed {
    Job(Box<Job>),
    Refused(Box<Refused>),
}

/// A request that is refused without a server.
struct Refused {
    /// `None`: it could not be parsed.
    head: Option<Box<RequestHead>>,
    refusal: Refusal,
    trail: Trail,
}

/// A request that has run to its end.
struct Ended {
    seq: Seq,
    outcome: Outcome,
    trail: Trail,
    head: Option<(Box<RequestHead>, String)>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(site: &'a Site, link: &'a Link, listener: &'a Listener) -> Self {
        let limits = &site.config.limits;
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
            order: Order::new(listener.pipeline_depth),
            waiting: VecDeque::new(),
            running: Running::new(),
            head_since: None,
            idle_since: Instant::now(),
            timer: Timer::default(),
        }
    }

    /// Whether no request is in the device.
    pub(super) fn is_idle(&self) -> bool {
        self.order.is_empty()
    }

    /// Drives the connection to its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            self.read_heads();
            self.start();
            if let Poll::Ready(ended) = self.running.poll_next(cx) {
                if let Some(ending) = self.end(&ended) {
                    return Poll::Ready(ending);
                }
                continue;
            }
            if self.reads_ahead() {
                match self.link.poll_fill(cx, self.site) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false)) => self.heads = Heads::Over,
                    Poll::Ready(Err(_)) => return Poll::Ready(Ending::Gone),
                    Poll::Pending => {}
                }
            }
            if self.order.is_empty() && (self.heads == Heads::Over || self.is_drained()) {
                return Poll::Ready(Ending::Orderly);
            }
            match self.poll_timer(cx) {
                Poll::Ready(Some(ending)) => return Poll::Ready(ending),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn reads_ahead(&self) -> bool {
        self.heads == Heads::Open && self.order.has_room() && self.link.heads_are_next()
    }

    /// The device is shutting down and no head has begun.
    fn is_drained(&self) -> bool {
        self.site.drain.has_begun() && self.head_since.is_none()
    }

    /// Takes the heads that are there already, up to the depth.
    fn read_heads(&mut self) {
        while self.reads_ahead() {
            let parsed = self.link.with_input(|input| {
                if input.is_empty() {
                    return Ok(None);
                }
                let head = self.parser.parse(input, &self.limits)?;
                if head.is_none() && self.head_since.is_none() && head_has_begun(input) {
                    self.head_since = Some(Instant::now());
                }
                Ok(head)
            });
            match parsed {
                Ok(Some(head)) => self.accept(head),
                Ok(None) => break,
                Err(error) => self.refuse_bytes(&error),
            }
        }
    }

    /// A whole head was read.
    fn accept(&mut self, head: RequestHead) {
        let trail = self.arrived();
        if !head.persistent {
            self.heads = Heads::Over;
        }
        if let Some(reason) = self.forbidden(&head) {
            let has_content = head.content != RequestContent::None;
            if has_content {
                self.heads = Heads::Over;
            }
            let keep = head.persistent && !has_content;
            self.push_refusal(Some(Box::new(head)), 405, reason.to_owned(), keep, trail);
            return;
        }
        let Some(upstream) = self.site.upstream(route(self.listener, &head)) else {
            self.push_refusal(Some(Box::new(head)), 503, "the route leads nowhere".to_owned(), false, trail);
            return;
        };
        let upstream = Arc::clone(upstream);
        // What follows such a head on the connection is its content, or no HTTP at all.
        let takes_input =
            head.content != RequestContent::None || head.upgrade.is_some() || head.method == Method::Connect;
        let turn = if head.method.is_safe() && !takes_input { Turn::Free } else { Turn::Barrier };
        let seq = self.order.arrived(turn);
        if takes_input {
            self.link.give_input_to(seq);
        }
        self.waiting.push_back(Parsed::Job(Box::new(Job { seq, head, upstream, trail })));
    }

    /// Counts a request that was read, and begins its notes.
    fn arrived(&mut self) -> Trail {
        let stacked = self.order.len() + 1;
        self.site.counters.requests.add(1);
        self.link.record.request(stacked);
        let now = Instant::now();
        let began = self.head_since.take().unwrap_or(now);
        let mut trail = Trail::new(SystemTime::now() - (now - began), began);
        trail.stacked = stacked as u32;
        if stacked > 1 {
            self.site.counters.stacked_noticed.add(1);
        }
        trail
    }

    /// Methods that the device does not let through (SPEC section 4).
    fn forbidden(&self, head: &RequestHead) -> Option<&'static str> {
        match head.method {
            Method::Trace => Some("TRACE is not allowed"),
            Method::Connect if !self.listener.allow_connect => Some("CONNECT is not allowed on this listener"),
            _ => None,
        }
    }

    /// What was read is no request: the valid ones before it are answered first.
    fn refuse_bytes(&mut self, error: &RequestError) {
        let trail = self.arrived();
        self.heads = Heads::Over;
        self.push_refusal(None, error.status(), error.to_string(), false, trail);
    }

    fn push_refusal(&mut self, head: Option<Box<RequestHead>>, status: u16, reason: String, keep: bool, trail: Trail) {
        let seq = self.order.arrived(Turn::Free);
        let head_request = head.as_ref().is_some_and(|head| head.method == Method::Head);
        let refusal = Refusal { seq, status, reason, keep, head_request, retry_after: None };
        self.waiting.push_back(Parsed::Refused(Box::new(Refused { head, refusal, trail })));
    }

    /// Starts what may start.
    fn start(&mut self) {
        while self.order.start_next().is_some() {
            let (site, link) = (self.site, self.link);
            site.counters.jobs_active.inc();
            if self.order.len() > 1 {
                link.record.stacked(self.order.len());
            }
            link.record.doing(Doing::Waiting);
            match self.waiting.pop_front() {
                Some(Parsed::Job(job)) => self.running.push(async move {
                    let seq = job.seq;
                    let (outcome, job) = exchange::run(site, link, job).await;
                    let upstream = job.upstream.model.name.clone();
                    let Job { head, trail, .. } = *job;
                    Ended { seq, outcome, trail, head: Some((Box::new(head), upstream)) }
                }),
                Some(Parsed::Refused(refused)) => self.running.push(async move {
                    let Refused { head, refusal, mut trail } = *refused;
                    let outcome = exchange::refuse(site, link, &refusal, &mut trail).await;
                    trail.reason = Some(refusal.reason);
                    Ended { seq: refusal.seq, outcome, trail, head: head.map(|head| (head, String::new())) }
                }),
                None => debug_assert!(false, "the order knows a request that was not read"),
            }
        }
    }

    /// A request has run to its end; `Some`: and so has the connection.
    fn end(&mut self, ended: &Ended) -> Option<Ending> {
        self.site.counters.jobs_active.dec();
        let head = ended.head.as_ref().map(|(head, upstream)| (&**head, upstream.as_str()));
        log::finished(self.site, self.link, self.listener, head, &ended.trail);
        match ended.outcome {
            Outcome::Close => return Some(Ending::Orderly),
            Outcome::Reset => return Some(Ending::Reset),
            Outcome::Keep => {}
        }
        self.order.whole(ended.seq);
        self.order.sent();
        self.link.set_due(self.order.due());
        self.link.record.stacked(self.order.len());
        if self.order.is_empty() {
            self.idle_since = Instant::now();
            self.link.record.doing(Doing::Idle);
        }
        None
    }

    /// `Ready(None)`: a clock ran out and the loop has something to do.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        let timeouts = &self.site.config.timeouts;
        let (deadline, in_head) = match self.head_since {
            Some(since) if self.heads == Heads::Open => (since + timeouts.client_head, true),
            _ if self.order.is_empty() => (self.idle_since + timeouts.client_idle, false),
            // Requests under way have clocks of their own.
            _ => return Poll::Pending,
        };
        if self.timer.poll_until(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        if !in_head {
            return Poll::Ready(Some(Ending::Idle));
        }
        let trail = self.arrived();
        self.heads = Heads::Over;
        self.push_refusal(None, 408, "the request head did not come whole within client_head".to_owned(), false, trail);
        Poll::Ready(None)
    }
}

impl Drop for Connection<'_> {
    /// Jobs that are cut off with their connection end here; their exchanges are dropped with `running`.
    fn drop(&mut self) {
        let unstarted = self.waiting.len();
        for _ in unstarted..self.order.len() {
            self.site.counters.jobs_active.dec();
        }
    }
}
