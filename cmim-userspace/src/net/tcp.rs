//! A TCP connection of the current worker's event loop, and how much of it the loop is told.
//!
//! A socket whose bytes the kernel carries still turns readable for each burst (`sk_psock_verdict_data_ready`), and every
//! such wake-up is for nothing. While a splice lasts, the loop therefore watches only what it must hear of: the
//! connection's end, a break, and room to write after there was none. All three come without asking for readability: the
//! kernel tells ends without saying what they are (`sock_def_wakeup`), and epoll(7) passes that on as "writable".
//!
//! A socket that was just accepted mostly has its first request in it, and often ends with the reply; one that was just
//! connected is written to first: the loop hears of both only once there is something to wait for.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// A peer that has said nothing for so long is asked whether it is there. Below what most routers forget a connection
/// after, so that they see it in use.
const ASKED_AFTER: Duration = Duration::from_secs(60);
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// Unanswered questions after which it is gone.
const ASKED_TIMES: u32 = 6;

/// A connected TCP socket.
#[derive(Debug)]
pub struct Tcp {
    /// The same in every way of watching.
    descriptor: RawFd,
    watch: RefCell<Watch>,
}

#[derive(Debug)]
enum Watch {
    /// For nothing yet: there was always something to read, and room to write.
    Nothing(Unwatched),
    /// For bytes, room, ends and breaks.
    Whole(TcpStream),
    /// For room, ends and breaks.
    Ends(AsyncFd<std::net::TcpStream>),
    /// A change failed; the socket is closed.
    Lost,
}

/// A socket that the event loop does not know.
#[derive(Debug)]
struct Unwatched {
    socket: std::net::TcpStream,
    /// The last attempts said so; from then on only the event loop knows more.
    dry: Cell<bool>,
    full: Cell<bool>,
}

/// What the event loop has told since the last question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stir {
    /// Nothing, or that there is something to look at.
    Open,
    /// The connection has ended in both directions, orderly or by a break.
    Over,
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self { descriptor: stream.as_raw_fd(), watch: RefCell::new(Watch::Whole(stream)) }
    }
}

impl Tcp {
    /// A connected socket that does not block, which the event loop is to hear of when it is first waited for.
    pub(super) fn unwatched(socket: std::net::TcpStream) -> Self {
        Self::nothing_watched(socket, false)
    }

    /// The same of a socket on which nothing can have come yet.
    pub(super) fn silent(socket: std::net::TcpStream) -> Self {
        Self::nothing_watched(socket, true)
    }

    fn nothing_watched(socket: std::net::TcpStream, dry: bool) -> Self {
        let descriptor = socket.as_raw_fd();
        let unwatched = Unwatched { socket, dry: Cell::new(dry), full: Cell::new(false) };
        Self { descriptor, watch: RefCell::new(Watch::Nothing(unwatched)) }
    }

    /// Has the event loop tell only ends, breaks and room from now on; `false`: somebody still waits for more. Bytes are
    /// then found by trying to read, and [`Tcp::poll_stir`] says when to look.
    ///
    /// # Errors
    ///
    /// When the event loop refuses; the socket is closed then.
    pub(super) fn watch_ends(&self) -> io::Result<bool> {
        let Ok(mut watch) = self.watch.try_borrow_mut() else { return Ok(false) };
        *watch = match std::mem::replace(&mut *watch, Watch::Lost) {
            Watch::Nothing(unwatched) => Watch::Ends(watched(unwatched.socket, Interest::WRITABLE)?),
            Watch::Whole(stream) => Watch::Ends(watched(stream.into_std()?, Interest::WRITABLE)?),
            other => other,
        };
        Ok(true)
    }

    /// Has the event loop tell everything again.
    ///
    /// # Errors
    ///
    /// When the event loop refuses; the socket is closed then.
    pub(super) fn watch_whole(&self) -> io::Result<()> {
        let mut watch = self.watch.borrow_mut();
        *watch = match std::mem::replace(&mut *watch, Watch::Lost) {
            Watch::Nothing(unwatched) => Watch::Whole(TcpStream::from_std(unwatched.socket)?),
            Watch::Ends(stream) => Watch::Whole(TcpStream::from_std(stream.into_inner())?),
            other => other,
        };
        Ok(())
    }

    /// Whether only ends, breaks and room are told.
    pub(super) fn watches_ends(&self) -> bool {
        matches!(&*self.watch.borrow(), Watch::Ends(_))
    }

    /// Takes note of what was told; what comes from now on wakes `cx`. Ask before looking at the socket.
    pub(super) fn poll_stir(&self, cx: &mut Context<'_>) -> Stir {
        let watch = self.watch.borrow();
        let Watch::Ends(stream) = &*watch else { return Stir::Open };
        // Twice at most: what is over stays ready.
        for _ in 0..2 {
            match stream.poll_write_ready(cx) {
                Poll::Ready(Ok(mut ready)) if ready.ready().is_write_closed() => {
                    ready.retain_ready();
                    return Stir::Over;
                }
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                Poll::Ready(Err(_)) => return Stir::Over,
                Poll::Pending => return Stir::Open,
            }
        }
        cx.waker().wake_by_ref();
        Stir::Open
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nothing_is_told(|unwatched| unwatched.dry.get()) {
            self.watch_whole()?;
        }
        match &*self.watch.borrow() {
            Watch::Nothing(_) => Poll::Ready(Ok(())),
            Watch::Whole(stream) => stream.poll_read_ready(cx),
            Watch::Ends(_) => Poll::Pending,
            Watch::Lost => Poll::Ready(Err(lost())),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nothing_is_told(|unwatched| unwatched.full.get()) {
            self.watch_whole()?;
        }
        match &*self.watch.borrow() {
            Watch::Nothing(_) => Poll::Ready(Ok(())),
            Watch::Whole(stream) => stream.poll_write_ready(cx),
            Watch::Ends(stream) => stream.poll_write_ready(cx).map_ok(|mut ready| ready.retain_ready()),
            Watch::Lost => Poll::Ready(Err(lost())),
        }
    }

    /// Reads without asking the event loop before; `Ok(0)`: the peer has ended its side.
    pub(super) fn read_now(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let ((read, _), _) = rustix::net::recv(self, buffer.spare_capacity_mut(), RecvFlags::DONTWAIT)?;
        let count = read.len();
        grow(buffer, count);
        Ok(count)
    }

    /// Writes without asking the event loop before. Where there is no room, [`Tcp::poll_stir`] says when there is some.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || Ok(rustix::net::recv(self, buffer, RecvFlags::DONTWAIT)?.1))
    }

    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || self.read_now(buffer))
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || match slices {
            [one] => self.write_now(one),
            // Rust's runtime has SIGPIPE ignored.
            several => Ok(rustix::io::writev(self, several)?),
        })
    }

    pub(super) fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &*self.watch.borrow() {
            Watch::Nothing(unwatched) => unwatched.note(interest, call()),
            Watch::Whole(stream) => stream.try_io(interest, call),
            Watch::Ends(stream) => stream.try_io(interest, |_| call()),
            Watch::Lost => Err(lost()),
        }
    }

    /// Returns once the connection is broken. While it waits, the event loop goes on telling everything.
    #[expect(clippy::await_holding_refcell_ref, reason = "that is what `watch_ends` must not take away meanwhile")]
    pub(super) async fn broken(&self) {
        if self.nothing_is_told(|_| true) && self.watch_whole().is_err() {
            return;
        }
        if let Watch::Whole(stream) = &*self.watch.borrow() {
            // An error here says the same.
            let _: io::Result<tokio::io::Ready> = stream.ready(Interest::ERROR).await;
            return;
        }
        pending().await
    }

    /// Its own address and its peer's.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let socket = SockRef::from(self);
        let ip = |address: socket2::SockAddr| address.as_socket().ok_or(io::ErrorKind::Unsupported);
        Ok((ip(socket.local_addr()?)?, ip(socket.peer_addr()?)?))
    }

    pub(super) fn keep_alive(&self) {
        let keep_alive =
            TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY).with_retries(ASKED_TIMES);
        // A socket that refuses is broken, which whoever reads it is told.
        let _: io::Result<()> = SockRef::from(self).set_tcp_keepalive(&keep_alive);
    }

    #[expect(unsafe_code, reason = "rustix has no SIOCOUTQ")]
    pub(super) fn has_unacknowledged(&self) -> bool {
        let mut count: libc::c_int = 0;
        // SAFETY: SIOCOUTQ, which is TIOCOUTQ's number, writes one int.
        let result = unsafe { libc::ioctl(self.descriptor, libc::TIOCOUTQ, &raw mut count) };
        result == 0 && count > 0
    }

    /// The socket alone: the event loop hears of it no more.
    pub(super) fn into_socket(self) -> io::Result<std::net::TcpStream> {
        match self.watch.into_inner() {
            Watch::Nothing(unwatched) => Ok(unwatched.socket),
            Watch::Whole(stream) => stream.into_std(),
            Watch::Ends(stream) => Ok(stream.into_inner()),
            Watch::Lost => Err(lost()),
        }
    }

    /// Moves the socket, which another worker watched, to the event loop of the caller.
    pub(super) fn moved_here(self) -> io::Result<Self> {
        Ok(TcpStream::from_std(self.into_socket()?)?.into())
    }

    /// Whether the event loop does not know the socket, and `all` is so of it.
    fn nothing_is_told(&self, all: impl FnOnce(&Unwatched) -> bool) -> bool {
        matches!(&*self.watch.borrow(), Watch::Nothing(unwatched) if all(unwatched))
    }
}

impl Unwatched {
    /// Keeps in mind that there was nothing to read, or no room.
    fn note<T>(&self, interest: Interest, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            let said = if interest.is_readable() { &self.dry } else { &self.full };
            said.set(true);
        }
        result
    }
}

impl AsFd for Tcp {
    #[expect(unsafe_code, reason = "the socket is behind a cell, its descriptor is not")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket stays open and keeps its number while it goes from one way of watching to the other; it is
        // closed only with self, or by an event loop that refuses it. Then nothing is done with it but fail: both ends
        // of a connection are closed as soon as one of its calls does.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

fn lost() -> io::Error {
    io::Error::other("the event loop refused the socket")
}

/// Has the event loop tell what is asked of a descriptor.
///
/// # Errors
///
/// When the event loop refuses it.
#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]
pub fn watched<S: AsRawFd + Into<OwnedFd>>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    // SAFETY: the standard library's types, which alone are given here, own their descriptor (they turn into it), never
    // change it, and close it when they are dropped, which the AsyncFd does after it has deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "BytesMut has no reading from a descriptor")]
fn grow(buffer: &mut BytesMut, count: usize) {
    // SAFETY: the kernel has written the first `count` bytes of the spare room.
    unsafe { buffer.set_len(buffer.len() + count) };
}
