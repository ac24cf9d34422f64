//! A reply's content on its way from the server to the client: streamed, or held until its length is known.
//!
//! One loop pulls from the server, decides when the head may go, and pushes to the client. The server is free the
//! moment its last byte is in, however slow the client is; a client that is slower than the server gets its bytes from
//! the buffer.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::attempt::Answered;
use super::content::{Content, Piece};
use super::failure::Failure;
use super::link::{Job, Link};
use super::server::ServerConnection;
use super::site::Site;
use super::timer::Timer;
use super::trail::Handling;
use super::upload::{Gathered, Upload};
use crate::buffer::Held;
use crate::config::model::SendProxyProtocol;
use crate::h1::{self, Fields, ReplyDelimit, ReplyHead, ReplyTo, chunk_header, last_chunk};
use crate::job::State;
use crate::reply::{Fallback, HoldUntil, Plan};

/// Pieces that one write takes.
const SLICES: usize = 16;
/// What is read ahead for a client that keeps up.
const READ_AHEAD: u64 = 256 * 1024;
/// A client that has kept bytes waiting for this long is slower than the server, and the server is freed of it.
const SLOW_AFTER: Duration = Duration::from_millis(100);

/// How a relay ended.
#[derive(Debug)]
pub(super) enum Relayed {
    /// The reply went out whole. `persist`: its head said that the client's connection stays.
    Whole { persist: bool },
    /// It failed while nothing of it had been sent: another reply can take its place.
    Unsent(Failure),
    /// It failed in the middle: only a reset shows the client that it is not whole.
    Cut(Failure),
}

/// Whether the client may get what is there.
#[derive(Debug)]
enum Gate {
    /// Until the length is known. `until`: when waiting for it ends.
    Holding {
        until: Option<Instant>,
        otherwise: Fallback,
    },
    Open {
        chunked: bool,
    },
}

/// One reply under way.
pub(super) struct Relay<'a> {
    site: &'a Site,
    link: &'a Link,
    job: &'a mut Job,
    gathered: &'a mut Gathered,
    /// Until it is written for the client.
    head: Option<ReplyHead>,
    /// Until the reply is whole.
    connection: Option<ServerConnection>,
    persistent: bool,
    content: Content,
    content_bytes: u64,
    upload: Upload,
    early: Held,
    held: Held,
    /// A piece for which there was no room.
    stuck: Option<Bytes>,
    gate: Gate,
    persist: bool,
    trailers: Option<Fields>,
    sent: u64,
    began: Instant,
    due_since: Option<Instant>,
    blocked_since: Option<Instant>,
    server_progress: Instant,
    /// The server is being read, and not made to wait.
    wanting: bool,
    client_progress: Instant,
    timer: Timer,
    /// The server connection's read buffer, for the pool once its bytes are sent.
    spare: BytesMut,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        site: &'a Site,
        link: &'a Link,
        job: &'a mut Job,
        gathered: &'a mut Gathered,
        answered: Answered,
        plan: Plan,
    ) -> Self {
        let Answered { connection, head, upload, early } = answered;
        let now = Instant::now();
        job.progress.to(State::Replying);
        let mut relay = Self {
            site,
            link,
            gathered,
            content: Content::of_reply(head.content),
            persistent: head.persistent && job.upstream.model.send_proxy_protocol == SendProxyProtocol::Off,
            head: Some(head),
            connection: Some(connection),
            content_bytes: 0,
            upload,
            early,
            held: Held::new(site.memory.clone()),
            stuck: None,
            gate: Gate::Open { chunked: false },
            persist: false,
            trailers: None,
            sent: 0,
            began: now,
            due_since: None,
            blocked_since: None,
            server_progress: now,
            wanting: true,
            client_progress: now,
            timer: Timer::default(),
            spare: BytesMut::new(),
            job,
        };
        match plan {
            Plan::Stream { delimit } => relay.open(delimit, Handling::Streamed),
            Plan::Hold { until, otherwise } => {
                let until = (until == HoldUntil::Auto).then(|| now + relay.job.upstream.model.hold_time);
                relay.gate = Gate::Holding { until, otherwise };
            }
            // Refused plans never come here; an open gate without a head would send nothing.
            Plan::Refuse { .. } => {}
        }
        relay
    }

    /// Carries the reply to its end.
    pub(super) async fn run(mut self) -> Relayed {
        let result = poll_fn(|cx| self.poll(cx)).await;
        self.job.trail.bytes_out = self.content_bytes;
        let mut spare = std::mem::take(&mut self.spare);
        drop(std::mem::replace(&mut self.held, Held::new(self.site.memory.clone())));
        spare.clear();
        self.site.buffers.give_back(&mut spare);
        match result {
            Ok(()) => Relayed::Whole { persist: self.persist && self.upload.is_complete() },
            Err(failure) if self.sent == 0 => Relayed::Unsent(failure),
            Err(failure) => Relayed::Cut(failure),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let due = self.link.poll_due(cx, self.job.seq).is_ready();
            if due && self.due_since.is_none() {
                let now = Instant::now();
                self.due_since = Some(now);
                self.job.trail.turn_wait = (self.job.trail.stacked > 1).then(|| now - self.began);
            }
            self.poll_upload(cx);
            let mut moved = self.pull(cx)?;
            moved |= self.decide(due)?;
            if due && matches!(self.gate, Gate::Open { .. }) {
                moved |= self.push(cx)?;
                if self.connection.is_none() && self.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            if !moved && !self.poll_timer(cx, due)? {
                return Poll::Pending;
            }
        }
    }

    /// The rest of the request, while the reply is on its way already.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if self.upload.is_over() {
            return;
        }
        let Some(connection) = &self.connection else { return };
        if let Poll::Ready(Err(_)) = self.upload.poll(cx, self.site, self.link, connection, self.gathered) {
            // The reply stands; only the connections cannot go on behind it.
            self.upload.abandon();
        }
    }

    /// Takes one piece from the server, where there is room for it.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        if let Some(piece) = self.stuck.take() {
            self.keep(piece);
            return Ok(self.stuck.is_none());
        }
        if !self.wants_more() {
            self.wanting = false;
            return Ok(false);
        }
        if !self.wanting {
            // The server was made to wait: its time begins anew.
            self.wanting = true;
            self.server_progress = Instant::now();
        }
        let Some(connection) = &mut self.connection else { return Ok(false) };
        match self.content.next(&mut connection.buffer).map_err(Failure::BadChunk)? {
            Piece::Data(data) => {
                self.content_bytes += data.len() as u64;
                self.keep(data);
                self.job.progress.has(self.content_bytes, if self.held.is_empty() { "" } else { "memory" });
                Ok(true)
            }
            Piece::End { trailers } => {
                self.trailers = trailers;
                self.finish();
                Ok(true)
            }
            Piece::NeedMore => match connection.poll_fill(cx, self.site) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(0)) if self.content.ends_with_connection() => {
                    self.finish();
                    Ok(true)
                }
                Poll::Ready(Ok(0) | Err(_)) => Err(Failure::Truncated),
                Poll::Ready(Ok(_)) => {
                    self.server_progress = Instant::now();
                    Ok(true)
                }
            },
        }
    }

    fn keep(&mut self, piece: Bytes) {
        let chunk = match self.gate {
            Gate::Open { chunked: true } => Some(self.site.buffers.written(|out| chunk_header(piece.len(), out))),
            _ => None,
        };
        // A client that is due always gets its next piece, however full the tiers are: it is sent at once.
        let passing = self.held.is_empty() && matches!(self.gate, Gate::Open { .. });
        if !passing && !self.held.reserve(piece.len() as u64) {
            self.stuck = Some(piece);
            return;
        }
        if let Some(chunk) = chunk {
            self.held.append_unaccounted(chunk);
            self.held.append_unaccounted(piece);
            self.held.append_unaccounted(Bytes::from_static(b"\r\n"));
        } else {
            self.held.append_unaccounted(piece);
        }
    }

    /// The reply is whole: its server is free.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.spare = connection.finish(self.site, self.persistent && self.upload.is_complete());
        }
        self.link.reply_is_whole(self.job.seq);
        if let Gate::Open { chunked: true } = self.gate {
            let trailers = self.trailers.take().unwrap_or_default();
            self.held.append_unaccounted(self.site.buffers.written(|out| last_chunk(&trailers, out)));
        }
    }

    /// Whether the server is read further.
    fn wants_more(&self) -> bool {
        if self.connection.is_none() || self.stuck.is_some() {
            return false;
        }
        match self.gate {
            // Auto: above hold_size the gate opens; until it is this reply's turn, the server waits.
            Gate::Holding { until: Some(_), .. } => self.held.len() < self.job.upstream.model.hold_size,
            Gate::Holding { until: None, .. } => true,
            Gate::Open { .. } => self.held.len() < self.read_ahead(),
        }
    }

    /// Bytes that are read ahead of the client.
    fn read_ahead(&self) -> u64 {
        let is_slow = match (self.due_since, self.blocked_since) {
            (None, _) => true,
            (Some(_), since) => since.is_some_and(|since| since.elapsed() >= SLOW_AFTER),
        };
        if !is_slow {
            return READ_AHEAD;
        }
        // Replies that wait for their length need the RAM more than those that could wait in the server.
        let memory = &self.site.memory;
        if memory.used() < memory.size() / 2 {
            self.job.upstream.model.hold_size.max(READ_AHEAD)
        } else {
            self.site.config.buffer.memory_per_reply.max(READ_AHEAD)
        }
    }

    /// Opens the gate when the length is known, or when waiting for it ends.
    fn decide(&mut self, due: bool) -> Result<bool, Failure> {
        let Gate::Holding { until, otherwise } = self.gate else { return Ok(false) };
        if self.connection.is_none() {
            self.open(ReplyDelimit::Length(self.held.len()), Handling::Rewritten);
            return Ok(true);
        }
        let over =
            until.is_some_and(|until| self.held.len() >= self.job.upstream.model.hold_size || Instant::now() >= until);
        if !over && self.stuck.is_none() {
            return Ok(false);
        }
        match otherwise {
            Fallback::Refuse => Err(Failure::BuffersFull),
            Fallback::Chunked | Fallback::UntilClose if !due => Ok(false),
            Fallback::Chunked => {
                self.open(ReplyDelimit::Chunked, Handling::Chunked);
                Ok(true)
            }
            Fallback::UntilClose => {
                self.open(ReplyDelimit::UntilClose, Handling::Streamed);
                Ok(true)
            }
        }
    }

    /// Puts the head in front of what is held, framed as `delimit` says.
    fn open(&mut self, delimit: ReplyDelimit, handling: Handling) {
        let Some(head) = self.head.take() else { return };
        let chunked = matches!(delimit, ReplyDelimit::Chunked | ReplyDelimit::Coded);
        if chunked && !self.held.is_empty() {
            let line = self.site.buffers.written(|out| chunk_header(self.held.len() as usize, out));
            self.held.prepend_unaccounted(line);
            self.held.append_unaccounted(Bytes::from_static(b"\r\n"));
        }
        self.persist =
            self.job.head.persistent && !delimit.closes() && !self.site.drain.has_begun() && self.upload.is_complete();
        let to = ReplyTo { client_version: self.job.head.version, persist: self.persist };
        let head_bytes = self.site.buffers.written(|out| h1::encode::reply(&head, &to, delimit, out));
        self.held.prepend_unaccounted(head_bytes);
        let early: Vec<Bytes> = self.early.pieces().cloned().collect();
        for piece in early.into_iter().rev() {
            self.held.prepend_unaccounted(piece);
        }
        self.gate = Gate::Open { chunked };
        self.job.trail.handling = handling;
        let counters = &self.site.counters;
        if handling == Handling::Rewritten {
            counters.replies_rewritten.add(1);
            counters.trailers_dropped.add(self.trailers.take().map_or(0, |trailers| trailers.len() as u64));
        } else {
            counters.replies_streamed.add(1);
        }
    }

    /// Sends what the client takes.
    fn push(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut moved = false;
        while !self.held.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.held.slices(&mut slices);
            match self.link.poll_write(cx, &slices[..filled]) {
                Poll::Ready(Ok(count)) => {
                    self.held.advance(count);
                    if self.sent == 0 {
                        self.link.begin_reply();
                    }
                    self.sent += count as u64;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
                Poll::Pending => {
                    let now = Instant::now();
                    if moved {
                        self.client_progress = now;
                    }
                    if self.blocked_since.is_none() {
                        self.blocked_since = Some(now);
                        self.client_progress = now;
                    }
                    return Ok(moved);
                }
            }
        }
        self.blocked_since = None;
        Ok(moved)
    }

    /// True: a moment has come at which the loop has to look again.
    fn poll_timer(&mut self, cx: &mut Context<'_>, due: bool) -> Result<bool, Failure> {
        let timeouts = &self.site.config.timeouts;
        let hold = match self.gate {
            Gate::Holding { until, .. } if due => until,
            _ => None,
        };
        let server = self.wants_more().then(|| self.server_progress + timeouts.server_idle);
        let sending = due && matches!(self.gate, Gate::Open { .. }) && !self.held.is_empty();
        let client = sending.then(|| self.client_progress + timeouts.client_write);
        // Once, when the client turns out to be slow: from then on more is read ahead.
        let slow = self.blocked_since.map(|since| since + SLOW_AFTER).filter(|&at| at > Instant::now());
        let slow = slow.filter(|_| sending && self.connection.is_some());
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
}
