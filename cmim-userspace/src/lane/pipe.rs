//! The pipe lane: splice(2) moves pages from socket to pipe to socket, and userspace never sees their bytes.
//!
//! A pipe has bytes in it only while its splice is under way; empty ones wait in the worker's [`PipePool`].

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::net::Stream;

/// Empty pipes that a worker keeps.
const KEPT: usize = 64;
/// A pipe of fewer bytes costs more system calls than copying. The kernel gives no more to a user who has many
/// (`pipe-user-pages-soft`).
const LEAST: usize = 64 * 1024;

/// A pipe between two sockets.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    /// What the pool wanted its pipes to hold when this one was made; the kernel may have given less.
    wanted: usize,
    /// Bytes in it.
    len: usize,
}

impl Pipe {
    fn new(capacity: usize, wanted: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = fcntl_setpipe_size(&write, capacity)?;
        Ok(Self { read, write, capacity, wanted, len: 0 })
    }

    /// Bytes that were taken from one socket and not given to the other yet.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves up to `most` bytes of what `from` has into the pipe; `Ok(0)`: the peer has ended its side. Pending: there is
    /// nothing to move, or the pipe is full; the latter ends by [`Self::poll_drain`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream, most: u64) -> Poll<io::Result<usize>> {
        let room = self.capacity.saturating_sub(self.len);
        let most = usize::try_from(most).map_or(room, |most| most.min(room));
        if most == 0 {
            return Poll::Pending;
        }
        let polled = from.poll_splice_out(cx, &self.write, most, self.is_empty());
        if let Poll::Ready(Ok(count)) = polled {
            self.len += count;
        }
        polled
    }

    /// Moves what the pipe has into `to`, as much as that takes.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        let polled = to.poll_splice_in(cx, &self.read, self.len);
        if let Poll::Ready(Ok(count)) = polled {
            self.len = self.len.saturating_sub(count);
        }
        polled
    }

    /// Takes up to `most` of its bytes back into memory, for a content that leaves the lane.
    pub fn unload(&mut self, most: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(most.min(self.len));
        let count = rustix::io::read(&self.read, spare_capacity(&mut bytes))?;
        self.len = self.len.saturating_sub(count);
        Ok(bytes.into())
    }
}

/// The nearest capacity that a pipe of this user can have.
fn possible(capacity: u64) -> usize {
    usize::try_from(capacity).unwrap_or(usize::MAX).clamp(LEAST, most_of_a_pipe())
}

/// The largest pipe that this user may have.
fn most_of_a_pipe() -> usize {
    let limit = fs::read_to_string("/proc/sys/fs/pipe-max-size").ok();
    limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(LEAST).max(LEAST)
}

/// Empty pipes of one worker.
#[derive(Debug)]
pub struct PipePool {
    free: RefCell<Vec<Pipe>>,
    capacity: Cell<usize>,
}

impl PipePool {
    /// Of pipes with room for about `capacity` bytes each.
    pub fn new(capacity: u64) -> Self {
        Self { free: RefCell::default(), capacity: Cell::new(possible(capacity)) }
    }

    /// Pipes that are taken from now on have room for about `capacity` bytes each.
    pub fn set_capacity(&self, capacity: u64) {
        if self.capacity.replace(possible(capacity)) != self.capacity.get() {
            self.free.borrow_mut().clear();
        }
    }

    /// An empty pipe; `None`: the kernel gives none of a useful size now.
    pub fn take(&self) -> Option<Pipe> {
        let kept = self.free.borrow_mut().pop();
        let wanted = self.capacity.get();
        kept.or_else(|| Pipe::new(wanted, wanted).or_else(|_| Pipe::new(LEAST, wanted)).ok())
    }

    /// Keeps an empty pipe for the next splice. One with bytes in it is closed: they are another content's. So is one that
    /// was made for another capacity.
    pub fn give_back(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if pipe.is_empty() && pipe.wanted == self.capacity.get() && free.len() < KEPT {
            free.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST, PipePool};

    #[test]
    fn another_capacity_is_that_of_every_pipe_taken_from_then_on() {
        let pool = PipePool::new(4 * LEAST as u64);
        let (kept, under_way) = (pool.take().expect("a pipe"), pool.take().expect("a pipe"));
        assert_eq!(kept.capacity, 4 * LEAST);
        pool.give_back(kept);
        pool.set_capacity(2 * LEAST as u64);
        pool.give_back(under_way);
        let pipe = pool.take().expect("a pipe");
        assert_eq!(pipe.capacity, 2 * LEAST);
        pool.give_back(pipe);
        pool.set_capacity(2 * LEAST as u64);
        assert_eq!(pool.free.borrow().len(), 1, "one that fits is kept");
    }
}
