//! `cmim_spread`: chooses the worker with the fewest connections for a new one.
//!
//! The kernel asks it when a SYN (or a cookie that comes back) reaches sockets that share an address. Where it has no
//! answer the kernel chooses by hash, as without it.

use core::ffi::c_void;

use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::helpers::bpf_sk_select_reuseport;
use aya_ebpf::macros::sk_reuseport;
use aya_ebpf::programs::SkReuseportContext;
use cmim_common::address::mapped;
use cmim_common::listener::ListenerKey;
use cmim_common::spread::{Least, MAX_WORKERS, place};

use crate::atomic;
use crate::maps::{CMIM_LISTENERS, CMIM_LISTENING, CMIM_SETTINGS, CMIM_WORKERS};
use crate::words::words;

const AF_INET: u32 = 2;

#[sk_reuseport]
fn cmim_spread(context: SkReuseportContext) -> u32 {
    let Some(row) = row(&context) else {
        return SK_PASS;
    };
    let Some(settings) = CMIM_SETTINGS.get(0) else {
        return SK_PASS;
    };
    // SAFETY: the kernel hands every program a readable context.
    let hash = unsafe { (&raw const (*context.md).hash).read_volatile() };
    let Some(worker) = least_busy(settings.workers, hash) else {
        return SK_PASS;
    };
    let map = (&raw const CMIM_LISTENING).cast_mut().cast::<c_void>();
    let mut key = place(row, worker);
    // SAFETY: the map is a map and the key has its key's size. A worker whose socket is gone has no place there: the
    // kernel then chooses among the others.
    let selected = unsafe { bpf_sk_select_reuseport(context.md, map, (&raw mut key).cast(), 0) };
    if selected == 0
        && let Some(chosen) = CMIM_WORKERS.get_ptr_mut(worker)
    {
        // SAFETY: a field of a live map value, which its worker changes atomically too.
        unsafe { atomic::add(&raw mut (*chosen).chosen, 1) };
    }
    SK_PASS
}

/// The row of the address that the sockets share.
#[inline(always)]
fn row(context: &SkReuseportContext) -> Option<u32> {
    // SAFETY: the kernel hands every program a readable context with a socket in it.
    let socket = unsafe { (&raw const (*context.md).__bindgen_anon_3.sk).read_volatile() };
    // Volatile for the same reason as in `cmim_steer`.
    macro_rules! field {
        ($name:ident) => {
            // SAFETY: the socket is held by the kernel, and its fields are plain integers.
            unsafe { (&raw const (*socket).$name).read_volatile() }
        };
    }
    let v4 = mapped(field!(src_ip4).to_ne_bytes());
    let v6 = words(field!(src_ip6));
    let address = if field!(family) == AF_INET { v4 } else { v6 };
    let [_, _, high, low] = field!(src_port).to_be_bytes();
    let listener = CMIM_LISTENERS.get_ptr(ListenerKey { address, port: [high, low] })?;
    // SAFETY: a field of a live map value.
    let row = unsafe { (&raw const (*listener).row).read_volatile() };
    row.checked_sub(1)
}

/// Looks at every worker once, beginning with the one that the packet's hash says, so that equals take turns.
#[inline(always)]
fn least_busy(workers: u32, hash: u32) -> Option<u32> {
    if workers == 0 || workers > MAX_WORKERS as u32 {
        return None;
    }
    let first = hash % workers;
    let (open, chosen) = load_of(first)?;
    // Begun with the first worker's numbers and not with "none yet", and with a remainder where a comparison would do:
    // the verifier then sees every turn of the loop begin with unknown numbers, and need not follow each of those that it
    // would know through all the others.
    let mut least = Least::of(first, open, chosen);
    for step in 1..MAX_WORKERS as u32 {
        if step >= workers {
            break;
        }
        let worker = first.wrapping_add(step) % workers;
        let (open, chosen) = load_of(worker)?;
        least.consider(worker, open, chosen);
    }
    Some(least.worker)
}

/// A worker's open connections, and how often it was chosen for others.
#[inline(always)]
fn load_of(worker: u32) -> Option<(u64, u64)> {
    let load = CMIM_WORKERS.get_ptr(worker)?;
    // SAFETY: a field of a live map value; volatile, as its worker writes to it.
    let open = unsafe { (&raw const (*load).open).read_volatile() };
    // SAFETY: as above.
    let chosen = unsafe { (&raw const (*load).chosen).read_volatile() };
    Some((open, chosen))
}
