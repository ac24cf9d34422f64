//! Connecting to a server.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::stream::Stream;
use crate::config::model::ServerAddress;

/// Connects within `timeout`; [`io::ErrorKind::TimedOut`] where that passes.
pub async fn connect(address: &ServerAddress, timeout: Duration) -> io::Result<Stream> {
    match address {
        ServerAddress::Tcp(address) => Ok(Stream::Tcp(connect_marked(*address, timeout, |_| ()).await?.into())),
        ServerAddress::Unix(path) => Ok(Stream::Unix(within(timeout, UnixStream::connect(path)).await?)),
    }
}

/// The same over TCP, with a socket that is shown to `mark` before it connects.
pub async fn connect_marked(
    address: SocketAddr,
    timeout: Duration,
    mark: impl FnOnce(BorrowedFd<'_>),
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    mark(socket.as_fd());
    let stream = within(timeout, socket.connect(address)).await?;
    // Requests and their contents are written whole; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(timeout: Duration, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt")))
}
