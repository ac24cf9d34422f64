//! What the daemon tells the programs beside lists and listeners: the one entry of `CMIM_SETTINGS`.

use core::mem::{align_of, size_of};

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Nanoseconds between two SYNs of a source at its rate; 0: no limit. See [`crate::rate`].
    pub source_interval: u64,
    /// The same for all SYNs to a listener's address.
    pub listener_interval: u64,
    /// 1: answer SYNs over a listener's rate with cookies; 0: drop them.
    pub cookies: u32,
    /// Entries of `CMIM_STEERING`; 0 spares looking there.
    pub steered: u32,
    /// Workers with sockets in `CMIM_LISTENING`.
    pub workers: u32,
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Settings>() == 2 * 8 + 4 * 4);
    assert!(align_of::<Settings>() == 8);
};
