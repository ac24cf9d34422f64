//! What the verdict knows of the socket that it may hand bytes to.

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_probe_read_kernel, bpf_sk_release, bpf_skc_to_tcp_sock};
use cmim_common::connection::ConnectionKey;
use cmim_common::splice::{SocketLayout, Target};

use crate::maps::CMIM_TARGETS;

/// Written by the daemon before the object is loaded. Zeros, where it knows no better, make nonsense of what is read;
/// then it puts no socket into the maps either.
#[unsafe(no_mangle)]
static CMIM_SOCKET_LAYOUT: SocketLayout = SocketLayout { write_seq: 0, queued: 0, limit: 0 };

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
    macro_rules! field {
        ($name:ident) => {{
            // SAFETY: a constant of the object. Volatile: the daemon has written another value over it.
            let offset = unsafe { (&raw const CMIM_SOCKET_LAYOUT.$name).read_volatile() };
            // SAFETY: the helper checks the address itself, and the socket's reference is held.
            unsafe { bpf_probe_read_kernel(tcp.wrapping_add(offset as usize).cast::<u32>()) }.ok()?
        }};
    }
    Some(Target { write_seq: field!(write_seq), queued: field!(queued), limit: field!(limit) })
}
