//! One direction of a splice: userspace where it must, the kernel where it can.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};

use super::phase::{Event, Phase};
use crate::buffer::{BufferPool, ReadSize};
use crate::kernel::{Splice, Way};
use crate::net::Stream;

/// What the kernel has handed over is in the target's TCP after microseconds; where it is not, it is asked again after
/// this. There is nothing that would tell.
const ASK_AGAIN: Duration = Duration::from_millis(1);
/// Reads of one direction before others get their turn.
const TURN: usize = 16;

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
    /// Bytes of the content that were not read or carried yet; `None`: it ends with its source.
    remaining: Option<u64>,
    /// Bytes read since the kernel has had it, and not written yet.
    unreported: u64,
    /// Written by userspace.
    relayed: u64,
    asking: Option<Pin<Box<Sleep>>>,
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: &'a Stream, to: &'a Stream, way: Way, read: BytesMut) -> Self {
        Self {
            from,
            to,
            way,
            buffer: read,
            phase: Phase::Relaying,
            ended: false,
            refused: false,
            remaining: None,
            unreported: 0,
            relayed: 0,
            asking: None,
        }
    }

    /// Goes on as far as it can; ready: everything was carried, and the source's end passed on. `news`: the kernel says
    /// that there is something to look at.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice<'_>,
        buffers: &BufferPool,
        news: bool,
    ) -> Poll<io::Result<()>> {
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

    /// Bytes carried so far, by whomever.
    pub(super) fn carried(&self, splice: &Splice<'_>) -> u64 {
        let spliced = splice.progress(self.way).map_or(0, |progress| progress.spliced);
        self.relayed + spliced
    }

    /// Writes what is here and reads what has come; hands over to the kernel where nothing has.
    fn relay(&mut self, cx: &mut Context<'_>, splice: &mut Splice<'_>, buffers: &BufferPool) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let count = ready!(self.to.poll_write_now(cx, &self.buffer))?;
            self.buffer.advance(count);
            self.relayed += count as u64;
        }
        splice.pass_on(self.way, std::mem::take(&mut self.unreported));
        if self.ended {
            self.phase.step(Event::Finished);
            // A peer that is gone already needs no telling.
            let _: io::Result<()> = self.to.shutdown_write();
            return Poll::Ready(Ok(()));
        }
        if self.poll_read(cx, splice, buffers)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.refused {
            return Poll::Pending;
        }
        if !splice.is_installed(self.way) {
            self.install(splice)?;
            return Poll::Ready(Ok(()));
        }
        // Asked behind the read, which has locked the socket: whatever was left to userspace before is counted now, and
        // whatever is from here on comes with news.
        let progress = splice.progress(self.way).map_err(io::Error::other)?;
        if splice.is_level(self.way, &progress) {
            self.phase.step(Event::Level);
            return Poll::Ready(Ok(()));
        }
        self.ask_again(cx)
    }

    /// Whether there is anything for userspace while the kernel carries the bytes.
    fn look(
        &mut self,
        cx: &mut Context<'_>,
        splice: &Splice<'_>,
        buffers: &BufferPool,
        news: bool,
    ) -> Poll<io::Result<()>> {
        if self.poll_read(cx, splice, buffers)?.is_ready() {
            self.phase.step(Event::LeftToUserspace);
            return Poll::Ready(Ok(()));
        }
        if news {
            let progress = splice.progress(self.way).map_err(io::Error::other)?;
            if !splice.is_level(self.way, &progress) {
                // Left to userspace, and not in its receive queue yet.
                self.phase.step(Event::LeftToUserspace);
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Waits until userspace may write to the target again.
    fn drain(&mut self, cx: &mut Context<'_>, splice: &Splice<'_>) -> Poll<io::Result<()>> {
        let progress = splice.progress(self.way).map_err(io::Error::other)?;
        if splice.is_drained(self.way, &progress)? {
            self.phase.step(Event::Drained);
            return Poll::Ready(Ok(()));
        }
        self.ask_again(cx)
    }

    /// Ready where bytes were read or the source has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, splice: &Splice<'_>, buffers: &BufferPool) -> io::Result<Poll<()>> {
        buffers.make_room(&mut self.buffer, ReadSize::Bulk);
        let polled = self.from.poll_read_now(cx, &mut self.buffer);
        if self.buffer.is_empty() {
            buffers.give_back(&mut self.buffer);
        }
        match polled {
            Poll::Ready(count) => {
                let count = count?;
                self.ended = count == 0;
                if splice.is_installed(self.way) {
                    self.unreported += count as u64;
                }
                Ok(Poll::Ready(()))
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn install(&mut self, splice: &mut Splice<'_>) -> io::Result<()> {
        if let Err(error) = splice.install(self.way, self.remaining) {
            tracing::debug!("a direction is copied: {error}");
            self.refused = true;
            // Its bytes are this side's to wait for.
            self.from.watch_whole()?;
        }
        Ok(())
    }

    fn ask_again(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let asking = self.asking.get_or_insert_with(|| Box::pin(sleep(ASK_AGAIN)));
        ready!(asking.as_mut().poll(cx));
        self.asking = None;
        Poll::Ready(Ok(()))
    }
}
