//! A tunnel that userspace carries: by copies, or through pipes.

use std::fmt;
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

/// Who hears of bytes while a tunnel lasts, as they leave the first side and as they reach it.
#[derive(Clone, Copy)]
pub struct Heard<'a> {
    pub from_first: &'a dyn Fn(usize),
    pub to_first: &'a dyn Fn(usize),
}

impl fmt::Debug for Heard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard").finish_non_exhaustive()
    }
}

/// Carries bytes both ways until both sides have ended theirs, or one breaks. One side's end is passed on while the
/// other direction goes on. `pipes`: where the bytes are to go through pipes, as far as there are any.
pub async fn carry(
    first: End<'_>,
    second: End<'_>,
    buffers: &BufferPool,
    pipes: Option<&PipePool>,
    heard: Heard<'_>,
) -> (Carried, io::Result<()>) {
    let mut forth = Direction::new(first.stream, second.stream, first.read, pipes, Told::Read(heard.from_first));
    let mut back = Direction::new(second.stream, first.stream, second.read, pipes, Told::Written(heard.to_first));
    let result = poll_fn(|cx| {
        let forth_ended = forth.poll(cx, buffers)?.is_ready();
        let back_ended = back.poll(cx, buffers)?.is_ready();
        if forth_ended && back_ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    (Carried { forth: forth.carried, back: back.carried }, result)
}

/// Where the bytes of a direction are told.
enum Told<'a> {
    Read(&'a dyn Fn(usize)),
    Written(&'a dyn Fn(usize)),
}

/// One direction of a tunnel.
struct Direction<'a> {
    from: &'a Stream,
    to: &'a Stream,
    buffer: BytesMut,
    pipes: Option<&'a PipePool>,
    /// Only while there are bytes in it.
    pipe: Option<Pipe>,
    phase: Phase,
    carried: u64,
    told: Told<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `from` has ended; what is in the buffer is still to be written.
    Ending,
    Ended,
}

impl<'a> Direction<'a> {
    fn new(from: &'a Stream, to: &'a Stream, buffer: BytesMut, pipes: Option<&'a PipePool>, told: Told<'a>) -> Self {
        Self { from, to, buffer, pipes, pipe: None, phase: Phase::Open, carried: 0, told }
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
                    let count = ready!(self.poll_read(cx, buffers))?;
                    if let Told::Read(tell) = self.told {
                        tell(count);
                    }
                    if count == 0 {
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
            self.wrote(count);
        }
        while let Some(pipe) = &mut self.pipe {
            let count = ready!(pipe.poll_drain(cx, self.to))?;
            if pipe.is_empty() {
                self.put_pipe_back();
            }
            self.wrote(count);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, count: usize) {
        self.carried += count as u64;
        if let Told::Written(tell) = self.told {
            tell(count);
        }
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
