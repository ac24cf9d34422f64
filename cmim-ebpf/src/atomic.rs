//! The one atomic operation that the programs need.
//!
//! rustc gives the BPF target no read-modify-write on atomics, because the oldest instruction set has none that returns
//! a value. Adding without a result is in all of them.

use core::arch::asm;

/// Adds to a counter that other CPUs may add to at the same time.
///
/// # Safety
///
/// `counter` is aligned and lies in a live map value that nothing accesses otherwise than atomically.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: the caller's promise is exactly what the instruction needs.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {by}", counter = in(reg) counter, by = in(reg) by);
    }
}
