//! The copy lane: bytes pass through userspace.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

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
/// other direction goes on.
pub async fn tunnel(first: End<'_>, second: End<'_>, buffers: &BufferPool) -> (Carried, io::Result<()>) {
    let mut forth = Direction::new(first.stream, second.stream, first.read);
    let mut back = Direction::new(second.stream, first.stream, second.read);
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
    fn new(from: &'a Stream, to: &'a Stream, buffer: BytesMut) -> Self {
        Self { from, to, buffer, phase: Phase::Open, carried: 0 }
    }

    fn poll(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                match self.to.poll_write(cx, &[IoSlice::new(&self.buffer)])? {
                    Poll::Ready(count) => {
                        self.buffer.advance(count);
                        self.carried += count as u64;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending => {
                    self.phase = Phase::Ended;
                    // A peer that is gone already needs no telling.
                    let _: io::Result<()> = self.to.shutdown_write();
                }
                Phase::Open => {
                    buffers.make_room(&mut self.buffer, ReadSize::Bulk);
                    let polled = self.from.poll_read(cx, &mut self.buffer);
                    if self.buffer.is_empty() {
                        buffers.give_back(&mut self.buffer);
                    }
                    match polled? {
                        Poll::Ready(0) => self.phase = Phase::Ending,
                        Poll::Ready(_) => {}
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}
