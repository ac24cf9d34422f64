//! A listener's address as the programs know it: the key and the value of `CMIM_LISTENERS`.

use core::mem::{align_of, size_of};
use core::net::SocketAddr;

use crate::address;

/// Where a listener's sockets are bound. An unspecified address stands for every address of its family. A network with
/// its ports is known by the address in its middle and the first port; `CMIM_STEERING` leads from the others to it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// See [`crate::address`] for the form.
    pub address: [u8; 16],
    pub port: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listener {
    /// The daemon's number of it.
    pub id: u32,
    /// Its row in `CMIM_LISTENING`, counted from 1; 0: it has none, and connections are spread by hash.
    pub row: u32,
    /// SYNs that reached an interface with the guard and were passed to this listener.
    pub syns: u64,
    /// Packets to it dropped for flags that no real connection sends.
    pub dropped_flags: u64,
    /// SYNs to it dropped for a source's or for its own rate.
    pub dropped_rate: u64,
    /// SYNs to it answered with a cookie.
    pub cookies_sent: u64,
    /// Cookies that came back and began a connection.
    pub cookies_returned: u64,
    /// Its bucket, as in [`crate::rate::Bucket`].
    pub full_at: u64,
    /// When the last cookie was sent, in nanoseconds since the host's start.
    pub cookie_at: u64,
}

/// Entries of `CMIM_LISTENERS`.
pub const MAX_LISTENERS: usize = 1_024;

impl ListenerKey {
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address: address::from_ip(address.ip()), port: address.port().to_be_bytes() }
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(address::to_ip(self.address), u16::from_be_bytes(self.port))
    }
}

const _: () = {
    assert!(size_of::<ListenerKey>() == 16 + 2);
    assert!(align_of::<ListenerKey>() == 1);
    assert!(size_of::<Listener>() == 2 * 4 + 7 * 8);
    assert!(align_of::<Listener>() == 8);
};
