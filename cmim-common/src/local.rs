//! The decision of the local lane: may a message go straight into the other end's hands, or must TCP carry it?
//!
//! Pure. The sk_msg program asks it for each message that an end of a connection on this host sends. A message that is
//! handed over waits in a queue of its own at the other end, which reads that queue first and TCP's only behind it
//! (`tcp_bpf_recvmsg`). Hence the two rules of [`decide`]. Messages stay in order: one is handed over only when the
//! other end has read all that TCP brought. And the queue is bounded: what would not fit is TCP's to carry, which slows
//! the sender down as on any connection; it comes behind the queue, as it was sent.

use core::mem::{align_of, size_of};

/// Most bytes that are handed over and not read yet, for each direction of each connection. Enough for a request and for
/// small replies, little enough to do no harm; a longer message is in TCP's good hands, as handing over spares the work
/// per message, not the copying.
pub const WINDOW: u32 = 65_536;

/// The longest head of a request that may go to a server on the lane, and the longest content. All of a request is handed
/// over then, whatever the server reads. A server must see no bytes of TCP on the lane: SIOCINQ does not count them
/// there, and nginx for one believes it and reads no more.
pub const LONGEST_HEAD: u32 = 40 << 10;
pub const LONGEST_CONTENT: u32 = 16 << 10;
/// What the daemon itself may add to a head.
const ADDED: u32 = 8 << 10;

/// Entries of the lane's maps: connections at one time, twice for both ends. Further ones are plain TCP.
pub const MAX_ENDS: usize = 65_536;

/// What is kept at each end's socket, in `CMIM_ENDS`: the daemon makes it at its own sockets before they connect, which
/// marks them, and the programs at the server's.
///
/// The addresses are the kernel's own (`struct tcp_sock`). One is read as long as its socket may be gone, with helpers
/// that bear it (`bpf_probe_read_kernel`); the cookie never means another socket, so that nothing goes astray.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// This socket; 0: the connection is not made yet.
    pub own: u64,
    /// The other end's socket; 0: it has not joined.
    pub peer: u64,
    /// The key of the other end in `CMIM_LOCAL`.
    pub peer_cookie: u64,
}

/// A connection between the daemon and a server on this host, under the key of the daemon's end: the value of
/// `CMIM_PAIRS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pair {
    /// The network namespace's cookie: the same addresses mean another connection in another one.
    pub namespace: u64,
    /// The daemon's end: its cookie and its socket.
    pub daemon_cookie: u64,
    pub daemon: u64,
    /// The server's end; 0 until it has joined.
    pub server_cookie: u64,
    pub server: u64,
}

/// Both ends at the moment of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The sequence number of the next byte that TCP would carry (`write_seq` of the sender).
    pub written: u32,
    /// The sequence number of the next byte to be read of what TCP brought (`copied_seq` of the reader).
    pub read: u32,
    /// Bytes that the reader holds unread (`sk_rmem_alloc`).
    pub unread: u32,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Put it into the other end's queue.
    HandOver,
    /// Let TCP carry it.
    Pass(Reason),
}

/// Why TCP carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The other end has not read all that TCP brought; the message would overtake it.
    Behind,
    /// The other end has not read enough of what was handed over.
    OverWindow,
}

/// The decision for one message of `length` bytes.
#[inline(always)]
#[must_use]
pub const fn decide(length: u32, look: Look) -> Decision {
    if look.written != look.read {
        return Decision::Pass(Reason::Behind);
    }
    if look.unread.saturating_add(length) > WINDOW {
        return Decision::Pass(Reason::OverWindow);
    }
    Decision::HandOver
}

const _: () = {
    assert!(LONGEST_HEAD + ADDED + LONGEST_CONTENT <= WINDOW);
    assert!(size_of::<End>() == 3 * 8);
    assert!(align_of::<End>() == 8);
    assert!(size_of::<Pair>() == 5 * 8);
    assert!(align_of::<Pair>() == 8);
};

#[cfg(test)]
mod tests {
    use super::{Decision, Look, Reason, WINDOW, decide};

    const EVEN: Look = Look { written: 7, read: 7, unread: 0 };

    #[test]
    fn a_message_is_handed_over_when_nothing_is_in_its_way() {
        assert_eq!(decide(1, EVEN), Decision::HandOver);
        assert_eq!(decide(WINDOW, EVEN), Decision::HandOver);
        assert_eq!(decide(1, Look { unread: WINDOW - 1, ..EVEN }), Decision::HandOver);
    }

    #[test]
    fn what_tcp_brought_is_never_overtaken() {
        for written in [6, 8, u32::MAX] {
            assert_eq!(decide(1, Look { written, ..EVEN }), Decision::Pass(Reason::Behind));
        }
    }

    #[test]
    fn the_queue_never_outgrows_the_window() {
        for unread in [WINDOW, WINDOW + 1, u32::MAX] {
            assert_eq!(decide(1, Look { unread, ..EVEN }), Decision::Pass(Reason::OverWindow));
        }
        assert_eq!(decide(u32::MAX, Look { unread: 1, ..EVEN }), Decision::Pass(Reason::OverWindow));
    }
}
