//! The kernel part of cmim: the XDP guard, the sk_lookup and sk_reuseport programs that steer connections, and the sk_skb
//! verdict.
//!
//! Owns: reading packets and bursts, the maps, and carrying out what cmim-common decides. It must not decide anything
//! itself: the decisions are pure functions of cmim-common, where the host tests them. Its data comes from the maps
//! that the daemon fills and goes back into their counters and states; what it does not know it passes on.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod cookie;
mod frame;
mod guard;
mod key;
mod layout;
mod local;
mod maps;
mod overlap;
mod spread;
mod steer;
mod target;
mod transit;
mod verdict;
mod words;

/// The kernel wants to read "GPL" somewhere in here before it lets a program call helpers that are marked so. It knows
/// no "MIT OR Apache-2.0"; MIT allows use under the GPL's terms as well.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics: the verifier refuses what could. The compiler wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
