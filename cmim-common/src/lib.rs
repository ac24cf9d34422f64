//! What the kernel part and the daemon must agree on, and the decisions that both can check.
//!
//! Owns: the layout of every map's key and value, the names of maps and programs, and the pure decisions that are
//! compiled into BPF and tested on the host ([`splice::decide`], [`guard::judge`], [`packet::parse`], [`rate::take`],
//! [`cookie`], [`spread::Least`]). It must not know
//! aya's programs, sockets, files, clocks or HTTP. Its data comes from the daemon (listeners, denied prefixes,
//! connections) and from packets; it goes into the maps that an operator reads with bpftool.
//!
//! Rules for every shared type: `#[repr(C)]`, no implicit padding, no `bool` and no `enum` in it, addresses and ports as
//! big-endian byte arrays, and a layout that is asserted when it is compiled, on both sides.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod connection;
pub mod cookie;
pub mod counters;
pub mod deny;
pub mod guard;
pub mod listener;
pub mod local;
pub mod names;
pub mod packet;
pub mod rate;
pub mod settings;
pub mod splice;
pub mod spread;
pub mod steer;
#[cfg(feature = "user")]
mod user;

/// Changes whenever the layout of a map or the meaning of a field does. A daemon that takes over what another one left
/// in the kernel must find its own number there.
pub const ABI_VERSION: u32 = 4;
