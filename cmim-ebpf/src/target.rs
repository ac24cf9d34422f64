//! What the verdict knows of the socket that it may hand bytes to.

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_sk_release, bpf_skc_to_tcp_sock};
use cmim_common::connection::ConnectionKey;
use cmim_common::splice::Target;

use crate::layout::{number, offset};
use crate::maps::CMIM_TARGETS;

/// The target's TCP as it is now; `None`: it is not in the sockhash, or is no TCP socket.
#[inline(always)]
pub(crate) fn look(target: &ConnectionKey) -> Option<Target> {
    let map = (&raw const CMIM_TARGETS).cast_mut().cast::<c_void>();
    let key = *target;
    // SAFETY: the map is a map and the key has its key's size.
    let socket = unsafe { bpf_map_lookup_elem(map, (&raw const key).cast()) };
    let socket = NonNull::new(socket)?;
    // SAFETY: a socket, as the lookup gives it.
    let tcp = NonNull::new(unsafe { bpf_skc_to_tcp_sock(socket.as_ptr()) });
    let seen = tcp.and_then(|tcp| read(tcp.as_ptr().cast()));
    // SAFETY: a lookup in a sockhash takes a reference, and this gives it back.
    unsafe { bpf_sk_release(socket.as_ptr()) };
    seen
}

#[inline(always)]
fn read(tcp: *const u8) -> Option<Target> {
    let (write_seq, queued, limit) = (offset!(write_seq), offset!(queued), offset!(limit));
    Some(Target { write_seq: number(tcp, write_seq)?, queued: number(tcp, queued)?, limit: number(tcp, limit)? })
}
