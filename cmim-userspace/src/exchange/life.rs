//! The life of one request in the device, from a parsed head to the last byte of its reply.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::again::{Shared, Tried};
use super::attempt::{self, Answered};
use super::carrying::Carrying;
use super::failure::Failure;
use super::handed;
use super::link::{Job, Link};
use super::progress::Progress;
use super::relay::{Relay, Relayed};
use super::site::Site;
use super::timer::Timer;
use super::trail::{Handling, Trail};
use super::upload::Gathered;
use crate::h1::{self, LocalReply, Method, ReplyContent, ReplyDelimit, ReplyTo, local_reply};
use crate::job::State;
use crate::lane::tunnel::{self as userspace, Carried, End, Heard};
use crate::lane::{Lane, Load, sockmap};
use crate::observe::roll::Doing;
use crate::reply::{self, Plan};
use crate::stack::Seq;

/// What becomes of the client's connection behind a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the next request.
    Keep,
    /// It is closed orderly.
    Close,
    /// It is reset, because a reply was cut.
    Reset,
}

/// Takes a request to a server and its reply to the client.
pub async fn run(site: &Site, link: &Link, job: &mut Job) -> Outcome {
    let seq = job.seq;
    let result =
        {
            let mut exchange = pin!(exchange(site, link, job));
            poll_fn(|cx| {
                if link.is_stopped(seq) { Poll::Ready(Err(Failure::Cancelled)) } else { exchange.as_mut().poll(cx) }
            })
            .await
        };
    match result {
        Ok(outcome) => outcome,
        Err(Failure::ClientGone) => {
            job.trail.reason.get_or_insert_with(|| Failure::ClientGone.to_string());
            Outcome::Reset
        }
        Err(failure) => {
            let end = if matches!(failure, Failure::Cancelled) { State::Cancelled } else { State::Failed };
            job.progress.to(State::Replying);
            job.trail.reason = Some(failure.to_string());
            if link.has_begun_reply_to(seq) {
                // A part of an interim reply is out: what is sent behind it could not be read.
                job.trail.status = failure.status();
                job.progress.to(end);
                return Outcome::Reset;
            }
            // The rest of a content that was not read to its end would be taken for the next head.
            let keep = !link.input_belongs_to(seq) && link.persists(site, job);
            let refusal = Refusal {
                seq: job.seq,
                status: failure.status(),
                reason: failure.to_string(),
                keep,
                head_request: job.head.method == Method::Head,
                retry_after: failure.retry_after(),
            };
            let outcome = refuse(site, link, &refusal, &mut job.trail).await;
            if outcome != Outcome::Reset {
                job.progress.to(end);
            }
            outcome
        }
    }
}

async fn exchange(site: &Site, link: &Link, job: &mut Job) -> Result<Outcome, Failure> {
    let mut gathered = Gathered::gather(site, link, job).await?;
    link.step_back().await;
    let mut tried = Tried::default();
    loop {
        let answered = attempt::reply_head(site, link, job, &mut gathered, &mut tried).await?;
        link.step_back().await;
        job.trail.status = answered.head.status;
        if answered.head.upgrade && job.head.upgrade.is_none() {
            return Err(Failure::UnaskedUpgrade);
        }
        if is_tunnel(job, &answered) {
            if !answered.upload.is_complete() {
                // Where its content ends, and the tunnel begins, the server cannot know (RFC 9110 section 7.8).
                return Err(Failure::EarlyTunnel);
            }
            // Behind a pointer, as all that is rare: an exchange's memory is taken anew for each request.
            return Box::pin(tunnel(site, link, job, answered)).await;
        }
        if link.input_belongs_to(job.seq) {
            // Where it asked for a tunnel, the server stays with HTTP, and so does the client.
            link.stays_with_http();
        }
        let plan = reply::plan(&answered.head, job.head.version, job.upstream.model.length_rewrite);
        if let Plan::Refuse { reason } = plan {
            return Err(reason.into());
        }
        let answered = match handed::length(site, link, job, &answered, &plan) {
            Some(length) => match Box::pin(handed::run(site, link, job, answered, length)).await {
                Ok(relayed) => return conclude(job, relayed),
                Err(answered) => answered,
            },
            None => answered,
        };
        let mut relay = Relay::new(site, link, job, &mut gathered, answered, plan);
        let result = poll_fn(|cx| relay.poll(cx)).await;
        let relayed = relay.end(result);
        if !is_sent_again(site, link, job, &gathered, &mut tried, &relayed) {
            return conclude(job, relayed);
        }
    }
}

/// Whether a response that was cut gets another attempt. That it was cut, those behind it may have caused, and nobody else.
fn is_sent_again(
    site: &Site,
    link: &Link,
    job: &mut Job,
    gathered: &Gathered,
    tried: &mut Tried,
    relayed: &Relayed,
) -> bool {
    let Relayed::Unsent { failure, cut: Some(at) } = relayed else { return false };
    at.shared != Shared::Alone
        && !link.has_begun_reply_to(job.seq)
        && attempt::again(site, job, gathered, tried, failure, *at)
}

/// What a relayed reply means for its request and the client's connection.
fn conclude(job: &mut Job, relayed: Relayed) -> Result<Outcome, Failure> {
    match relayed {
        Relayed::Whole { persist } => {
            job.progress.to(State::Done);
            Ok(if persist { Outcome::Keep } else { Outcome::Close })
        }
        Relayed::Unsent { failure, .. } => {
            job.trail.bytes_out = 0;
            Err(failure)
        }
        Relayed::Cut(failure) => {
            if !matches!(failure, Failure::ClientGone) {
                job.progress.to(State::Failed);
            }
            job.trail.reason = Some(failure.to_string());
            Ok(Outcome::Reset)
        }
    }
}

fn is_tunnel(job: &Job, answered: &Answered) -> bool {
    answered.head.upgrade || (job.head.method == Method::Connect && (200..300).contains(&answered.head.status))
}

/// Passes the handshake's reply on and carries what both sides send from then on.
async fn tunnel(site: &Site, link: &Link, job: &mut Job, answered: Box<Answered>) -> Result<Outcome, Failure> {
    let Answered { connection, head, early, .. } = *answered;
    debug_assert_eq!(head.content, ReplyContent::None);
    job.trail.handling = Handling::Tunnel;
    link.record.doing(Doing::Tunnel);
    job.progress.to(State::Replying);
    let to = ReplyTo { client_version: job.head.version, persist: true };
    let written = site.buffers.written(|out| h1::encode::reply(&head, &to, ReplyDelimit::None, out));
    // It lies in the read buffer, which others can use while the tunnel lasts.
    drop(head);
    for piece in [early, written] {
        send(site, link, job.seq, piece).await?;
    }
    let (socket, read, lease) = connection.into_tunnel();
    let first = End { stream: &link.stream, read: link.with_input(std::mem::take) };
    let second = End { stream: &socket.stream, read };
    let (carried, result) = carry(site, link, &job.progress, first, second).await;
    job.trail.bytes_in = carried.forth;
    job.trail.bytes_out = carried.back;
    lease.answered();
    job.progress.to(State::Done);
    match result {
        Ok(()) => Ok(Outcome::Close),
        Err(error) => {
            job.trail.reason = Some(format!("the tunnel broke: {error}"));
            Ok(Outcome::Reset)
        }
    }
}

/// Carries a tunnel on the lane that is best for it and to be had.
async fn carry(
    site: &Site,
    link: &Link,
    progress: &Progress,
    first: End<'_>,
    second: End<'_>,
) -> (Carried, io::Result<()>) {
    let server = second.stream;
    // No timeout ends a tunnel, so that one whose peer vanished without a word would stay for good.
    first.stream.keep_alive();
    server.keep_alive();
    let (mut first, mut second) = (first, second);
    let reachable = first.stream.is_tcp() && second.stream.is_tcp();
    let lane = site.lanes.choose(Load::Tunnel, reachable);
    if let (Lane::Sockmap, Some(splicer)) = (lane, &site.splicer) {
        link.lend(true);
        match sockmap::Tunnel::between(splicer, first, second).await {
            Ok(tunnel) => {
                let carrying = Carrying::begin(site, lane, server, progress);
                let (carried, result) = tunnel.run(&site.buffers).await;
                carrying.end(carried.forth + carried.back);
                link.lend(false);
                return (carried, result);
            }
            Err(ends) => (first, second) = ends,
        }
        link.lend(false);
    }
    let piped = lane == Lane::Pipe && first.stream.can_be_piped() && second.stream.can_be_piped();
    let carrying = Carrying::begin(site, if piped { Lane::Pipe } else { Lane::Copy }, server, progress);
    let pipes = piped.then_some(&*site.pipes);
    let heard = Heard { from_first: &|count| link.record.read(count), to_first: &|count| link.record.wrote(count) };
    let (carried, result) = userspace::carry(first, second, &site.buffers, pipes, heard).await;
    carrying.end(carried.forth + carried.back);
    (carried, result)
}

/// A reply of the device's own making.
#[derive(Debug)]
pub struct Refusal {
    pub seq: Seq,
    pub status: u16,
    pub reason: String,
    /// The client's connection takes the next request.
    pub keep: bool,
    pub head_request: bool,
    /// Seconds.
    pub retry_after: Option<u32>,
}

/// Sends a reply of the device's own making, in its turn.
pub async fn refuse(site: &Site, link: &Link, refusal: &Refusal, trail: &mut Trail) -> Outcome {
    trail.status = refusal.status;
    trail.handling = Handling::Local;
    site.counters.replies_local.add(1);
    site.counters.refusals.count(refusal.status);
    let Refusal { status, ref reason, keep, head_request, retry_after, .. } = *refusal;
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let reply = LocalReply { status, reason, keep, head_request, retry_after, date: &date };
    let reply = site.buffers.written(|out| local_reply(&reply, out));
    match send(site, link, refusal.seq, reply).await {
        Ok(()) if refusal.keep => Outcome::Keep,
        Ok(()) => Outcome::Close,
        Err(_) => Outcome::Reset,
    }
}

/// Sends `bytes` to the client once it is the turn of `seq`.
pub(super) async fn send(site: &Site, link: &Link, seq: Seq, mut bytes: Bytes) -> Result<(), Failure> {
    let mut timer = Timer::default();
    let mut progress = None;
    poll_fn(|cx| {
        if link.poll_due(cx, seq).is_pending() {
            return Poll::Pending;
        }
        while !bytes.is_empty() {
            match link.poll_write(cx, &[IoSlice::new(&bytes)]) {
                Poll::Ready(Ok(count)) => {
                    link.begin_reply();
                    bytes.advance(count);
                    progress = Some(Instant::now());
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                Poll::Pending => {
                    let since = *progress.get_or_insert_with(Instant::now);
                    let deadline = since + site.config.timeouts.client_write;
                    return timer.poll_until(cx, deadline).map(|()| Err(Failure::ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
