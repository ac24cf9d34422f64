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

/// Whether a connection that has brought so many bytes in so many replies should leave the lane.
#[must_use]
pub const fn is_bulk(bytes: u64, replies: u64) -> bool {
    bytes >= ENOUGH && bytes > replies.saturating_mul(BULK)
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
    let stream = net::connect_marked(*server, timeout, mark).await?;
    if lane.has_joined(server, stream.local_addr()?, stream.peer_addr()?) {
        return Ok(Stream::Local(stream.into()));
    }
    drop(stream);
    net::connect(address, timeout).await
}

#[cfg(test)]
mod tests {
    use super::is_bulk;

    #[test]
    fn a_connection_leaves_when_its_replies_are_large_on_average_and_not_for_a_single_one() {
        assert!(!is_bulk(500_000, 1), "too early to say");
        assert!(is_bulk(10_000_000, 1));
        assert!(is_bulk(1_100_000, 11));
        assert!(!is_bulk(1 << 30, 1_000_000), "many small ones outweigh it");
        assert!(!is_bulk(u64::MAX, u64::MAX));
    }
}
