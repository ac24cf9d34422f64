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

/// Adds to a field of a live map value that other CPUs may add to at the same time.
macro_rules! add_to {
    ($value:expr, $field:ident, $by:expr) => {{
        let (value, by): (*mut _, u64) = ($value, $by);
        // SAFETY: the callers pass a live map value; nothing is read.
        let field = unsafe { &raw mut (*value).$field };
        // SAFETY: the field is aligned, and only atomic additions write it.
        unsafe { $crate::atomic::add(field, by) };
    }};
}
pub(crate) use add_to;

/// Adds to one of this CPU's counters. Atomically, because programs run in processes too, and an interrupt may bring the
/// next one.
macro_rules! count {
    ($field:ident, $by:expr) => {
        if let Some(counters) = $crate::maps::CMIM_COUNTERS.get_ptr_mut(0) {
            $crate::atomic::add_to!(counters, $field, $by);
        }
    };
}
pub(crate) use count;
