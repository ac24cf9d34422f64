//! A tunnel that userspace carries: by copies, or through pipes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use super::pipe::{Pipe, PipePool};
use crate::buffer::{BufferPool, ReadSize};
use crate::net::Stream;

/// What a tunnel carried, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the first side to the second.
    pub forth: u64,
    /// From the second side to the first.
    pub back: u64,
}

/// One side of a tunnel, with the bytes that were read from it already.
#[derive(Debug)]
pub struct End<'a> {
    pub stream: &'a Stream,
    pub read: BytesMut,
}

/// Carries bytes both ways until both sides have ended theirs, or one breaks. One side's end is passed on while the
/// other direction goes on. `pipes`: where the bytes are to go through pipes, as far as there are any.
pub async fn carry(
    first: End<'_>,
    second: End<'_>,
    buffers: &BufferPool,
    pipes: Option<&PipePool>,
) -> (Carried, io::Result<()>) {
    let mut forth = Direction::new(first.stream, second.stream, first.read, pipes);
    let mut back = Direction::new(second.stream, first.stream, second.read, pipes);
    let result = poll_fn(|cx| {
        let forth_ended = forth.poll(cx, buffers)?.is_ready();
        let back_ended = back.poll(cx, buffers)?.is_ready();
        if forth_ended && back_ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    (Carried { forth: forth.carried, back: back.carried }, result)
}

/// One direction of a tunnel.
#[derive(Debug)]
struct Direction<'a> {
    from: &'a Stream,
    to: &'a Stream,
    buffer: BytesMut,
    pipes: Option<&'a PipePool>,
    /// Only while there are bytes in it.
    pipe: Option<Pipe>,
    phase: Phase,
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `from` has ended; what is in the buffer is still to be written.
    Ending,
    Ended,
}

impl<'a> Direction<'a> {
    fn new(from: &'a Stream, to: &'a Stream, buffer: BytesMut, pipes: Option<&'a PipePool>) -> Self {
        Self { from, to, buffer, pipes, pipe: None, phase: Phase::Open, carried: 0 }
    }

    fn poll(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write(cx))?;
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending => {
                    self.phase = Phase::Ended;
                    // A peer that is gone already needs no telling.
                    let _: io::Result<()> = self.to.shutdown_write();
                }
                Phase::Open => {
                    if ready!(self.poll_read(cx, buffers))? == 0 {
                        self.phase = Phase::Ending;
                    }
                }
            }
        }
    }

    /// Writes all that was read.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let count = ready!(self.to.poll_write(cx, &[IoSlice::new(&self.buffer)]))?;
            self.buffer.advance(count);
            self.carried += count as u64;
        }
        while let Some(pipe) = &mut self.pipe {
            let count = ready!(pipe.poll_drain(cx, self.to))?;
            self.carried += count as u64;
            if pipe.is_empty() {
                self.put_pipe_back();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what has come, now that all before it was written.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<usize>> {
        if let Some(pipe) = self.pipes.and_then(PipePool::take) {
            let pipe = self.pipe.insert(pipe);
            let polled = pipe.poll_fill(cx, self.from, u64::MAX);
            if pipe.is_empty() {
                self.put_pipe_back();
            }
            return polled;
        }
        buffers.make_room(&mut self.buffer, ReadSize::Bulk);
        let polled = self.from.poll_read(cx, &mut self.buffer);
        if self.buffer.is_empty() {
            buffers.give_back(&mut self.buffer);
        }
        polled
    }

    fn put_pipe_back(&mut self) {
        if let (Some(pipes), Some(pipe)) = (self.pipes, self.pipe.take()) {
            pipes.give_back(pipe);
        }
    }
}
