//! Where this kernel keeps what the programs read of a TCP socket.

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
