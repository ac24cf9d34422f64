//! Read buffers that a worker's connections share: a connection has one only while bytes are on their way.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// How much one read takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSize {
    /// A head and a small content: small, because thousands of connections can be reading one at the same time.
    Head,
    /// A content that goes on: large enough that it costs few system calls.
    Bulk,
}

impl ReadSize {
    pub const fn bytes(self) -> usize {
        match self {
            Self::Head => 16 * 1024,
            Self::Bulk => 64 * 1024,
        }
    }
}

/// Buffers of each size that an idle worker keeps.
const KEPT: usize = 64;
/// A read is not worth its system call with less room than this.
const LEAST_ROOM: usize = 4 * 1024;
/// Heads are written one behind the other into memory of this size.
const HEADS_SIZE: usize = 16 * 1024;
/// Room for a usual head, so that writing one does not move what is there.
const USUAL_HEAD: usize = 1024;

/// Empty buffers of one worker.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: RefCell<Vec<BytesMut>>,
    large: RefCell<Vec<BytesMut>>,
    heads: RefCell<BytesMut>,
}

impl BufferPool {
    /// What `write` writes, in memory shared with other heads of about the same time.
    pub fn written(&self, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut heads = self.heads.borrow_mut();
        if heads.capacity() < USUAL_HEAD && !heads.try_reclaim(HEADS_SIZE) {
            *heads = BytesMut::with_capacity(HEADS_SIZE);
        }
        write(&mut heads);
        heads.split().freeze()
    }

    /// Gives `buffer` room for a read.
    pub fn make_room(&self, buffer: &mut BytesMut, size: ReadSize) {
        if buffer.capacity() - buffer.len() >= LEAST_ROOM {
            return;
        }
        // A buffer whose earlier parts have all been sent is whole again; `try_reclaim` finds that out without a copy.
        if buffer.try_reclaim(size.bytes()) {
            return;
        }
        let kept = self.of(size).borrow_mut().pop();
        let mut fresh = kept.unwrap_or_else(|| BytesMut::with_capacity(size.bytes()));
        if !buffer.is_empty() {
            fresh.extend_from_slice(buffer);
            fresh.reserve(LEAST_ROOM);
        }
        *buffer = fresh;
    }

    /// Takes the memory of an empty buffer back, so that its connection can idle without it.
    pub fn give_back(&self, buffer: &mut BytesMut) {
        debug_assert!(buffer.is_empty(), "a buffer with bytes in it was given back");
        let mut buffer = std::mem::take(buffer);
        for size in [ReadSize::Bulk, ReadSize::Head] {
            if buffer.try_reclaim(size.bytes()) {
                let mut free = self.of(size).borrow_mut();
                if free.len() < KEPT {
                    free.push(buffer);
                }
                return;
            }
        }
    }

    fn of(&self, size: ReadSize) -> &RefCell<Vec<BytesMut>> {
        match size {
            ReadSize::Head => &self.small,
            ReadSize::Bulk => &self.large,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_serves_the_next_connection() {
        let pool = BufferPool::default();
        let mut first = BytesMut::new();
        pool.make_room(&mut first, ReadSize::Head);
        let memory = first.as_ptr();
        first.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let head = first.split().freeze();
        drop(head);
        pool.give_back(&mut first);
        assert_eq!(first.capacity(), 0);
        let mut second = BytesMut::new();
        pool.make_room(&mut second, ReadSize::Head);
        assert_eq!(second.as_ptr(), memory);
    }

    const READ: usize = ReadSize::Bulk.bytes();

    #[test]
    fn bytes_not_used_yet_survive_a_change_of_memory() {
        let pool = BufferPool::default();
        let mut buffer = BytesMut::new();
        pool.make_room(&mut buffer, ReadSize::Bulk);
        buffer.extend_from_slice(&[b'a'; READ - 10]);
        let held = buffer.split_to(READ - 20).freeze();
        pool.make_room(&mut buffer, ReadSize::Bulk);
        assert_eq!(&buffer[..], &[b'a'; 10]);
        assert!(buffer.capacity() - buffer.len() >= LEAST_ROOM);
        drop(held);
    }
}
