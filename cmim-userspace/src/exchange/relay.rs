//! A reply's content on its way from the server to the client: streamed, or held until its length is known.
//!
//! One loop pulls from the server, decides when the head may go ([`super::pace`]), and pushes to the client. The server is
//! free the moment its last byte is in, however slow the client is; a client that is slower than the server gets its
//! bytes from the buffer tiers.

mod intake;
mod splice;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::again::At;
use super::attempt::Answered;
use super::carrying::Carrying;
use super::content::Content;
use super::failure::Failure;
use super::link::{Job, Link};
use super::pace::{Bounds, Decision, Gate, Moment, SLOW_AFTER};
use super::server::ServerConnection;
use super::site::Site;
use super::timer::Timer;
use super::trail::Handling;
use super::upload::{Gathered, Upload};
use crate::buffer::{Held, ReadSize, SendError};
use crate::h1::{self, Fields, ReplyDelimit, ReplyHead, ReplyTo, chunk_header};
use crate::job::State;
use crate::lane::pipe::Pipe;
use crate::lane::{Lane, Load};
use crate::net::Stream;
use crate::observe::roll::Doing;
use crate::reply::Plan;

/// After so many bytes everybody else has a turn: hundreds of long replies that begin at a time would keep the short ones
/// waiting.
const BURST: u64 = ReadSize::Bulk.bytes() as u64;
/// Behind the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

/// How a relay ended.
#[derive(Debug)]
pub(super) enum Relayed {
    /// The reply went out whole. `persist`: its head said that the client's connection stays.
    Whole { persist: bool },
    /// It failed while nothing of it had been sent: another reply can take its place. `cut`: where, if its connection ended
    /// in the middle.
    Unsent { failure: Failure, cut: Option<At> },
    /// It failed in the middle: only a reset shows the client that it is not whole.
    Cut(Failure),
}

/// Resets the client's connection where the device ends in the middle of a reply (the grace is over): an orderly close
/// would make one that is delimited by the close look whole. `None`: nothing was sent, or the relay has come to its end
/// and says itself what becomes of the connection.
struct Unfinished<'a>(Option<&'a Stream>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.reset_on_close();
        }
    }
}

/// One reply under way.
pub(super) struct Relay<'a> {
    site: &'a Site,
    link: &'a Link,
    job: &'a mut Job,
    gathered: &'a mut Gathered,
    bounds: Bounds,
    /// Until it is written for the client.
    head: Option<ReplyHead>,
    /// Until the reply is whole.
    connection: Option<ServerConnection>,
    persistent: bool,
    content: Content,
    content_bytes: u64,
    upload: Upload,
    /// What goes before the held content: interim replies, the head, a chunk line.
    front: Bytes,
    held: Held,
    lane: Lane,
    /// What goes out behind the held content, on the pipe lane.
    pipe: Option<Pipe>,
    carrying: Carrying<'a>,
    /// A piece that is on its way into the tiers.
    piece: Option<Bytes>,
    /// What is still to go behind it, or behind what is held: the end of its chunk, or nothing.
    chunk_end: &'static [u8],
    /// No tier had room for it at the last try.
    full: bool,
    gate: Gate,
    persist: bool,
    trailers: Option<Fields>,
    sent: u64,
    unfinished: Unfinished<'a>,
    began: Instant,
    due_since: Option<Instant>,
    blocked_since: Option<Instant>,
    /// When the server last moved; `None` while it is made to wait.
    server_progress: Option<Instant>,
    client_progress: Instant,
    timer: Timer,
    /// The server connection's read buffer, for the pool once its bytes are sent.
    spare: BytesMut,
}

impl<'a> Relay<'a> {
    /// `plan` is not a refusal.
    pub(super) fn new(
        site: &'a Site,
        link: &'a Link,
        job: &'a mut Job,
        gathered: &'a mut Gathered,
        answered: Box<Answered>,
        plan: Plan,
    ) -> Self {
        let Answered { connection, head, upload, early, at: now } = *answered;
        job.progress.to(State::Replying);
        let due_since = link.is_due(job.seq).then_some(now);
        job.trail.turn_wait = due_since.filter(|_| job.trail.stacked > 1).map(|_| Duration::ZERO);
        let upstream = &job.upstream.model;
        let content = Content::of_reply(head.content);
        let lane = match content.left() {
            Some(bytes)
                if connection.stream().can_be_piped()
                    && site.lanes.choose(Load::Content(bytes), false) == Lane::Pipe =>
            {
                Lane::Pipe
            }
            _ => Lane::Copy,
        };
        let carrying = Carrying::begin(site, lane, connection.stream(), &job.progress);
        let mut relay = Self {
            site,
            link,
            gathered,
            bounds: Bounds {
                hold_time: upstream.hold_time,
                hold_size: upstream.hold_size,
                memory_per_reply: site.config.buffer.memory_per_reply,
            },
            content,
            persistent: head.persistent && upstream.shares_connections(),
            head: Some(head),
            connection: Some(connection),
            content_bytes: 0,
            upload,
            front: early,
            held: Held::new(&site.store),
            lane,
            pipe: None,
            carrying,
            piece: None,
            chunk_end: b"",
            full: false,
            gate: Gate::Open { chunked: false },
            persist: false,
            trailers: None,
            sent: 0,
            unfinished: Unfinished(None),
            began: now,
            due_since,
            blocked_since: None,
            server_progress: Some(now),
            client_progress: now,
            timer: link.take_timer(),
            spare: BytesMut::new(),
            job,
        };
        relay.settle_followers();
        match plan {
            Plan::Stream { delimit } => relay.begin_stream(delimit, now),
            Plan::Hold { until, otherwise } => relay.gate = Gate::holding(until, otherwise, &relay.bounds, now),
            Plan::Refuse { .. } => debug_assert!(false, "a refused reply is not relayed"),
        }
        relay
    }

    /// The reply has come to its end, of which `result` says how.
    pub(super) fn end(mut self, result: Result<(), Failure>) -> Relayed {
        self.job.trail.bytes_out = self.content_bytes;
        self.put_pipe_back();
        let (sent, persist) = (self.sent, self.persist && self.client_has_sent_all());
        let is_cut = result.as_ref().is_err_and(Failure::is_cut);
        let cut = self.connection.as_ref().filter(|_| is_cut).map(|connection| {
            connection.was_cut();
            connection.at()
        });
        self.unfinished.0 = None;
        let Self { site, link, mut spare, held, front, carrying, timer, .. } = self;
        link.keep_timer(timer);
        carrying.end(self.content_bytes);
        // Their bytes lie in the read buffer, which is whole again without them.
        drop((held, front));
        spare.clear();
        site.buffers.give_back(&mut spare);
        match result {
            Ok(()) => Relayed::Whole { persist },
            Err(failure) if sent == 0 => Relayed::Unsent { failure, cut },
            Err(failure) => Relayed::Cut(failure),
        }
    }

    /// Carries the reply to its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let before = self.content_bytes;
        loop {
            let due = self.poll_due(cx);
            self.poll_upload(cx);
            let mut moved = self.pull(cx)?;
            moved |= self.decide(due)?;
            if due && self.gate.is_open() {
                moved |= self.push(cx)?;
                if self.connection.is_none() && self.piece.is_none() && !self.has_more() {
                    return Poll::Ready(Ok(()));
                }
            }
            if !moved && !self.poll_timer(cx, due)? {
                return Poll::Pending;
            }
            if self.content_bytes - before >= BURST {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.due_since.is_some() {
            return true;
        }
        if self.link.poll_due(cx, self.job.seq).is_pending() {
            return false;
        }
        let now = Instant::now();
        self.due_since = Some(now);
        self.job.trail.turn_wait = Some(now - self.began);
        true
    }

    /// The rest of the request, and what others add behind it, while the reply is on its way already.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = &self.connection else { return };
        connection.poll_send_others(cx);
        if self.upload.is_over() {
            return;
        }
        if let Poll::Ready(Err(_)) = self.upload.poll(cx, self.site, self.link, connection, self.gathered) {
            // The reply stands; only the connections cannot go on behind it.
            self.upload.abandon();
        }
    }

    /// Opens the gate when the length is known, or when waiting for it ends.
    fn decide(&mut self, due: bool) -> Result<bool, Failure> {
        if self.gate.is_open() {
            return Ok(false);
        }
        let whole = self.connection.is_none() && self.piece.is_none();
        let moment = Moment { now: Instant::now(), due, whole, full: self.full, held: self.held.len() };
        match self.gate.decide(&moment, &self.bounds) {
            Decision::Wait => Ok(false),
            Decision::GiveUp => Err(Failure::BuffersFull),
            Decision::Open(delimit) => {
                self.open(delimit);
                Ok(true)
            }
        }
    }

    /// Puts the head in front of what is held, framed as `delimit` says.
    fn open(&mut self, delimit: ReplyDelimit) {
        let Some(head) = self.head.take() else { return };
        let was_held = matches!(self.gate, Gate::Holding { .. });
        let chunked = matches!(delimit, ReplyDelimit::Chunked | ReplyDelimit::Coded);
        self.persist = self.link.persists(self.site, self.job) && !delimit.closes() && self.client_has_sent_all();
        let to = ReplyTo { client_version: self.job.head.version, persist: self.persist };
        let early = std::mem::take(&mut self.front);
        // A piece that is half in the tiers belongs to the first chunk as a whole.
        let first_chunk = self.held.len() + self.piece.as_ref().map_or(0, |piece| piece.len() as u64);
        self.front = self.site.buffers.written(|out| {
            out.extend_from_slice(&early);
            h1::encode::reply(&head, &to, delimit, out);
            if chunked && first_chunk > 0 {
                chunk_header(usize::try_from(first_chunk).unwrap_or(usize::MAX), out);
            }
        });
        self.gate = Gate::Open { chunked };
        if chunked && first_chunk > 0 {
            self.chunk_end = CHUNK_END;
        }
        if self.piece.is_none() {
            self.end_piece();
        }
        self.link.record.doing(Doing::Replying);
        let counters = &self.site.counters;
        if was_held && matches!(delimit, ReplyDelimit::Length(_)) {
            self.job.trail.handling = Handling::Rewritten;
            counters.replies_rewritten.add(1);
            counters.trailers_dropped.add(self.trailers.take().map_or(0, |trailers| trailers.len() as u64));
        } else {
            self.job.trail.handling = if was_held && chunked { Handling::Chunked } else { Handling::Streamed };
            counters.replies_streamed.add(1);
        }
    }

    /// Whether the request is read to its end, so that what follows on the client's connection is the next head. How much
    /// of it the server has taken matters for the server's connection alone.
    fn client_has_sent_all(&self) -> bool {
        !self.link.input_belongs_to(self.job.seq)
    }

    /// Sends what the client takes.
    fn push(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut moved = false;
        while self.has_more() {
            match self.poll_send(cx) {
                Poll::Ready(Ok(count)) => {
                    self.link.record.wrote(count);
                    self.link.begin_reply();
                    self.sent += count as u64;
                    self.unfinished.0 = Some(&self.link.stream);
                    moved = true;
                }
                Poll::Ready(Err(SendError::Peer(_))) => return Err(Failure::ClientGone),
                Poll::Ready(Err(SendError::Lost(source))) => return Err(Failure::TierLost(source)),
                Poll::Pending => {
                    let now = Instant::now();
                    if moved || self.blocked_since.is_none() {
                        self.client_progress = now;
                    }
                    self.blocked_since.get_or_insert(now);
                    return Ok(moved);
                }
            }
        }
        self.blocked_since = None;
        Ok(moved)
    }

    /// Whether bytes wait for the client.
    fn has_more(&self) -> bool {
        !self.front.is_empty() || !self.held.is_empty() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        let to = &self.link.stream;
        match &mut self.pipe {
            Some(pipe) if self.front.is_empty() && self.held.is_empty() => {
                pipe.poll_drain(cx, to).map_err(SendError::Peer)
            }
            _ => self.held.poll_send_behind(cx, to, &mut self.front),
        }
    }

    /// Whether the client has kept bytes waiting for so long that the server should not wait for it.
    fn client_is_slow(&self) -> bool {
        self.blocked_since.is_some_and(|since| since.elapsed() >= SLOW_AFTER)
    }

    /// True: a moment has come at which the loop has to look again.
    fn poll_timer(&mut self, cx: &mut Context<'_>, due: bool) -> Result<bool, Failure> {
        let timeouts = &self.site.config.timeouts;
        let hold = self.gate.until().filter(|_| due);
        let reading = self.connection.is_some() && self.piece.is_none();
        let server = self.server_progress.filter(|_| reading).map(|since| since + timeouts.server_idle);
        let sending = due && self.gate.is_open() && self.blocked_since.is_some();
        let client = sending.then(|| self.client_progress + timeouts.client_write);
        let slow = self.slow_at().filter(|_| sending && self.connection.is_some());
        let Some(next) = [hold, server, client, slow].into_iter().flatten().min() else { return Ok(false) };
        if self.timer.poll_until(cx, next).is_pending() {
            return Ok(false);
        }
        let now = Instant::now();
        if client.is_some_and(|at| now >= at) {
            return Err(Failure::ClientGone);
        }
        if server.is_some_and(|at| now >= at) {
            return Err(Failure::ServerIdle);
        }
        Ok(true)
    }

    /// When the client turns out to be slow, if that is still to come: from then on more is read ahead.
    fn slow_at(&self) -> Option<Instant> {
        let at = self.blocked_since? + SLOW_AFTER;
        (at.saturating_duration_since(Instant::now()) > Duration::ZERO).then_some(at)
    }
}
