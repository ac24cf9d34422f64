//! Connecting to a server.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;
use crate::config::model::ServerAddress;

/// Connects within `timeout`; [`io::ErrorKind::TimedOut`] where that passes.
pub async fn connect(address: &ServerAddress, timeout: Duration) -> io::Result<Stream> {
    let connecting = async {
        match address {
            ServerAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Requests and their contents are written whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream.into()))
            }
            ServerAddress::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    };
    tokio::time::timeout(timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt")))
}
