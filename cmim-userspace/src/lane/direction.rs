//! One direction of a splice, a tunnel's or a content's: userspace where it must, the kernel where it can.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};

use super::phase::{Event, Phase};
use crate::buffer::{BufferPool, ReadSize};
use crate::kernel::{KernelError, Progress, Splice, Way};
use crate::net::Stream;

/// What the kernel has handed over is in the target's TCP after microseconds; where it is not, it is asked again after
/// this, and from then on after twice as long each time. There is nothing that would tell.
const ASK_AGAIN: Duration = Duration::from_millis(1);
/// A target that takes nothing for long is asked this often.
const ASK_SELDOM: Duration = Duration::from_millis(64);
/// Reads of one direction before others get their turn.
const TURN: usize = 16;

/// Why a direction stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Reading failed.
    #[error("the source failed: {0}")]
    Source(#[source] io::Error),
    /// The source ended within a content.
    #[error("the source ended within the content")]
    Cut,
    /// Writing failed.
    #[error("the target failed: {0}")]
    Target(#[source] io::Error),
    /// The kernel's maps or this side's event loop failed.
    #[error("the lane failed: {0}")]
    Lane(#[source] io::Error),
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Source(error) | Fault::Target(error) | Fault::Lane(error) => error,
            Fault::Cut => io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

/// One direction, with what was read of it and not written yet.
#[derive(Debug)]
pub(super) struct Direction<'a> {
    from: &'a Stream,
    to: &'a Stream,
    way: Way,
    buffer: BytesMut,
    phase: Phase,
    /// The source has ended, or the content is whole; nothing more is read.
    ended: bool,
    /// The kernel refused this direction; it is copied.
    refused: bool,
    content: Option<Content>,
    /// There may be bytes for userspace that are not in the receive queue yet.
    unsure: bool,
    /// Bytes read since the kernel has had it, and not written yet.
    unreported: u64,
    /// Written by userspace.
    relayed: u64,
    asking: Option<Pin<Box<Sleep>>>,
    /// The next pause before asking again.
    pause: Duration,
}

/// What came of reading from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Bytes, or the end.
    Something,
    Nothing,
    /// The end, before bytes that were left to userspace and are not in the receive queue yet.
    TooEarly,
}

/// What is carried has an end of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    /// Bytes of it.
    pub length: u64,
    /// With fewer to come it is not worth the kernel's while.
    pub least: u64,
    /// Bytes that were not written yet, nor carried. Old while the kernel carries.
    left: u64,
}

impl Content {
    pub(super) const fn new(length: u64, least: u64) -> Self {
        Self { length, least, left: length }
    }
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: &'a Stream, to: &'a Stream, way: Way, read: BytesMut, content: Option<Content>) -> Self {
        Self {
            from,
            to,
            way,
            buffer: read,
            phase: Phase::Relaying,
            ended: false,
            refused: false,
            content,
            unsure: false,
            unreported: 0,
            relayed: 0,
            asking: None,
            pause: ASK_AGAIN,
        }
    }

    /// Goes on as far as it can; ready: everything was carried, and of a tunnel the source's end passed on. `news`: the
    /// kernel says that there is something to look at.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice<'_>,
        buffers: &BufferPool,
        news: bool,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..TURN {
            match self.phase {
                Phase::Relaying => ready!(self.relay(cx, splice, buffers))?,
                Phase::Carried => ready!(self.look(cx, splice, buffers, news))?,
                Phase::Draining => ready!(self.drain(cx, splice))?,
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What was read and belongs to what is carried.
    fn own(&self) -> &[u8] {
        let own = self.content.map_or(usize::MAX, |content| usize::try_from(content.left).unwrap_or(usize::MAX));
        self.buffer.get(..own).unwrap_or(&self.buffer)
    }

    /// What was read behind a content's end.
    pub(super) fn into_rest(self) -> BytesMut {
        self.buffer
    }

    /// Bytes carried so far, by whomever.
    pub(super) fn carried(&self, splice: &Splice<'_>) -> u64 {
        let spliced = splice.progress(self.way).map_or(0, |progress| progress.spliced);
        self.relayed + spliced
    }

    /// Whether bytes that have come wait for the target, so that it is for that side to move.
    pub(super) fn waits_for_target(&self, splice: &Splice<'_>) -> bool {
        match self.phase {
            Phase::Relaying => !self.own().is_empty(),
            Phase::Draining => true,
            // A target that cannot be asked is about to fail by itself.
            Phase::Carried => {
                splice.progress(self.way).is_ok_and(|progress| !splice.is_drained(self.way, &progress).unwrap_or(true))
            }
            Phase::Ended => false,
        }
    }

    /// Writes what is here and reads what has come; hands over to the kernel where nothing has.
    fn relay(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice<'_>,
        buffers: &BufferPool,
    ) -> Poll<Result<(), Fault>> {
        while !self.own().is_empty() {
            let count = ready!(self.to.poll_write_now(cx, self.own())).map_err(Fault::Target)?;
            self.buffer.advance(count);
            self.relayed += count as u64;
            if let Some(content) = &mut self.content {
                content.left -= count as u64;
            }
        }
        splice.pass_on(self.way, std::mem::take(&mut self.unreported));
        if self.content.is_some_and(|content| content.left == 0) {
            self.phase.step(Event::Finished);
            return Poll::Ready(Ok(()));
        }
        if self.ended && self.content.is_some() {
            return Poll::Ready(Err(Fault::Cut));
        }
        if self.ended {
            self.phase.step(Event::Finished);
            // A peer that is gone already needs no telling.
            let _: io::Result<()> = self.to.shutdown_write();
            return Poll::Ready(Ok(()));
        }
        if splice.is_installed(self.way) {
            // The kernel goes on by itself from here: what is read next may be behind what it has handed over meanwhile.
            self.phase.step(Event::Level);
            self.unsure = true;
            return Poll::Ready(Ok(()));
        }
        match self.read(cx, splice, buffers)? {
            Read::Something => {}
            Read::Nothing | Read::TooEarly if self.refused => return Poll::Pending,
            Read::Nothing | Read::TooEarly => self.install(splice).map_err(Fault::Lane)?,
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is anything for userspace while the kernel carries the bytes.
    fn look(
        &mut self,
        cx: &mut Context<'_>,
        splice: &Splice<'_>,
        buffers: &BufferPool,
        news: bool,
    ) -> Poll<Result<(), Fault>> {
        match self.read(cx, splice, buffers) {
            Ok(Read::Nothing) => self.unsure |= news,
            Ok(Read::TooEarly) => self.unsure = true,
            // A source may break behind its last byte.
            Err(error) if !self.is_whole(splice) => return Poll::Ready(Err(error)),
            Ok(Read::Something) | Err(_) => {
                self.phase.step(Event::LeftToUserspace);
                return Poll::Ready(Ok(()));
            }
        }
        if !self.unsure {
            return Poll::Pending;
        }
        // Asked behind the read, which has locked the socket: whatever was left to userspace before is counted now, and
        // whatever is from here on comes with news.
        let progress = self.progress(splice)?;
        if !splice.is_level(self.way, &progress) {
            // Left to userspace, and on its way into the receive queue.
            return self.ask_again(cx);
        }
        self.unsure = false;
        self.pause = ASK_AGAIN;
        if progress.remaining == Some(0) {
            self.phase.step(Event::LeftToUserspace);
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// How far the kernel has come, unless it has lost something.
    fn progress(&self, splice: &Splice<'_>) -> Result<Progress, Fault> {
        let progress = splice.progress(self.way).map_err(lane)?;
        if progress.is_broken {
            return Err(Fault::Lane(io::Error::other("the kernel had no memory for a burst")));
        }
        Ok(progress)
    }

    /// Whether the kernel has seen the content's last byte.
    fn is_whole(&self, splice: &Splice<'_>) -> bool {
        splice.progress(self.way).is_ok_and(|progress| progress.remaining == Some(0))
    }

    /// Waits until userspace may write to the target again.
    fn drain(&mut self, cx: &mut Context<'_>, splice: &Splice<'_>) -> Poll<Result<(), Fault>> {
        let progress = self.progress(splice)?;
        if splice.is_drained(self.way, &progress).map_err(Fault::Target)? {
            if let Some(content) = &mut self.content {
                content.left = content.length.saturating_sub(self.relayed + progress.spliced);
            }
            self.phase.step(Event::Drained);
            self.pause = ASK_AGAIN;
            return Poll::Ready(Ok(()));
        }
        self.ask_again(cx)
    }

    fn read(&mut self, cx: &mut Context<'_>, splice: &Splice<'_>, buffers: &BufferPool) -> Result<Read, Fault> {
        buffers.make_room(&mut self.buffer, ReadSize::Bulk);
        let polled = self.from.poll_read_now(cx, &mut self.buffer);
        if self.buffer.is_empty() {
            buffers.give_back(&mut self.buffer);
        }
        let Poll::Ready(count) = polled else { return Ok(Read::Nothing) };
        let count = count.map_err(Fault::Source)?;
        if !splice.is_installed(self.way) {
            self.ended = count == 0;
            return Ok(Read::Something);
        }
        self.unreported += count as u64;
        if count == 0 {
            // An ended socket says so as soon as its receive queue is empty, also while what the verdict has passed is on
            // its way there (`tcp_bpf_recvmsg_parser` does not look at psock's `ingress_skb`).
            let progress = self.progress(splice)?;
            if splice.is_behind(self.way, &progress, self.unreported) {
                return Ok(Read::TooEarly);
            }
            self.ended = true;
        }
        Ok(Read::Something)
    }

    fn install(&mut self, splice: &mut Splice<'_>) -> io::Result<()> {
        let left = self.content.map(|content| content.left);
        if self.content.is_none_or(|content| content.left >= content.least) {
            match splice.install(self.way, left) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!("a direction is copied: {error}"),
            }
        }
        self.refused = true;
        // Its bytes are this side's to wait for.
        self.from.watch_whole()
    }

    fn ask_again(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let asking = self.asking.get_or_insert_with(|| Box::pin(sleep(self.pause)));
        ready!(asking.as_mut().poll(cx));
        self.asking = None;
        self.pause = (self.pause * 2).min(ASK_SELDOM);
        Poll::Ready(Ok(()))
    }
}

fn lane(error: KernelError) -> Fault {
    Fault::Lane(io::Error::other(error))
}
