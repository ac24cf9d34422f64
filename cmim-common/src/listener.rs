//! A listener of the device as the guard knows it: the key and the value of `CMIM_LISTENERS`.

use core::mem::{align_of, size_of};
use core::net::SocketAddr;

use crate::address;

/// Where a listener listens. An unspecified address stands for every address of its family.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// See [`crate::address`] for the form.
    pub address: [u8; 16],
    pub port: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The daemon's number of it.
    pub id: u32,
    /// None is defined yet; 0.
    pub flags: u32,
    /// SYNs that reached an interface with the guard and were passed to this listener.
    pub syns: u64,
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
    assert!(size_of::<Listener>() == 4 + 4 + 8);
    assert!(align_of::<Listener>() == 8);
};
