//! A connection to a server: counted while it is open, held with a place at the server while it is in use.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::again::{At, Shared};
use super::failure::Failure;
use super::site::Site;
use super::train::Ride;
use super::upstream::Lease;
use crate::buffer::ReadSize;
use crate::lane::local::{self, Brought};
use crate::net::Stream;
use crate::observe::counters::Counters;
use crate::upstream::Next;

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

    /// Whether the event loop has seen something come, or the end, on a connection that nobody reads. Costs no system
    /// call; who reads next is woken again.
    pub(super) fn seems_readable(&self) -> bool {
        self.stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_ready()
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

/// A connection on its way from one exchange to the next, with what was read already.
#[derive(Debug)]
pub(super) struct Carriage {
    socket: ServerSocket,
    buffer: BytesMut,
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
    /// The request shares the connection with others.
    ride: Option<Ride>,
}

impl ServerConnection {
    pub(super) fn new(socket: ServerSocket, lease: Lease, reused: bool) -> Self {
        Self { socket, buffer: BytesMut::new(), size: ReadSize::Head, lease, reused, has_content: false, ride: None }
    }

    /// A connection that others may share from now on, with its first request.
    pub(super) fn shared(mut self, ride: Ride) -> Self {
        self.ride = Some(ride);
        self
    }

    /// The connection as it comes from the request before.
    pub(super) fn behind(carriage: Carriage, lease: Lease, ride: Ride) -> Self {
        let Carriage { socket, buffer } = carriage;
        // Several replies come in one read.
        let size = ReadSize::Bulk;
        Self { socket, buffer, size, lease, reused: true, has_content: false, ride: Some(ride) }
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

    /// Whether something came out of the pool with it, before anything was sent.
    pub(super) fn brings_something(&self) -> bool {
        self.reused && !self.was_behind() && self.socket.seems_readable() && !self.socket.stream.is_silent()
    }

    /// Whether the request was sent behind another one.
    pub(super) fn was_behind(&self) -> bool {
        self.ride.as_ref().is_some_and(|ride| !ride.is_first())
    }

    /// How the request shared the connection so far.
    fn how_shared(&self) -> Shared {
        match &self.ride {
            Some(ride) if !ride.is_first() => Shared::Behind,
            Some(ride) if ride.others_were_sent() => Shared::Ahead,
            Some(_) | None => Shared::Alone,
        }
    }

    /// Where a request is, for whoever decides whether it is sent again.
    pub(super) fn at(&self) -> At {
        At { server: self.lease.server(), reused: self.reused, shared: self.how_shared() }
    }

    /// Whether the response may be broken off for the requests behind it.
    pub(super) fn may_be_cut(&self, persistent: bool) -> bool {
        self.ride.as_ref().is_some_and(|ride| ride.may_be_cut(persistent))
    }

    /// Sends what others add behind this request.
    pub(super) fn poll_send_others(&self, cx: &mut Context<'_>) {
        if let Some(ride) = &self.ride {
            ride.poll_send(cx, &self.socket.stream);
        }
    }

    /// Whether the connection is this request's alone from now on; not while others wait on it.
    pub(super) fn keep_alone(&self) -> bool {
        let Some(ride) = &self.ride else { return true };
        ride.seal();
        !ride.has_followers()
    }

    /// Whether the server broke the connection while others were sent behind this request: its end says nothing then.
    pub(super) fn is_broken(&self) -> bool {
        self.ride.as_ref().is_some_and(Ride::is_broken)
    }

    /// Nobody else is to wait for this reply.
    pub(super) fn seal(&self) {
        if let Some(ride) = &self.ride {
            ride.seal();
        }
    }

    /// Sends those elsewhere who wait for this reply.
    pub(super) fn release_followers(&self) {
        if let Some(ride) = &self.ride {
            ride.release_followers();
        }
    }

    /// The head of the reply came at `now`; `since`: when the server was first waited for in this request's turn.
    pub(super) fn answered(&mut self, since: Option<Instant>, now: Instant) {
        self.lease.heard();
        if let Some(ride) = self.ride.as_ref().filter(|ride| !ride.is_first()) {
            ride.was_answered(since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)), now);
        }
    }

    /// The reply is whole: the connection goes to the request behind it, or back to the pool if it can take another
    /// request. Bytes beyond the reply's end are nobody's and disqualify it. What comes back is its read buffer, whose
    /// bytes may still be on their way to the client.
    pub(super) fn finish(mut self, site: &Site, persistent: bool) -> BytesMut {
        let mut persistent = persistent;
        if let Some(ride) = self.ride.take() {
            match ride.finish(persistent, !self.buffer.is_empty(), Instant::now()) {
                Next::Turn(_) => {
                    // Whether it should leave its lane, it is asked again while nobody is on it.
                    self.socket.brought.replied();
                    ride.hand_on(Carriage { socket: self.socket, buffer: self.buffer });
                    self.lease.answered();
                    return BytesMut::new();
                }
                Next::Idle => {}
                Next::Close => persistent = false,
            }
        }
        if persistent && self.buffer.is_empty() {
            self.lease.reusable(site, self.socket.replied(site, self.has_content));
        } else {
            self.lease.answered();
        }
        self.buffer
    }

    /// There was no reply. A stale connection says nothing about the server, and neither does a client that is at fault.
    pub(super) fn failed(self, failure: &Failure) {
        // A server that is out and takes connections but does not answer well is not back.
        let stale = self.reused && (failure.is_silent_end() || matches!(failure, Failure::Unasked));
        let not_back = self.lease.is_probe() && failure.is_of_server() && !stale;
        let ahead = self.how_shared() == Shared::Ahead;
        if ahead && stale {
            // It may also have been idle for too long.
            self.ride.iter().for_each(Ride::was_failed);
        } else if ahead && failure.is_cut() {
            self.was_cut();
        } else if failure.blames_connection() && !self.reused || not_back {
            self.lease.failed();
        } else if let Some(ride) = self.ride.as_ref().filter(|ride| !ride.is_first() && failure.is_of_server()) {
            ride.was_failed();
        }
    }

    /// The connection ended before this request's response was whole, which the requests behind it may have caused.
    pub(super) fn was_cut(&self) {
        if let Some(ride) = self.ride.as_ref().filter(|ride| ride.others_were_sent()) {
            ride.was_cut();
        }
    }

    /// The connection became a tunnel: its stream, and the place that it keeps until that ends.
    pub(super) fn into_tunnel(self) -> (ServerSocket, BytesMut, Lease) {
        (self.socket, self.buffer, self.lease)
    }
}
