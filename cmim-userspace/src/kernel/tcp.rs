//! What the kernel tells of one TCP socket.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use cmim_common::connection::ConnectionKey;
use rustix::net::{AddressFamily, ipproto, sockopt};

/// As much of `struct tcp_info` (linux/tcp.h) as is used: everything up to and with `tcpi_bytes_acked`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    before: [u64; 15],
    bytes_acked: u64,
}

const _: () = assert!(std::mem::offset_of!(TcpInfo, bytes_acked) == 120);

/// How a connection is known to the maps; `None`: it is not a connected TCP socket.
pub(super) fn key(socket: BorrowedFd<'_>) -> Option<ConnectionKey> {
    let family = sockopt::socket_domain(socket).ok()?;
    let protocol = sockopt::socket_protocol(socket).ok()?;
    if !matches!(family, AddressFamily::INET | AddressFamily::INET6) || protocol != Some(ipproto::TCP) {
        return None;
    }
    let local = rustix::net::getsockname(socket).ok()?;
    let remote = rustix::net::getpeername(socket).ok()??;
    Some(ConnectionKey::new(SocketAddr::try_from(local).ok()?, SocketAddr::try_from(remote).ok()?))
}

/// Whether two sockets are of one network namespace: two connections of different ones can have the same addresses, and
/// the maps know them by nothing else.
pub(super) fn share_a_namespace(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    matches!((namespace(one), namespace(other)), (Ok(one), Ok(other)) if one == other)
}

/// Bytes that were written to a socket's peer since its connection began, whoever wrote them, up to a constant.
///
/// # Errors
///
/// When the socket is not one of TCP.
pub(super) fn written(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // Two questions; an acknowledgement between them moves bytes from the one answer to the other.
    let mut acknowledged = bytes_acknowledged(socket)?;
    loop {
        let queued = unacknowledged(socket)?;
        let again = bytes_acknowledged(socket)?;
        if again == acknowledged {
            return Ok(acknowledged + queued);
        }
        acknowledged = again;
    }
}

/// Waits until no verdict runs for a burst that arrived before: it does with the socket locked, and the question locks
/// it too (`tcp_get_info`).
pub(super) fn settle(socket: BorrowedFd<'_>) {
    // A socket that cannot be asked is none that bursts arrive on.
    let _: io::Result<u64> = bytes_acknowledged(socket);
}

/// Has the verdict look at what is in the receive queue already: setting the low-water mark tells the socket's watcher of
/// it (`tcp_set_rcvlowat`). Reading would do so too, and then set the queue's position back to where it was before
/// (`tcp_bpf_recvmsg_parser` keeps `copied_seq` over that): nothing could be read off the socket afterwards.
#[expect(unsafe_code, reason = "rustix has not this option")]
pub(super) fn stir(socket: BorrowedFd<'_>) {
    let least: libc::c_int = 1;
    let (value, length) = ((&raw const least).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel reads one int. One byte is what every socket has as its mark; where it is refused, the next
    // burst does the same.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length) };
}

fn bytes_acknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let info: TcpInfo = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(info.bytes_acked)
}

fn namespace(socket: BorrowedFd<'_>) -> io::Result<u64> {
    option(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE)
}

/// Types that any bytes are a value of.
trait Plain: Copy {}
impl Plain for TcpInfo {}
impl Plain for u64 {}

#[expect(unsafe_code, reason = "rustix has neither of the two options")]
fn option<T: Plain>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the place's size.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before the kernel wrote over it, and any bytes are a value of it.
    Ok(unsafe { value.assume_init() })
}

#[expect(unsafe_code, reason = "rustix has no SIOCOUTQ")]
fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ's number, writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(count).unwrap_or(0))
}
