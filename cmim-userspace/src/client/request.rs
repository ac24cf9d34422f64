//! One request between the connection's loop and its exchange: admitted or refused, run, ended.

use std::sync::Arc;
use std::time::Instant;

use super::log;
use super::route::route;
use crate::config::model::Listener;
use crate::exchange::{self, Failure, Job, Link, Outcome, Progress, Refusal, Site, Trail};
use crate::h1::{Method, RequestContent, RequestHead};
use crate::job::State;
use crate::stack::Seq;

/// What the access log has for a request that ended before it had a status; nginx's number for it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What was read in a request's place.
pub(super) enum Parsed {
    /// It goes on to a server.
    Job(Box<Job>),
    Refused(Box<Refused>),
}

/// A request that is refused without a server.
pub(super) struct Refused {
    /// `None`: it could not be parsed.
    head: Option<Box<RequestHead>>,
    pub(super) refusal: Refusal,
    trail: Trail,
    progress: Progress,
}

/// A request that has run to its end.
pub(super) struct Ended {
    pub(super) seq: Seq,
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
}

/// Writes a job's line to the access log when the job ends, also where that is in the middle.
struct Logged<'a> {
    site: &'a Site,
    link: &'a Link,
    listener: &'a Listener,
    job: Box<Job>,
    /// When it ended; `None`: it is dropped in the middle.
    ended: Option<Instant>,
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(Instant::now);
        let Job { head, upstream, trail, progress, .. } = &mut *self.job;
        if trail.status == 0 {
            trail.status = CLIENT_CLOSED_REQUEST;
        }
        if !progress.has_ended() {
            trail.reason.get_or_insert_with(|| Failure::ClientGone.to_string());
        }
        log::finished(self.site, self.link, self.listener, Some((head, &upstream.name)), trail, ended);
    }
}

/// Whether what follows the head on the connection is its content, or no HTTP at all.
pub(super) fn takes_input(head: &RequestHead) -> bool {
    head.content != RequestContent::None || head.upgrade.is_some() || head.method == Method::Connect
}

/// Finds the upstream for a request, or refuses it.
pub(super) fn admit(
    site: &Site,
    link: &Link,
    listener: &Listener,
    seq: Seq,
    head: RequestHead,
    trail: Trail,
) -> Parsed {
    let progress = Progress::begin(site, link, seq, Some(&head), &trail);
    let refused = |status, reason: &str, keep, head: RequestHead, trail, progress| {
        let head_request = head.method == Method::Head;
        let refusal = Refusal { seq, status, reason: reason.to_owned(), keep, head_request, retry_after: None };
        Parsed::Refused(Box::new(Refused { head: Some(Box::new(head)), refusal, trail, progress }))
    };
    if let Some(reason) = forbidden(listener, &head) {
        // Content that is not read would be taken for the next head.
        let keep = head.persistent && !takes_input(&head);
        return refused(405, reason, keep, head, trail, progress);
    }
    match site.upstream(route(listener, &head)) {
        Some(upstream) => {
            let upstream = Arc::clone(upstream);
            Parsed::Job(Box::new(Job { seq, head, upstream, trail, progress }))
        }
        None => refused(503, "the route leads nowhere", false, head, trail, progress),
    }
}

/// Methods that the device does not let through.
fn forbidden(listener: &Listener, head: &RequestHead) -> Option<&'static str> {
    match head.method {
        Method::Trace => Some("TRACE is not allowed"),
        Method::Connect if !listener.allow_connect => Some("CONNECT is not allowed on this listener"),
        _ => None,
    }
}

/// What was read is no request.
pub(super) fn unreadable(
    site: &Site,
    link: &Link,
    seq: Seq,
    status: u16,
    reason: String,
    trail: Trail,
) -> Box<Refused> {
    let progress = Progress::begin(site, link, seq, None, &trail);
    let refusal = Refusal { seq, status, reason, keep: false, head_request: false, retry_after: None };
    Box::new(Refused { head: None, refusal, trail, progress })
}

pub(super) async fn run(site: &Site, link: &Link, listener: &Listener, job: Box<Job>) -> Ended {
    let mut logged = Logged { site, link, listener, job, ended: None };
    let outcome = exchange::run(site, link, &mut logged.job).await;
    let at = *logged.ended.insert(Instant::now());
    Ended { seq: logged.job.seq, outcome, at }
}

pub(super) async fn refuse(site: &Site, link: &Link, listener: &Listener, refused: Box<Refused>) -> Ended {
    let Refused { head, refusal, mut trail, mut progress } = *refused;
    progress.to(State::Replying);
    let outcome = exchange::refuse(site, link, &refusal, &mut trail).await;
    if outcome != Outcome::Reset {
        progress.to(State::Failed);
    }
    trail.reason = Some(refusal.reason);
    let at = Instant::now();
    log::finished(site, link, listener, head.as_deref().map(|head| (head, "")), &trail, at);
    Ended { seq: refusal.seq, outcome, at }
}
