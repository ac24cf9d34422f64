//! A connection's byte stream, over TCP or a Unix socket, read and written through a shared reference so that its two
//! directions can be driven independently.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, BytesMut};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::tcp::{Stir, Tcp};

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A connected stream of the current worker's event loop.
#[derive(Debug)]
pub enum Stream {
    Tcp(Tcp),
    /// TCP on the local lane: bytes come by TCP and past it, and each way has a queue of its own in the kernel. So a
    /// short read does not say that there is no more, and splice(2) and tcp(7)'s SIOCINQ know of one queue only.
    Local(Tcp),
    Unix(UnixStream),
}

impl Stream {
    /// A TCP connection that was just accepted, and does not block.
    pub fn accepted(socket: std::net::TcpStream) -> Self {
        Self::Tcp(Tcp::unwatched(socket))
    }

    /// The address of this side of a TCP connection.
    ///
    /// # Errors
    ///
    /// When the socket has none.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        socket2::SockRef::from(self).local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// The socket of a TCP connection alone: the event loop hears of it no more.
    ///
    /// # Errors
    ///
    /// When the event loop does not let go of it, or TCP does not carry the stream.
    pub fn into_socket(self) -> io::Result<std::net::TcpStream> {
        match self {
            Self::Tcp(stream) => stream.into_socket(),
            Self::Local(_) | Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether TCP carries it.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Has the event loop tell only ends, breaks and room from now on, and bytes no more: for a socket whose bytes the
    /// kernel carries. `false`: it tells everything as before, because somebody waits for it, or the socket is not of TCP.
    /// From then on [`Stream::poll_read_now`] and [`Stream::poll_write_now`] are to be used, behind a
    /// [`Stream::poll_stir`].
    ///
    /// # Errors
    ///
    /// When the event loop refuses; the connection is lost then.
    pub fn watch_ends(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(stream) => stream.watch_ends(),
            Self::Local(_) | Self::Unix(_) => Ok(false),
        }
    }

    /// Has the event loop tell everything again.
    ///
    /// # Errors
    ///
    /// When the event loop refuses; the connection is lost then.
    pub fn watch_whole(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.watch_whole(),
            Self::Local(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Takes note of what the event loop told of a stream whose ends are watched; what comes from now on wakes `cx`. Ask
    /// before looking at the socket.
    pub fn poll_stir(&self, cx: &mut Context<'_>) -> Stir {
        match self {
            Self::Tcp(stream) => stream.poll_stir(cx),
            Self::Local(_) | Self::Unix(_) => Stir::Open,
        }
    }

    /// Reads as [`Stream::poll_read`] does, in either way of watching. Pending while only ends are watched: nothing says
    /// when bytes come but the ends, and whoever else knows.
    pub fn poll_read_now(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) if stream.watches_ends() => blocking(stream.read_now(buffer)),
            _ => self.poll_read(cx, buffer),
        }
    }

    /// Writes as [`Stream::poll_write`] does, in either way of watching.
    pub fn poll_write_now(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) if stream.watches_ends() => blocking(stream.write_now(bytes)),
            _ => self.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    /// Reads into `buffer`'s spare room, which must not be empty. `Ok(0)`: the peer has ended its side.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let room = buffer.chunk_mut().len();
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    if count > 0 && count < room && !matches!(self, Self::Local(_)) {
                        self.drained(Interest::READABLE);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes as much as the socket takes, at least one byte of a non-empty `slices`.
    pub fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    if count < slices.iter().map(|slice| slice.len()).sum() {
                        self.drained(Interest::WRITABLE);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes all of `bytes`. What was written when the future is dropped stays written.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // Borrowed for one call alone each time: a task that moves between threads may have the stream.
            let own = &mut *self;
            let count = poll_fn(move |cx| own.poll_write(cx, &[IoSlice::new(bytes)])).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends up to `count` bytes of `file` from `offset` on, at least one, and moves `offset` on behind them; `Ok(0)`: the
    /// file ends there. The pages go to the socket as they are: the range must not be overwritten in place afterwards.
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            // A short count does not say that the socket is full, as it does of a write: the file's side can be the cause.
            let send = || rustix::fs::sendfile(self, file, Some(&mut *offset), count).map_err(io::Error::from);
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether splice(2) can take all that comes.
    pub fn can_be_piped(&self) -> bool {
        !matches!(self, Self::Local(_))
    }

    /// Moves up to `most` bytes that have come into `pipe`, without a copy; `Ok(0)`: the peer has ended its side. Where
    /// `pipe` is not empty, pending can also mean that it is full.
    pub fn poll_splice_out(
        &self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        most: usize,
        pipe_is_empty: bool,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match splice(self, None, pipe, None, most, SPLICE) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // Either of the two: the readiness must not be forgotten, or it would be missed later.
                Err(Errno::AGAIN) if !pipe_is_empty => return Poll::Pending,
                Err(Errno::AGAIN) => self.drained(Interest::READABLE),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Moves up to `count` of the bytes in `pipe` to the socket, at least one.
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &OwnedFd, count: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match splice(pipe, None, self, None, count, SPLICE) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => self.drained(Interest::WRITABLE),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Whether nothing has come and the peer is still there; if so, `waker` is told once that changes. For connections
    /// that nobody reads at the moment.
    pub fn is_quiet(&self, waker: &Waker) -> bool {
        let mut cx = Context::from_waker(waker);
        let mut probe = [0];
        loop {
            if self.poll_read_ready(&mut cx).is_pending() {
                return true;
            }
            match self.try_read(&mut probe) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Ready once the peer has ended its side and all that it sent was read. Pending for good, without a wake-up, while
    /// there are bytes that nobody has read.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let mut probe = [0];
            match rustix::net::recv(self, &mut probe, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Poll::Ready(()),
                Ok(_) => return Poll::Pending,
                Err(Errno::AGAIN) => self.drained(Interest::READABLE),
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Returns once the connection is broken, as a reset breaks it.
    pub async fn broken(&self) {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.broken().await,
            Self::Unix(stream) => {
                // An error here says the same.
                let _: io::Result<tokio::io::Ready> = stream.ready(Interest::ERROR).await;
            }
        }
    }

    /// Asks the kernel itself whether nothing has come and the peer is still there.
    pub fn is_silent(&self) -> bool {
        let mut probe = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self, &mut probe, flags), Err(Errno::AGAIN))
    }

    /// Asks the kernel itself whether something has come that nobody has read: a close would be a reset then.
    pub fn has_unread(&self) -> bool {
        let mut probe = [0];
        matches!(rustix::net::recv(self, &mut probe, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 1..)))
    }

    /// Whether bytes were sent that the peer's kernel has not confirmed.
    pub fn has_unacknowledged(&self) -> bool {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.has_unacknowledged(),
            Self::Unix(_) => false,
        }
    }

    /// Whether the connection broke, as a reset breaks it.
    pub fn has_failed(&self) -> bool {
        // The error is told once, and whoever sends in the kernel may have been told; a broken socket has no peer.
        self.failure().is_some() || rustix::net::getpeername(self).is_err()
    }

    /// What broke the connection, once.
    pub fn failure(&self) -> Option<io::Error> {
        match rustix::net::sockopt::socket_error(self) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error.into()),
        }
    }

    /// Moves the stream, which another worker watched, to the event loop of the caller.
    pub fn moved_here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.moved_here()?),
            Self::Local(stream) => Self::Local(stream.moved_here()?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }

    /// Ends the sending side: the peer reads the end of the stream once it has read all that was sent.
    pub fn shutdown_write(&self) -> io::Result<()> {
        rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write).map_err(io::Error::from)
    }

    /// Makes the coming close a reset, so that the peer cannot take what it got for the whole.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(stream) | Self::Local(stream) = self {
            // A socket that refuses the option closes orderly, which the content's missing end shows as well.
            let _: io::Result<()> = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Has the kernel ask a silent peer now and then whether it is still there, and break the connection where it is not:
    /// for what no clock of the device's own ends.
    pub fn keep_alive(&self) {
        if let Self::Tcp(stream) | Self::Local(stream) = self {
            stream.keep_alive();
        }
    }

    /// Ready where the event loop was told that something has come, or the end; without a system call.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// A short read or write says that the socket has no more for now (epoll(7), edge-triggered): forgets the readiness,
    /// which saves the system call that would find that out. Readiness that came meanwhile is still in the epoll queue,
    /// because only this thread takes it from there.
    fn drained(&self, interest: Interest) {
        let _: io::Result<()> = self.try_io(interest, || Err(io::ErrorKind::WouldBlock.into()));
    }

    fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.try_io(interest, call),
            Self::Unix(stream) => stream.try_io(interest, call),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) | Self::Local(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// The event loop's word for an answer of the kernel's.
fn blocking<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}
