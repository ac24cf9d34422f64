//! A connection that the kernel carries: the key of `CMIM_CONNECTIONS` and `CMIM_SOCKETS`, and the entry.

use core::mem::{align_of, size_of};
use core::net::SocketAddr;

use crate::address;

/// A connection of the device, named by both its ends as the device's own socket sees them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// The device's end. See [`crate::address`] for the form.
    pub local_address: [u8; 16],
    /// The client's or the server's end.
    pub remote_address: [u8; 16],
    pub local_port: [u8; 2],
    pub remote_port: [u8; 2],
}

/// What the kernel does with the bytes that arrive on a connection, and how far it got.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Rises with each splice of the device, so that what is known of an earlier splice never touches this one.
    pub generation: u64,
    /// Bytes of the content still to come on this connection; [`ENDLESS`] for a tunnel.
    pub remaining: u64,
    /// Bytes that the kernel handed to the target since the splice began.
    pub spliced: u64,
    /// Bytes of `spliced` that the target's TCP has taken over, as seen at the last burst.
    pub accepted: u64,
    /// Bytes that were left to the daemon since the splice began. The kernel hands nothing over before the daemon says
    /// in `CMIM_TAKEN` that it has passed all of these on.
    pub passed: u64,
    /// Most bytes that may be spliced and not yet accepted.
    pub window: u64,
    /// The connection that the bytes go to: a key of `CMIM_TARGETS`.
    pub target: ConnectionKey,
    /// The place in `CMIM_TAKEN`.
    pub slot: u32,
    /// The target's `write_seq` when the splice began; see `has_base`.
    pub base: u32,
    /// The sequence number that the next burst should begin with; see `has_next`.
    pub next: u32,
    /// A [`Lane`].
    pub lane: u8,
    /// A [`State`].
    pub state: u8,
    /// 1: `base` is known.
    pub has_base: u8,
    /// 1: `next` is known.
    pub has_next: u8,
    pub reserved: u32,
}

/// `remaining` of a tunnel: it ends by its connections' ends, not by a count.
pub const ENDLESS: u64 = u64::MAX;

/// Entries of `CMIM_CONNECTIONS` and of `CMIM_SOCKETS`: both directions of 32,768 splices. Further ones stay in
/// userspace.
pub const MAX_CONNECTIONS: usize = 65_536;

/// How a content is carried; the number is what the maps hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    Copy = 1,
    Pipe = 2,
    Sockmap = 3,
    Local = 4,
}

/// Where a splice stood at the last burst; the number is what the maps hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Being set up: everything goes to userspace.
    Installing = 1,
    /// The kernel hands bytes to the target.
    Splicing = 2,
    /// A burst went to userspace, and so does what follows until the daemon has passed it on.
    Paused = 3,
    /// The content's end was reached; nothing more is handed over.
    Draining = 4,
    /// A burst was lost, and so is all that follows; userspace ends the connections.
    Broken = 5,
}

impl Lane {
    /// `None`: a number that this build does not know.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Copy),
            2 => Some(Self::Pipe),
            3 => Some(Self::Sockmap),
            4 => Some(Self::Local),
            _ => None,
        }
    }

    /// The word of the configuration and the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Pipe => "pipe",
            Self::Sockmap => "sockmap",
            Self::Local => "local",
        }
    }
}

impl State {
    /// `None`: a number that this build does not know.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Installing),
            2 => Some(Self::Splicing),
            3 => Some(Self::Paused),
            4 => Some(Self::Draining),
            5 => Some(Self::Broken),
            _ => None,
        }
    }
}

impl ConnectionKey {
    #[must_use]
    pub const fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local_address: address::from_ip(local.ip()),
            remote_address: address::from_ip(remote.ip()),
            local_port: local.port().to_be_bytes(),
            remote_port: remote.port().to_be_bytes(),
        }
    }

    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        SocketAddr::new(address::to_ip(self.local_address), u16::from_be_bytes(self.local_port))
    }

    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        SocketAddr::new(address::to_ip(self.remote_address), u16::from_be_bytes(self.remote_port))
    }
}

const _: () = {
    assert!(size_of::<ConnectionKey>() == 2 * 16 + 2 * 2);
    assert!(align_of::<ConnectionKey>() == 1);
    assert!(size_of::<Connection>() == 6 * 8 + 36 + 3 * 4 + 4 + 4);
    assert!(align_of::<Connection>() == 8);
};

#[cfg(test)]
mod tests {
    use super::{ConnectionKey, Lane, State};

    #[test]
    fn a_key_names_both_ends_in_network_order() {
        let key = ConnectionKey::new(
            "192.0.2.1:80".parse().expect("a literal of this test"),
            "[2001:db8::5]:50000".parse().expect("a literal of this test"),
        );
        assert_eq!(key.local_port, [0, 80]);
        assert_eq!(key.local_address[10..], [0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(std::format!("{}", key.local()), "192.0.2.1:80");
        assert_eq!(std::format!("{}", key.remote()), "[2001:db8::5]:50000");
    }

    #[test]
    fn numbers_of_lanes_and_states_come_back_and_unknown_ones_do_not() {
        for lane in [Lane::Copy, Lane::Pipe, Lane::Sockmap, Lane::Local] {
            assert_eq!(Lane::from_number(lane as u8), Some(lane));
        }
        for state in [State::Installing, State::Splicing, State::Paused, State::Draining, State::Broken] {
            assert_eq!(State::from_number(state as u8), Some(state));
        }
        assert_eq!(Lane::from_number(0), None);
        assert_eq!(State::from_number(0), None);
    }
}
