//! A client connection before its first request.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, BytesMut};

use crate::buffer::ReadSize;
use crate::config::model::Listener;
use crate::exchange::{Accepted, Site, Timer};
use crate::net::Stream;
use crate::net::proxy_protocol::{self, Addresses, Parsed, ProxyProtocolError};

/// A connection as the listener gives it.
#[derive(Debug)]
pub struct Arrival {
    pub stream: Stream,
    pub peer: SocketAddr,
    /// Names the connection within this run of the daemon.
    pub id: u64,
}

/// Why a connection is closed before its first request.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    #[error("no PROXY protocol header: {0}")]
    Header(#[from] ProxyProtocolError),
    #[error("no PROXY protocol header within client_head")]
    Timeout,
    #[error("the connection ended before its PROXY protocol header")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Arrival {
    /// Reads the PROXY protocol's header where the listener has one, and knows from then on who the client is.
    pub async fn admit(self, site: &Site, listener: &Listener) -> Result<Accepted, ArrivalError> {
        let Self { stream, peer, id } = self;
        let mut read = BytesMut::new();
        let addresses = if listener.accept_proxy_protocol {
            read_header(&stream, &mut read, site).await?
        } else {
            Addresses::Unknown
        };
        let (local, peer) = match addresses {
            Addresses::Unknown => (None, peer),
            Addresses::Known { source, destination } => (Some(destination), source),
        };
        let trusted = listener.trusts(peer.ip().to_canonical());
        Ok(Accepted { stream, local, peer, id, trusted, read })
    }
}

async fn read_header(stream: &Stream, read: &mut BytesMut, site: &Site) -> Result<Addresses, ArrivalError> {
    let deadline = Instant::now() + site.config.timeouts.client_head;
    let mut timer = Timer::default();
    poll_fn(|cx| {
        loop {
            if !read.is_empty()
                && let Parsed::Header { consumed, addresses } = proxy_protocol::parse(read)?
            {
                read.advance(consumed);
                return Poll::Ready(Ok(addresses));
            }
            site.buffers.make_room(read, ReadSize::Head);
            match stream.poll_read(cx, read)? {
                Poll::Ready(0) => return Poll::Ready(Err(ArrivalError::Ended)),
                Poll::Ready(_) => {}
                Poll::Pending => return timer.poll_until(cx, deadline).map(|()| Err(ArrivalError::Timeout)),
            }
        }
    })
    .await
}
