//! One request between the connection's loop and its exchange: admitted or refused, run, ended.

use std::sync::Arc;
use std::time::Instant;

use super::log;
use super::route::route;
use crate::config::model::Listener;
use crate::exchange::{self, Failure, Job, Link, Outcome, Owner, Progress, Refusal, Site, Trail};
use crate::h1::{Method, RequestHead};
use crate::job::State;
use crate::stack::Seq;

/// What the access log has for a request that ended before it had a status; nginx's number for it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What was read in a request's place.
pub(super) enum Parsed<'a> {
    /// It goes on to a server.
    Job(Box<Logged<'a>>),
    Refused(Box<Refused<'a>>),
}

/// A request that is refused without a server. Its line is written to the access log when it ends, as that of a
/// [`Logged`].
pub(super) struct Refused<'a> {
    origin: Origin<'a>,
    /// `None`: it could not be parsed.
    head: Option<Box<RequestHead>>,
    pub(super) refusal: Refusal,
    trail: Trail,
    progress: Progress,
    ended: Option<Instant>,
}

/// A request that has run to its end.
pub(super) struct Ended {
    pub(super) seq: Seq,
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
}

/// By which connection a request came.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) site: &'a Site,
    pub(super) link: &'a Link,
    pub(super) listener: &'a Listener,
}

impl Origin<'_> {
    /// Writes a request's line to the access log. `ended`: `None` where it is dropped in the middle, or before its turn to
    /// start has come.
    fn log(&self, head: Option<(&RequestHead, &str)>, trail: &mut Trail, progress: &Progress, ended: Option<Instant>) {
        if trail.status == 0 {
            trail.status = CLIENT_CLOSED_REQUEST;
        }
        if !progress.has_ended() {
            trail.reason.get_or_insert_with(|| Failure::ClientGone.to_string());
        }
        log::finished(self.site, self.link, self.listener, head, trail, ended.unwrap_or_else(Instant::now));
    }
}

/// Writes a job's line to the access log when the job ends, wherever that is.
pub(super) struct Logged<'a> {
    origin: Origin<'a>,
    job: Job,
    ended: Option<Instant>,
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        let Job { head, upstream, trail, progress, .. } = &mut self.job;
        self.origin.log(Some((head, &upstream.name)), trail, progress, self.ended);
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        let head = self.head.as_deref().map(|head| (head, ""));
        self.origin.log(head, &mut self.trail, &self.progress, self.ended);
    }
}

/// Finds the upstream for a request, or refuses it.
pub(super) fn admit(origin: Origin<'_>, seq: Seq, head: RequestHead, trail: Trail) -> Parsed<'_> {
    let Origin { site, link, listener } = origin;
    let progress = Progress::begin(site, link, seq, Some(&head), &trail);
    let refused = |status, reason: &str, keep, head: RequestHead, trail, progress| {
        let head_request = head.method == Method::Head;
        let refusal = Refusal { seq, status, reason: reason.to_owned(), keep, head_request, retry_after: None };
        let head = Some(Box::new(head));
        Parsed::Refused(Box::new(Refused { origin, head, refusal, trail, progress, ended: None }))
    };
    if let Some((status, reason)) = answered_here(listener, &head) {
        // Content that is not read would be taken for the next head.
        let keep = head.persistent && Owner::behind(seq, &head) == Owner::Heads;
        return refused(status, reason, keep, head, trail, progress);
    }
    match site.upstream(route(listener, &head)) {
        Some(upstream) => {
            let upstream = Arc::clone(upstream);
            let job = Job { seq, head, upstream, trail, progress };
            Parsed::Job(Box::new(Logged { origin, job, ended: None }))
        }
        None => refused(503, "the route leads nowhere", false, head, trail, progress),
    }
}

/// Requests that the device does not let through, with the status that answers them.
fn answered_here(listener: &Listener, head: &RequestHead) -> Option<(u16, &'static str)> {
    match head.method {
        Method::Trace => Some((405, "TRACE is not allowed")),
        Method::Connect if !listener.allow_connect => Some((405, "CONNECT is not allowed on this listener")),
        // RFC 9110 section 7.6.2: the device is the one that was asked.
        Method::Options if head.max_forwards() == Some(0) => Some((200, "Max-Forwards is 0")),
        _ => None,
    }
}

/// What was read is no request.
pub(super) fn unreadable(origin: Origin<'_>, refusal: Refusal, trail: Trail) -> Box<Refused<'_>> {
    let progress = Progress::begin(origin.site, origin.link, refusal.seq, None, &trail);
    Box::new(Refused { origin, head: None, refusal, trail, progress, ended: None })
}

pub(super) async fn run(mut logged: Box<Logged<'_>>) -> Ended {
    let Origin { site, link, .. } = logged.origin;
    let outcome = exchange::run(site, link, &mut logged.job).await;
    let at = *logged.ended.insert(Instant::now());
    Ended { seq: logged.job.seq, outcome, at }
}

pub(super) async fn refuse(mut refused: Box<Refused<'_>>) -> Ended {
    let Refused { origin: Origin { site, link, .. }, refusal, trail, progress, ended, .. } = &mut *refused;
    progress.to(State::Replying);
    trail.reason = Some(refusal.reason.clone());
    let outcome = exchange::refuse(site, link, refusal, trail).await;
    if outcome != Outcome::Reset {
        progress.to(State::Failed);
    }
    let at = *ended.insert(Instant::now());
    Ended { seq: refusal.seq, outcome, at }
}
