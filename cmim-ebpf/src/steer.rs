//! `cmim_steer`: hands a connection to one of the listeners' networks and ports to that listener's socket.
//!
//! The kernel asks it in place of its own search for a listening socket, for every destination of the namespace. What
//! it does not know goes on to that search. A socket of a group is only where the choice among the group begins, so
//! `cmim_spread` and the kernel's hash work as for any other connection.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use cmim_common::address::mapped;
use cmim_common::packet::PROTOCOL_TCP;
use cmim_common::spread::{MAX_WORKERS, place};
use cmim_common::steer::{WHOLE, destination};

use crate::maps::{CMIM_LISTENERS, CMIM_LISTENING, CMIM_SETTINGS, CMIM_STEERING};
use crate::words::words;

const AF_INET: u32 = 2;

#[sk_lookup]
fn cmim_steer(context: SkLookupContext) -> u32 {
    let lookup = context.lookup;
    // Every field is read, whatever the family, and volatile: else LLVM picks the field's address first and reads
    // through it, which the verifier refuses ("dereference of modified ctx ptr").
    macro_rules! field {
        ($name:ident) => {
            // SAFETY: the kernel hands every program a readable context, and its fields are plain integers.
            unsafe { (&raw const (*lookup).$name).read_volatile() }
        };
    }
    let v4 = mapped(field!(local_ip4).to_ne_bytes());
    let v6 = words(field!(local_ip6));
    let address = if field!(family) == AF_INET { v4 } else { v6 };
    // In host order, unlike the address.
    let [_, _, high, low] = field!(local_port).to_be_bytes();
    if field!(protocol) != u32::from(PROTOCOL_TCP) {
        return SK_PASS;
    }
    if let Some(key) = CMIM_STEERING.get(&Key::new(WHOLE, destination(address, [high, low])))
        && let Some(listener) = CMIM_LISTENERS.get_ptr(key)
        && let Some(settings) = CMIM_SETTINGS.get(0)
    {
        // SAFETY: a field of a live map value.
        let row = unsafe { (&raw const (*listener).row).read_volatile() };
        assign(&context, row, settings.workers);
    }
    SK_PASS
}

/// Makes the first socket of the row the one that is found; nothing happens where there is none.
#[inline(always)]
fn assign(context: &SkLookupContext, row: u32, workers: u32) {
    let map = (&raw const CMIM_LISTENING).cast_mut().cast::<c_void>();
    let Some(row) = row.checked_sub(1) else {
        return;
    };
    for worker in 0..MAX_WORKERS as u32 {
        if worker >= workers {
            return;
        }
        let key = place(row, worker);
        // SAFETY: the map is a map and the key has its key's size.
        let socket = unsafe { bpf_map_lookup_elem(map, (&raw const key).cast()) };
        if socket.is_null() {
            continue;
        }
        // SAFETY: the socket is referenced. A refusal (another family) leaves the choice to the kernel.
        unsafe { bpf_sk_assign(context.as_ptr(), socket, 0) };
        // SAFETY: a lookup in a sockmap takes a reference, and this gives it back.
        unsafe { bpf_sk_release(socket) };
        return;
    }
}
