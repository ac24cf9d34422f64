//! Ports from the kernel, kept from other tests while they are in use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port that the kernel gave and no other caller gets while this lives.
///
/// The socket is bound and never listens, with `SO_REUSEADDR`: a server that also sets it may listen on the port, and the
/// kernel hands the port to nobody who asks for any.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _socket: Socket,
}

impl Reserved {
    pub fn v4() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    pub fn v6() -> Self {
        Self::on(Ipv6Addr::LOCALHOST.into())
    }

    pub fn on(ip: IpAddr) -> Self {
        let wanted = SocketAddr::new(ip, 0);
        let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&wanted.into()).expect("a port of the kernel's choice");
        let address = socket.local_addr().expect("its address").as_socket().expect("an IP address");
        Self { address, _socket: socket }
    }

    /// Where a server may listen; until one does, connections to it are refused.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
