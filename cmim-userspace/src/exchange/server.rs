//! A connection to a server: counted while it is open, held with a place at the server while it is in use.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::site::Site;
use super::upstream::Lease;
use crate::buffer::ReadSize;
use crate::lane::local::{self, Brought};
use crate::net::Stream;
use crate::observe::counters::Counters;

/// An open connection to a server, in use or idle.
#[derive(Debug)]
pub struct ServerSocket {
    pub stream: Stream,
    open: OpenCount,
    brought: Brought,
}

/// Counts one open server connection until it is dropped.
#[derive(Debug)]
struct OpenCount(Arc<Counters>);

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.server_open.dec();
    }
}

impl ServerSocket {
    pub fn new(stream: Stream, counters: Arc<Counters>) -> Self {
        counters.server_opened.add(1);
        counters.server_open.inc();
        Self { stream, open: OpenCount(counters), brought: Brought::default() }
    }

    /// A reply is whole, and the connection can take another request.
    fn replied(mut self, site: &Site, had_content: bool) -> Self {
        if self.brought.replied() && matches!(self.stream, Stream::Local(_)) && !had_content {
            self.stream = local::leave(&site.local, self.stream);
        }
        self
    }

    /// Moves the connection from another worker's event loop to the caller's.
    pub fn moved_here(self) -> io::Result<Self> {
        let Self { stream, open, brought } = self;
        Ok(Self { stream: stream.moved_here()?, open, brought })
    }
}

/// A connection in use, with the place at the server that it takes.
#[derive(Debug)]
pub(super) struct ServerConnection {
    socket: ServerSocket,
    /// Bytes read and not looked at yet.
    pub(super) buffer: BytesMut,
    size: ReadSize,
    lease: Lease,
    /// It came out of the pool: the server may have closed it already.
    pub(super) reused: bool,
    /// The request has content, which the server may leave unread.
    pub(super) has_content: bool,
}

impl ServerConnection {
    pub(super) fn new(socket: ServerSocket, lease: Lease, reused: bool) -> Self {
        Self { socket, buffer: BytesMut::new(), size: ReadSize::Head, lease, reused, has_content: false }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.socket.stream
    }

    pub(super) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.socket.stream
    }

    /// Reads what has come; `Ok(0)`: the server ended its side.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, site: &Site) -> Poll<io::Result<usize>> {
        site.buffers.make_room(&mut self.buffer, self.size);
        let room = self.buffer.capacity() - self.buffer.len();
        let polled = self.socket.stream.poll_read(cx, &mut self.buffer);
        if let Poll::Ready(Ok(count)) = polled {
            self.socket.brought.read(count);
            if count == room {
                // There is more behind it.
                self.size = ReadSize::Bulk;
            }
        }
        polled
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.socket.stream.poll_write(cx, slices)
    }

    /// The reply is whole: the connection goes back to the pool if it can take another request. Bytes beyond the
    /// reply's end are nobody's and disqualify it. What comes back is its read buffer, whose bytes may still be on
    /// their way to the client.
    pub(super) fn finish(self, site: &Site, persistent: bool) -> BytesMut {
        if persistent && self.buffer.is_empty() {
            self.lease.reusable(site, self.socket.replied(site, self.has_content));
        } else {
            self.lease.answered();
        }
        self.buffer
    }

    /// The connection failed before it gave a reply.
    pub(super) fn failed(self) {
        self.lease.failed();
    }

    /// The connection became a tunnel: its stream, and the place that it keeps until that ends.
    pub(super) fn into_tunnel(self) -> (ServerSocket, BytesMut, Lease) {
        (self.socket, self.buffer, self.lease)
    }
}
