//! A denied prefix: the value of `CMIM_DENY_V4` and `CMIM_DENY_V6`. Their key is the kernel's LPM form, a prefix length
//! in bits and the address.

use core::mem::{align_of, size_of};

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Who asked for it: [`BY_OPERATOR`].
    pub origin: u32,
}

/// `cmim deny add`.
pub const BY_OPERATOR: u32 = 1;

/// Prefixes per family. An LPM trie takes memory only for what is in it.
pub const MAX_DENIED: usize = 65_536;

// The kernel puts an LPM value right behind the key's address, so an IPv4 trie aligns it to 4 bytes only.
const _: () = {
    assert!(size_of::<Denial>() == 4);
    assert!(align_of::<Denial>() == 4);
};
