//! The local lane's way in: connections to servers of this host that the kernel may carry past TCP.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::config::model::ServerAddress;
pub use crate::kernel::LocalLane;
use crate::net::{self, Stream};
pub use cmim_common::local::LONGEST_CONTENT;

/// Replies that are larger on average are better off without the lane. It spares work for each message, and costs a copy
/// for each byte where the server sends from files; at 1 KiB it gains what it loses at 100 KiB.
const BULK: u64 = 48 << 10;
/// What a connection carries before it is judged.
const ENOUGH: u64 = 1 << 20;

/// What a connection has brought lately.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    bytes: u64,
    replies: u64,
}

impl Brought {
    pub const fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// A reply is whole. True: by what has come since the last judgement the connection should leave the lane. Judged a
    /// stretch at a time, so that thousands of small replies do not speak for the large ones that follow.
    pub const fn replied(&mut self) -> bool {
        self.replies += 1;
        if self.bytes < ENOUGH {
            return false;
        }
        let is_bulk = self.bytes > self.replies.saturating_mul(BULK);
        *self = Self { bytes: 0, replies: 0 };
        is_bulk
    }
}

/// Takes an idle connection off the lane, for good. From then on it can be spliced like any other. What its server has
/// not read is lost: only behind a whole reply to a request that was a head and nothing else.
#[must_use]
pub fn leave(lane: &LocalLane, stream: Stream) -> Stream {
    let Stream::Local(tcp) = stream else { return stream };
    let Ok((local, peer)) = tcp.addresses() else { return Stream::Local(tcp) };
    match lane.leave(local, peer) {
        Ok(()) => Stream::Tcp(tcp),
        Err(error) => {
            tracing::debug!(server = %peer, "still on the local lane: {}", error.clause());
            Stream::Local(tcp)
        }
    }
}

/// Connects to a server within `timeout`, on the lane where it leads there.
///
/// # Errors
///
/// As [`net::connect`].
pub async fn connect(lane: &LocalLane, address: &ServerAddress, timeout: Duration) -> io::Result<Stream> {
    let ServerAddress::Tcp(server) = address else {
        return net::connect(address, timeout).await;
    };
    if !lane.leads_to(server) {
        return net::connect(address, timeout).await;
    }
    let mark = |socket: BorrowedFd<'_>| {
        if let Err(error) = lane.mark(socket) {
            tracing::debug!(%server, "not on the local lane: {}", error.clause());
        }
    };
    let tcp = net::connect_marked(*server, timeout, mark).await?;
    let (local, peer) = tcp.addresses()?;
    if lane.has_joined(server, local, peer) {
        return Ok(Stream::Local(tcp));
    }
    drop(tcp);
    net::connect(address, timeout).await
}

#[cfg(test)]
mod tests {
    use super::Brought;

    /// Whether a connection that brings so many replies of `bytes` each leaves, and behind which of them.
    fn leaves_behind(brought: &mut Brought, replies: usize, bytes: usize) -> Option<usize> {
        (1..=replies).find(|_| {
            brought.read(bytes);
            brought.replied()
        })
    }

    #[test]
    fn a_connection_leaves_when_its_replies_are_large_on_average_and_not_for_a_single_one() {
        let mut brought = Brought::default();
        assert_eq!(leaves_behind(&mut brought, 20, 1_000), None);
        assert_eq!(leaves_behind(&mut brought, 1, 900_000), None, "too early to say");
        assert_eq!(leaves_behind(&mut brought, 10_000, 1_000), None, "many small ones outweigh it");
        assert_eq!(leaves_behind(&mut Brought::default(), 100, 100_000), Some(11));
        assert_eq!(leaves_behind(&mut Brought::default(), 1, 10_000_000), Some(1));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut brought = Brought::default();
        assert_eq!(leaves_behind(&mut brought, 1_000_000, 1_000), None);
        assert!(leaves_behind(&mut brought, 3, 1_000_000).is_some());
    }
}
