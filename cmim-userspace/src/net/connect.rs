//! Connecting to a server.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;
use super::tcp::Tcp;
use crate::config::model::ServerAddress;

/// A Unix socket whose accept queue is full is asked again after this, and from then on after twice as long each time …
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// … up to this, so that hundreds that wait cost little.
const ASK_SELDOM: Duration = Duration::from_millis(40);

/// Connects within `timeout`; [`io::ErrorKind::TimedOut`] where that passes.
pub async fn connect(address: &ServerAddress, timeout: Duration) -> io::Result<Stream> {
    match address {
        ServerAddress::Tcp(address) => Ok(Stream::Tcp(connect_marked(*address, timeout, |_| ()).await?)),
        ServerAddress::Unix(path) => Ok(Stream::Unix(within(timeout, connect_unix(path)).await?)),
    }
}

/// The same over TCP, with a socket that is shown to `mark` before it connects.
pub async fn connect_marked(
    address: SocketAddr,
    timeout: Duration,
    mark: impl FnOnce(BorrowedFd<'_>),
) -> io::Result<Tcp> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    // Requests and their contents are written whole; waiting for more would only delay them.
    socket.set_tcp_nodelay(true)?;
    mark(socket.as_fd());
    match socket.connect(&address.into()) {
        Ok(()) => return Ok(Tcp::silent(socket.into())),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    // A server on this host, or in a container here, has mostly answered by now: the event loop is spared the question.
    if has_answered(&socket)? {
        return Ok(Tcp::silent(socket.into()));
    }
    let stream = TcpStream::from_std(socket.into())?;
    within(timeout, stream.writable()).await?;
    stream.take_error()?.map_or_else(|| Ok(stream.into()), Err)
}

/// Waits while the server's accept queue is full: TCP does so by itself, and a Unix socket says `EAGAIN` at once
/// (`unix_stream_connect`), without a word when there is room again.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = ASK_AGAIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(ASK_SELDOM);
    }
}

/// Whether a connection is made.
///
/// # Errors
///
/// When it was refused.
fn has_answered(socket: &Socket) -> io::Result<bool> {
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default()))?;
    let said = asked.map(|asked| asked.revents());
    if said.iter().any(|said| said.intersects(PollFlags::ERR | PollFlags::HUP)) {
        return Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
    }
    Ok(said.contains(&PollFlags::OUT))
}

async fn within<T>(timeout: Duration, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt")))
}
