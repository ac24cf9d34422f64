//! Listening sockets: one for each worker and address, sharing the port.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stream::Stream;
use super::tcp::watched;
use crate::config::model::ListenAddress;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listener \"{listener}\": {address} is in use by another process (`ss -ltnp` shows which)")]
    InUse { listener: String, address: ListenAddress },
    #[error("listener \"{listener}\": {address} needs root or CAP_NET_BIND_SERVICE, as every port below 1024 does")]
    Denied { listener: String, address: ListenAddress },
    #[error("listener \"{listener}\": cannot listen on {address}: {source}")]
    Other { listener: String, address: ListenAddress, source: io::Error },
}

/// An address bound once for each worker, before the kernel takes connections for it.
#[derive(Debug)]
pub struct Bound {
    listener: String,
    address: ListenAddress,
    sockets: Vec<Socket>,
}

impl Bound {
    /// The address with its port, also where the configuration left that to the kernel.
    pub fn address(&self) -> ListenAddress {
        self.address
    }

    /// What its sockets hear beside that: one of somebody else's for every address of IPv6 may be for those of IPv4 too.
    pub fn other_family(&self) -> Option<ListenAddress> {
        let ListenAddress::One(SocketAddr::V6(address)) = self.address else { return None };
        let hears_both = self.sockets.first().is_some_and(|socket| socket.only_v6().is_ok_and(|only| !only));
        (address.ip().is_unspecified() && hears_both)
            .then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())).into())
    }

    /// Opens the door: one listening socket for each worker.
    pub fn listen(self) -> Result<Vec<TcpListener>, ListenError> {
        let Self { listener, address, sockets } = self;
        let open = |socket: Socket| {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        sockets.into_iter().map(open).collect::<io::Result<_>>().map_err(|source| explain(&listener, address, source))
    }
}

/// A listening socket of the current worker's event loop.
#[derive(Debug)]
pub struct Entry(AsyncFd<TcpListener>);

impl Entry {
    /// # Errors
    ///
    /// When the event loop refuses the socket.
    pub fn watch(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // What it accepts has that from it. Replies and their contents are written whole; waiting for more would only
        // delay them.
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        watched(socket, Interest::READABLE).map(Self)
    }

    /// The next connection, and who it is from. The event loop does not hear of the connection before it is waited for.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accept = |socket: &TcpListener| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (accepted, peer) = rustix::net::acceptfrom_with(socket, flags)?;
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
            Ok((Stream::accepted(accepted.into()), peer))
        };
        self.0.async_io(Interest::READABLE, accept).await
    }
}

/// An address that somebody else has opened: its sockets, one for each worker at least. Where there are fewer, workers
/// share one; where there are more, some worker has several, because a connection may wait at each of them.
pub fn inherited(
    listener: &str,
    address: ListenAddress,
    workers: usize,
    sockets: Vec<TcpListener>,
) -> Result<Bound, ListenError> {
    let explain = |source| explain(listener, address, source);
    let mut bound = address;
    if let (ListenAddress::One(one), Some(first)) = (&mut bound, sockets.first()) {
        *one = first.local_addr().map_err(explain)?;
    }
    let mut shared = Vec::new();
    if sockets.len() < workers {
        for socket in sockets.iter().cycle().take(workers - sockets.len()) {
            shared.push(Socket::from(socket.try_clone().map_err(explain)?));
        }
    }
    let sockets = sockets.into_iter().map(Socket::from).chain(shared).collect();
    Ok(Bound { listener: listener.to_owned(), address: bound, sockets })
}

/// Binds `address` once for each worker; `own`: where this process listens already. Port 0 is replaced by one of the kernel's choice, the same for all. Of many
/// addresses the sockets have one; the kernel part leads connections for the others to them.
pub fn bind(
    listener: &str,
    address: ListenAddress,
    workers: usize,
    own: &[ListenAddress],
) -> Result<Bound, ListenError> {
    let explain = |source| explain(listener, address, source);
    // Sharing the port would let a second daemon take half of the first one's connections unnoticed; a socket that
    // does not share finds out whether anybody is there.
    // Where that somebody is this very process (0.0.0.0:80 beside 10.0.0.1:80), there is no finding out.
    if !own.iter().any(|own| overlap(*own, address)) {
        look_for_others(address).map_err(explain)?;
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, Sharing::Yes).map_err(explain)?;
        if let ListenAddress::One(one) = &mut address {
            *one = socket.local_addr().map_err(explain)?.as_socket().unwrap_or(*one);
        }
        sockets.push(socket);
    }
    Ok(Bound { listener: listener.to_owned(), address, sockets })
}

fn explain(listener: &str, address: ListenAddress, source: io::Error) -> ListenError {
    let listener = listener.to_owned();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { listener, address },
        io::ErrorKind::PermissionDenied => ListenError::Denied { listener, address },
        _ => ListenError::Other { listener, address, source },
    }
}

/// Whether one address is among those of the other.
fn overlap(one: ListenAddress, other: ListenAddress) -> bool {
    let (one, other) = (one.bind_address(), other.bind_address());
    let every = one.ip().is_unspecified() || other.ip().is_unspecified() || one.ip() == other.ip();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && every
}

/// Fails where another process listens on the address already.
fn look_for_others(address: ListenAddress) -> io::Result<()> {
    // Binding alone does not meet a listener that has SO_REUSEADDR set as well; listening does.
    let socket = open(address, Sharing::No)?;
    socket.listen(1)?;
    // Closing does not end it where a process is just being started, which has every descriptor until its exec(2).
    socket.shutdown(Shutdown::Both)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn open(address: ListenAddress, sharing: Sharing) -> io::Result<Socket> {
    let foreign = address.needs_steering();
    let address = address.bind_address();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The IPv4 side of a port is a listener of its own.
        socket.set_only_v6(true)?;
    }
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    // No interface needs to have the one of a network's addresses that stands for all.
    match address {
        SocketAddr::V4(_) if foreign => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if foreign => socket.set_freebind_v6(true)?,
        _ => {}
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const ANY: ListenAddress = ListenAddress::One(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

    #[test]
    fn processes_that_are_being_started_are_not_taken_for_other_listeners() {
        let free = bind("web", ANY, 1, &[]).unwrap().address();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().expect("coreutils are here");
                }
            });
            // Often enough that some meet a start.
            let failed = (0..10_000).map(|_| bind("web", free, 2, &[])).find_map(Result::err);
            done.store(true, Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
    }

    #[test]
    fn workers_share_one_port_of_the_kernels_choice() {
        let sockets = bind("web", ANY, 3, &[]).unwrap().listen().unwrap();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|&port| port == ports[0] && port != 0));
    }

    #[test]
    fn a_port_in_use_is_refused_although_its_owner_shares_it() {
        let sockets = bind("web", ANY, 1, &[]).unwrap().listen().unwrap();
        let taken = sockets[0].local_addr().unwrap().into();
        let error = bind("other", taken, 1, &[]).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    }

    #[test]
    fn an_address_of_ones_own_on_another_interface_is_no_stranger() {
        let sockets = bind("web", ANY, 1, &[]).unwrap().listen().unwrap();
        let own: ListenAddress = sockets[0].local_addr().unwrap().into();
        let every = SocketAddr::from(([0, 0, 0, 0], own.bind_address().port())).into();
        assert!(bind("web", every, 1, &[]).is_err());
        bind("web", every, 1, &[own]).unwrap().listen().unwrap();
    }

    #[test]
    fn workers_share_inherited_sockets_where_there_are_too_few() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let inherit = |workers| {
            let sockets = vec![socket.try_clone().unwrap(), socket.try_clone().unwrap()];
            inherited("web", ANY, workers, sockets).unwrap()
        };
        assert_eq!(inherit(3).address(), address.into(), "the port is the socket's");
        for (workers, sockets) in [(1, 2), (2, 2), (3, 3), (5, 5)] {
            let listening = inherit(workers).listen().unwrap();
            assert_eq!(listening.len(), sockets);
            assert!(listening.iter().all(|socket| socket.local_addr().unwrap() == address));
        }
    }
}
