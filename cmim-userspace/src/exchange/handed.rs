//! A long reply that the kernel hands from the server's socket to the client's: the sockmap lane.
//!
//! The head goes out by the daemon, and so does whatever the kernel leaves to it; the server is held until its client
//! has taken the content, which is what an operator who chooses this lane asks for.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::attempt::Answered;
use super::carrying::Carrying;
use super::failure::Failure;
use super::life::send;
use super::link::{Job, Link};
use super::relay::Relayed;
use super::site::Site;
use super::timer::Timer;
use super::trail::Handling;
use crate::config::model::Timeouts;
use crate::h1::{self, ReplyDelimit, ReplyTo};
use crate::job::State;
use crate::lane::sockmap::{Content, Fault, Left};
use crate::lane::tunnel::End;
use crate::lane::{Lane, Load};
use crate::observe::roll::Doing;
use crate::reply::Plan;

/// The length of a reply for the sockmap lane; `None`: it is not for this lane.
pub(super) fn length(site: &Site, link: &Link, job: &Job, answered: &Answered, plan: &Plan) -> Option<u64> {
    let Plan::Stream { delimit: ReplyDelimit::Length(length) } = *plan else { return None };
    let reachable = link.stream.is_tcp() && answered.connection.stream().is_tcp();
    let wanted = site.lanes.choose(Load::Content(length), reachable) == Lane::Sockmap;
    let ready = answered.upload.is_complete() && answered.early.is_empty() && link.is_due(job.seq);
    (wanted && ready).then_some(length)
}

/// Carries a reply of [`length`] on the sockmap lane; `Err`: the kernel does not take it, and nothing of it was sent.
pub(super) async fn run(
    site: &Site,
    link: &Link,
    job: &mut Job,
    mut answered: Box<Answered>,
    length: u64,
) -> Result<Relayed, Box<Answered>> {
    let Some(splicer) = &site.splicer else { return Err(answered) };
    // A verdict cannot cut where the next reply begins.
    if !answered.connection.keep_alone() {
        return Err(answered);
    }

    let read = std::mem::take(&mut answered.connection.buffer);
    let from = End { stream: answered.connection.stream(), read };
    let carried = match Content::between(splicer, from, &link.stream, length, site.lanes.min) {
        Ok(content) => Ok(hand_over(site, link, job, &answered, length, content).await),
        Err(End { read, .. }) => Err(read),
    };
    let (left, persist) = match carried {
        Ok(Ok(carried)) => carried,
        Ok(Err(failure)) => return Ok(Relayed::Cut(failure)),
        Err(read) => {
            answered.connection.buffer = read;
            return Err(answered);
        }
    };
    let persistent = answered.head.persistent && job.upstream.model.shares_connections() && left.clean;
    answered.connection.buffer = left.read;
    let mut spare = answered.connection.finish(site, persistent);
    spare.clear();
    site.buffers.give_back(&mut spare);
    link.reply_is_whole(job.seq);
    Ok(Relayed::Whole { persist })
}

/// Sends the head and has the content carried; what is left, and whether the client's connection stays.
async fn hand_over(
    site: &Site,
    link: &Link,
    job: &mut Job,
    answered: &Answered,
    length: u64,
    mut content: Content<'_>,
) -> Result<(Left, bool), Failure> {
    job.progress.to(State::Replying);
    job.trail.handling = Handling::Streamed;
    link.record.doing(Doing::Replying);
    site.counters.replies_streamed.add(1);
    let carrying = Carrying::begin(site, Lane::Sockmap, answered.connection.stream(), &job.progress);
    let persist = link.persists(site, job);
    let to = ReplyTo { client_version: job.head.version, persist };
    let head = site.buffers.written(|out| h1::encode::reply(&answered.head, &to, ReplyDelimit::Length(length), out));
    send(site, link, job.seq, head).await?;
    let mut timer = link.take_timer();
    let mut seen = Seen::new(0, &site.config.timeouts);
    let outcome = poll_fn(|cx| poll(cx, site, &mut content, &mut seen, &mut timer)).await;
    link.keep_timer(timer);
    job.trail.bytes_out = content.carried();
    carrying.end(job.trail.bytes_out);
    link.record.wrote(usize::try_from(job.trail.bytes_out).unwrap_or(usize::MAX));
    outcome.map(|()| (content.finish(), persist))
}

/// How far a content was when it last moved.
struct Seen {
    carried: u64,
    at: Instant,
    /// When that is looked at next.
    look_at: Instant,
}

impl Seen {
    fn new(carried: u64, timeouts: &Timeouts) -> Self {
        let now = Instant::now();
        Self { carried, at: now, look_at: now + timeouts.server_idle.min(timeouts.client_write) }
    }
}

/// Goes on with the content, as long as it moves. Where it does not, the side that is waited for has its own time.
fn poll(
    cx: &mut Context<'_>,
    site: &Site,
    content: &mut Content<'_>,
    seen: &mut Seen,
    timer: &mut Timer,
) -> Poll<Result<(), Failure>> {
    loop {
        match content.poll(cx, &site.buffers) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Fault::Source(_) | Fault::Cut)) => return Poll::Ready(Err(Failure::Truncated)),
            Poll::Ready(Err(Fault::Target(_))) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Err(Fault::Lane(source))) => return Poll::Ready(Err(Failure::Lane(source))),
            Poll::Pending => {}
        }
        // Nobody is woken while the kernel moves bytes: whether they move is seen when time is up.
        let timeouts = &site.config.timeouts;
        ready!(timer.poll_until(cx, seen.look_at));
        let carried = content.carried();
        if carried != seen.carried {
            *seen = Seen::new(carried, timeouts);
            continue;
        }
        let (patience, failure) = if content.waits_for_target() {
            (timeouts.client_write, Failure::ClientGone)
        } else {
            (timeouts.server_idle, Failure::ServerIdle)
        };
        seen.look_at = seen.at + patience;
        if Instant::now() >= seen.look_at {
            return Poll::Ready(Err(failure));
        }
    }
}
