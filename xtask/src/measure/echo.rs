//! The origin of `bench tunnel`: upgrades each connection and sends back what comes, all in one thread.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

/// The key of the listening socket; connections count from 1.
const LISTENER: u64 = 0;
const EVENTS: usize = 256;
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// What a client says for a tunnel to it.
pub(crate) fn upgrade(address: SocketAddr) -> String {
    format!("GET /tunnel HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
}

/// Starts one in the calling thread's network; it runs until this process ends.
pub(crate) fn start(address: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((IpAddr::V4(address), 0)).context("no port for an echo server")?;
    // std listens with a backlog of 128, too few for thousands that come at once.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    let mut server = Server::new(listener)?;
    thread::spawn(move || {
        // It ends with the benchmark; an error before that shows as connections that end.
        drop(server.run());
    });
    Ok(at)
}

struct Server {
    listener: TcpListener,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    last: u64,
}

struct Connection {
    stream: TcpStream,
    /// What came of the request's head; `None` once it is a tunnel.
    head: Option<Vec<u8>>,
}

impl Server {
    fn new(listener: TcpListener) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self { listener, epoll, connections: HashMap::new(), last: LISTENER })
    }

    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let key = event.data.u64();
                if key == LISTENER {
                    self.accept()?;
                } else if let Some(connection) = self.connections.get_mut(&key)
                    && connection.serve(&mut buffer).is_none()
                {
                    self.connections.remove(&key);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    self.last += 1;
                    epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(self.last), epoll::EventFlags::IN)?;
                    self.connections.insert(self.last, Connection { stream, head: Some(Vec::new()) });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Connection {
    /// `None` once it has ended. Messages are small and answered one by one: a socket that takes none is a broken one.
    fn serve(&mut self, buffer: &mut [u8]) -> Option<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(_) => return None,
        };
        let came = buffer.get(..count)?;
        let Some(head) = &mut self.head else { return self.stream.write_all(came).ok() };
        head.extend_from_slice(came);
        if head.ends_with(b"\r\n\r\n") {
            self.head = None;
            self.stream.write_all(SWITCHING).ok()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back() -> Result<()> {
        let address = start(Ipv4Addr::LOCALHOST)?;
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(upgrade(address).as_bytes())?;
        let mut head = vec![0; SWITCHING.len()];
        stream.read_exact(&mut head)?;
        assert_eq!(head, SWITCHING);
        stream.write_all(b"a message")?;
        let mut back = [0; 9];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"a message");
        Ok(())
    }
}
