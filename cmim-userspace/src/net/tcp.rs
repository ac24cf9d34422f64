//! A TCP connection of the current worker's event loop, and how much of it the loop is told.
//!
//! A socket whose bytes the kernel carries still turns readable for each burst (`sk_psock_verdict_data_ready`), and every
//! such wake-up is for nothing. While a splice lasts, the loop therefore watches only what it must hear of: the
//! connection's end, a break, and room to write after there was none. All three come without asking for readability: the
//! kernel tells ends without saying what they are (`sock_def_wakeup`), and epoll(7) passes that on as "writable".

use std::cell::RefCell;
use std::future::pending;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// A connected TCP socket.
#[derive(Debug)]
pub struct Tcp {
    /// The same in every way of watching.
    descriptor: RawFd,
    watch: RefCell<Watch>,
}

#[derive(Debug)]
enum Watch {
    /// For bytes, room, ends and breaks.
    Whole(TcpStream),
    /// For room, ends and breaks.
    Ends(AsyncFd<std::net::TcpStream>),
    /// A change failed; the socket is closed.
    Lost,
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
    /// Has the event loop tell only ends, breaks and room from now on; `false`: somebody still waits for more. Bytes are
    /// then found by trying to read, and [`Tcp::poll_stir`] says when to look.
    ///
    /// # Errors
    ///
    /// When the event loop refuses; the socket is closed then.
    pub(super) fn watch_ends(&self) -> io::Result<bool> {
        let Ok(mut watch) = self.watch.try_borrow_mut() else { return Ok(false) };
        *watch = match std::mem::replace(&mut *watch, Watch::Lost) {
            Watch::Whole(stream) => Watch::Ends(ends_of(stream.into_std()?)?),
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
        match &*self.watch.borrow() {
            Watch::Whole(stream) => stream.poll_read_ready(cx),
            Watch::Ends(_) => Poll::Pending,
            Watch::Lost => Poll::Ready(Err(lost())),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.watch.borrow() {
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
        self.with_whole(|stream| stream.try_read(buffer))
    }

    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.with_whole(|stream| stream.try_read_buf(buffer))
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with_whole(|stream| stream.try_write_vectored(slices))
    }

    pub(super) fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &*self.watch.borrow() {
            Watch::Whole(stream) => stream.try_io(interest, call),
            Watch::Ends(stream) => stream.try_io(interest, |_| call()),
            Watch::Lost => Err(lost()),
        }
    }

    /// Returns once the connection is broken. While it waits, the event loop goes on telling everything.
    #[expect(clippy::await_holding_refcell_ref, reason = "that is what `watch_ends` must not take away meanwhile")]
    pub(super) async fn broken(&self) {
        if let Watch::Whole(stream) = &*self.watch.borrow() {
            // An error here says the same.
            let _: io::Result<tokio::io::Ready> = stream.ready(Interest::ERROR).await;
            return;
        }
        pending().await
    }

    /// Its own address and its peer's.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let socket = socket2::SockRef::from(self);
        let ip = |address: socket2::SockAddr| address.as_socket().ok_or(io::ErrorKind::Unsupported);
        Ok((ip(socket.local_addr()?)?, ip(socket.peer_addr()?)?))
    }

    /// Moves the socket, which another worker watched, to the event loop of the caller.
    pub(super) fn moved_here(self) -> io::Result<Self> {
        match self.watch.into_inner() {
            Watch::Whole(stream) => Ok(TcpStream::from_std(stream.into_std()?)?.into()),
            Watch::Ends(stream) => Ok(TcpStream::from_std(stream.into_inner())?.into()),
            Watch::Lost => Err(lost()),
        }
    }

    fn with_whole<T>(&self, call: impl FnOnce(&TcpStream) -> io::Result<T>) -> io::Result<T> {
        match &*self.watch.borrow() {
            Watch::Whole(stream) => call(stream),
            Watch::Ends(_) => Err(io::ErrorKind::WouldBlock.into()),
            Watch::Lost => Err(lost()),
        }
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

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]
fn ends_of(stream: std::net::TcpStream) -> io::Result<AsyncFd<std::net::TcpStream>> {
    // SAFETY: the stream owns its descriptor, never changes it, and closes it when it is dropped, which the AsyncFd does
    // after it has deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(stream, Interest::WRITABLE) };
    watched.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "BytesMut has no reading from a descriptor")]
fn grow(buffer: &mut BytesMut, count: usize) {
    // SAFETY: the kernel has written the first `count` bytes of the spare room.
    unsafe { buffer.set_len(buffer.len() + count) };
}
