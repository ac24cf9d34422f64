//! A client connection on which nothing happens, in as little memory as it takes: no task, no buffers, no timer, nothing
//! in the event loop. [`crate::worker`] watches its socket and has it served again once something comes.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::connection::Rest;
use super::serve::{Entrance, Guest};
use crate::config::model::ListenAddress;
use crate::exchange::{Accepted, Link};
use crate::net::Stream;
use crate::observe::roll;
use crate::stack::Seq;

/// A connection that has been idle for this long is parked: clients that ask more often are served without the detour.
pub(super) const PARK_AFTER: Duration = Duration::from_secs(5);

/// What is kept of it. `P`: what it occupies.
#[derive(Debug)]
pub struct Parked<P> {
    socket: TcpStream,
    peer: SocketAddr,
    /// Behind a pointer: few have one.
    local: Option<Box<SocketAddr>>,
    id: u64,
    trusted: bool,
    /// So many it has had.
    requests: Seq,
    idle_since: Instant,
    entry: roll::Entry,
    entrance: Rc<Entrance>,
    places: P,
}

impl<P> Parked<P> {
    /// `None`: the event loop did not let go of the socket, which is closed.
    pub(super) fn new(guest: Guest<P>) -> Option<Self> {
        let Guest { link, entry, rest, entrance, places } = guest;
        let Accepted { stream, local, peer, id, trusted, .. } = link.into_accepted();
        let socket = stream.into_socket().ok()?;
        entry.park();
        let Rest { requests, idle_since, .. } = rest;
        Some(Self {
            socket,
            peer,
            local: local.map(Box::new),
            id,
            trusted,
            requests,
            idle_since,
            entry,
            entrance,
            places,
        })
    }

    /// The connection as it was. `None`: it is not listed any more.
    pub fn wake(self) -> Option<Box<Guest<P>>> {
        let Self { socket, peer, local, id, trusted, requests, idle_since, entry, entrance, places } = self;
        let stream = Stream::accepted(socket);
        let accepted = Accepted { stream, local: local.map(|local| *local), peer, id, trusted, read: BytesMut::new() };
        let link = Link::new(accepted, entry.wake()?);
        link.set_due(requests);
        Some(Box::new(Guest { link, entry, rest: Rest { requests, idle_since, last: false }, entrance, places }))
    }

    /// By which listener it came in.
    pub fn listener(&self) -> ListenAddress {
        self.entrance.address
    }

    /// Since when nothing has been asked on it.
    pub fn idle_since(&self) -> Instant {
        self.idle_since
    }
}

impl<P> AsFd for Parked<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
