//! The decision of the sockmap lane: may the kernel hand this burst to the other socket, or must userspace see it?
//!
//! Pure. The sk_skb verdict asks it for each burst (one skb: the kernel gives a verdict on a whole one and cannot cut
//! it at a byte). Whatever is not handed over is left in the receive queue of the connection it came on, where the
//! daemon reads it, and where TCP itself slows the sender down.
//!
//! Who writes what: the verdict alone writes an entry's counters, one burst of a socket at a time (the kernel holds the
//! socket while it runs). The daemon writes an entry once, before the first burst, and from then on only its word in
//! `CMIM_TAKEN`: how many of the bytes that were left to it it has passed on. The kernel goes on by itself as soon as
//! that is all of them, so that nothing it hands over can overtake what the daemon still holds.

use core::mem::size_of;

use crate::connection::{Connection, ENDLESS, State};

/// What the verdict saw of one burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Bytes of it.
    pub length: u64,
    /// The connection's word in `CMIM_TAKEN`.
    pub taken: u64,
    /// `None`: the target is not in the sockhash. A redirect to a missing socket drops bytes that the sender was told
    /// have arrived (`sk_psock_skb_redirect`), so it must be known before.
    pub target: Option<Target>,
}

/// The target's TCP, as `struct tcp_sock` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The sequence number behind the last byte that it took over (`write_seq`).
    pub write_seq: u32,
    /// Memory of what it has not seen acknowledged (`sk_wmem_queued`).
    pub queued: u32,
    /// What `queued` may grow to (`sk_sndbuf`).
    pub limit: u32,
}

/// Where the running kernel keeps the fields of [`Target`], in bytes from the beginning of `struct tcp_sock`. The daemon
/// finds them in the kernel's own types when it loads the object.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketLayout {
    /// `write_seq` of a `struct tcp_sock`.
    pub write_seq: u32,
    /// `copied_seq` of a `struct tcp_sock`.
    pub copied_seq: u32,
    /// `sk_wmem_queued` of a `struct sock`.
    pub queued: u32,
    /// `sk_sndbuf` of a `struct sock`.
    pub limit: u32,
    /// `sk_rmem_alloc` of a `struct sock`, which begins its `sk_backlog`.
    pub received: u32,
}

/// What the verdict tells the daemon: there is something to look at in the splice with this generation.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub generation: u64,
}

/// Bytes of `CMIM_EVENTS`. Each direction has one event under way at most (see [`Noted::is_news`]), of 8 bytes and as
/// many of the kernel's.
pub const EVENTS_SIZE: usize = EVENT_SIZE * crate::connection::MAX_CONNECTIONS;
/// Bytes of an event in the ring, with the kernel's header.
const EVENT_SIZE: usize = 16;

/// Events in a full ring. The kernel never fills its last byte (`bpf_ringbuf_reserve`).
pub const MOST_EVENTS: usize = (EVENTS_SIZE - 1) / EVENT_SIZE;

/// A burst, by what is new in it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// At its beginning, and came before.
    pub old: u32,
    pub new: u32,
}

/// What to do with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Hand it to the target.
    Redirect,
    /// Leave it to userspace.
    Pass(Reason),
    /// Drop it: nothing in it is new, or the connection is given up. A FIN without bytes, too: what it means is noted in
    /// the socket already (`tcp_fin`). Passed on while the socket's queue is not empty, it would be taken for an error
    /// there that stops everything to that socket (`sk_psock_backlog`, where nothing sent is a broken pipe).
    Forget,
}

/// Why a burst is left to userspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The entry is being set up, or its content has ended.
    NotSplicing,
    /// Userspace has not passed on all that was left to it: this burst would overtake that.
    Behind,
    /// The target left the sockhash.
    TargetMissing,
    /// It reaches past the content's end, which is the sender's fault and userspace's to judge.
    PastEnd,
    /// The target has not accepted enough of what it was given.
    OverWindow,
    /// The target's TCP would not take it at once. What is queued for a socket in the kernel's own queue has no account,
    /// and what is left to userspace on that same socket stands behind it there (`sk_psock_backlog` serves both).
    NoRoom,
}

impl Reason {
    /// Whether the splice must pause: once a burst went to userspace, a later one that overtook it in the kernel would
    /// reorder the content.
    #[inline(always)]
    #[must_use]
    pub const fn pauses(self) -> bool {
        match self {
            Self::NotSplicing => false,
            Self::Behind | Self::TargetMissing | Self::PastEnd | Self::OverWindow | Self::NoRoom => true,
        }
    }
}

/// What became of an entry by a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// The daemon has something to do that it does not know of yet: bytes to pass on, or the content has ended.
    pub is_news: bool,
}

/// Memory of the target that a burst is taken to need beside its bytes, which count twice: `skb->truesize` is what
/// `sk_wmem_queued` grows by.
const OVERHEAD: u64 = 4_096;

/// The decision for one burst on a connection with this entry.
#[inline(always)]
#[must_use]
pub const fn decide(connection: &Connection, burst: Burst) -> Decision {
    if burst.length == 0 || connection.state == State::Broken as u8 {
        return Decision::Forget;
    }
    if connection.state != State::Splicing as u8 && connection.state != State::Paused as u8 {
        return Decision::Pass(Reason::NotSplicing);
    }
    if connection.passed != burst.taken {
        return Decision::Pass(Reason::Behind);
    }
    let Some(target) = burst.target else {
        return Decision::Pass(Reason::TargetMissing);
    };
    if connection.remaining != ENDLESS && burst.length > connection.remaining {
        return Decision::Pass(Reason::PastEnd);
    }
    let after = in_flight(connection, burst.taken, target).saturating_add(burst.length);
    if after > connection.window {
        return Decision::Pass(Reason::OverWindow);
    }
    let needed = (target.queued as u64).saturating_add(after.saturating_mul(2)).saturating_add(OVERHEAD);
    if needed > target.limit as u64 {
        return Decision::Pass(Reason::NoRoom);
    }
    Decision::Redirect
}

/// Bytes that were handed over and that the target's TCP has not accepted yet. Call it only while userspace is not
/// behind: what it passed on is in the target's `write_seq` then.
#[inline(always)]
const fn in_flight(connection: &Connection, taken: u64, target: Target) -> u64 {
    if connection.has_base == 0 {
        return 0;
    }
    // Sequence numbers wrap, and what is in flight is far less than half their circle.
    let given = connection.spliced.wrapping_add(taken) as u32;
    let in_flight = given.wrapping_sub(target.write_seq.wrapping_sub(connection.base));
    // Figures that contradict each other (more accepted than given) count as nothing in flight.
    if in_flight > i32::MAX as u32 { 0 } else { in_flight as u64 }
}

impl Connection {
    /// Notes a burst of `length` bytes that begins with the sequence number `first`, and says what is new in it. `read`:
    /// what a reader of the socket would begin with; it counts for the first burst, before which no other can wait.
    #[inline(always)]
    pub const fn arrive(&mut self, first: u32, length: u32, read: Option<u32>) -> Cut {
        let expected = match read {
            _ if self.has_next == 1 => self.next,
            Some(read) => read,
            None => first,
        };
        let behind = expected.wrapping_sub(first);
        // Sequence numbers wrap; a burst that begins later than expected has nothing old in it.
        let old = if behind > i32::MAX as u32 {
            0
        } else if behind > length {
            length
        } else {
            behind
        };
        self.next = if length > old { first.wrapping_add(length) } else { expected };
        self.has_next = 1;
        Cut { old, new: length - old }
    }

    /// Notes that a burst is lost.
    #[inline(always)]
    pub const fn note_broken(&mut self) -> Noted {
        let is_news = self.state != State::Broken as u8;
        self.state = State::Broken as u8;
        Noted { is_news }
    }

    /// Notes a burst that was handed over.
    #[inline(always)]
    pub const fn note_redirected(&mut self, burst: Burst) -> Noted {
        if let Some(target) = burst.target {
            if self.has_base == 0 {
                self.base = target.write_seq.wrapping_sub(burst.taken as u32);
                self.has_base = 1;
            }
            self.accepted = self.spliced.saturating_sub(in_flight(self, burst.taken, target));
        }
        self.spliced = self.spliced.wrapping_add(burst.length);
        self.state = State::Splicing as u8;
        Noted { is_news: self.advance(burst.length) }
    }

    /// Notes a burst that was left to userspace.
    #[inline(always)]
    pub const fn note_passed(&mut self, burst: Burst, reason: Reason) -> Noted {
        let is_news = self.passed == burst.taken;
        if reason.pauses() {
            self.state = State::Paused as u8;
        }
        self.passed = self.passed.wrapping_add(burst.length);
        self.advance(burst.length);
        Noted { is_news }
    }

    /// Counts the content down; true: this was its end.
    #[inline(always)]
    const fn advance(&mut self, length: u64) -> bool {
        if self.remaining == ENDLESS {
            return false;
        }
        self.remaining = self.remaining.saturating_sub(length);
        if self.remaining > 0 || self.state == State::Draining as u8 {
            return false;
        }
        self.state = State::Draining as u8;
        true
    }
}

const _: () = {
    assert!(size_of::<SocketLayout>() == 5 * 4);
    assert!(size_of::<Event>() == 8);
    assert!(EVENTS_SIZE.is_power_of_two());
    assert!(MOST_EVENTS * EVENT_SIZE < EVENTS_SIZE);
};

#[cfg(test)]
mod tests;
