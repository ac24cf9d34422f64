//! Where this kernel keeps what the programs read of a TCP socket.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use cmim_common::splice::SocketLayout;

/// Written by the daemon before the object is loaded. Zeros, where it knows no better, make nonsense of what is read;
/// then it puts no socket into the maps either.
#[unsafe(no_mangle)]
pub(crate) static CMIM_SOCKET_LAYOUT: SocketLayout =
    SocketLayout { write_seq: 0, copied_seq: 0, queued: 0, limit: 0, received: 0 };

/// The offset of one of its fields.
macro_rules! offset {
    ($name:ident) => {
        // SAFETY: a constant of the object. Volatile: the daemon has written another value over it.
        unsafe { (&raw const $crate::layout::CMIM_SOCKET_LAYOUT.$name).read_volatile() }
    };
}
pub(crate) use offset;

/// A number in a socket, which may be gone.
#[inline(always)]
pub(crate) fn number(socket: *const u8, at: u32) -> Option<u32> {
    // SAFETY: the helper checks the address itself, reads whatever is there, and says so where nothing is.
    unsafe { bpf_probe_read_kernel(socket.wrapping_add(at as usize).cast::<u32>()) }.ok()
}
