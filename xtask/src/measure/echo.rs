//! The origin of `bench tunnel`: upgrades each connection and sends back what comes, all in one thread.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::thread::UnshareFlags;

/// The key of the listening socket; connections count from 1.
const LISTENER: u64 = 0;
const EVENTS: usize = 256;
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// What a client says for a tunnel to it.
pub(crate) fn upgrade(address: SocketAddr) -> String {
    format!("GET /tunnel HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
}

/// Starts one in the calling thread's network; it runs until this process ends. Its connections are in a table of
/// descriptors of its own, so that the generator's limit is not theirs.
pub(crate) fn start(address: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((IpAddr::V4(address), 0)).context("no port for an echo server")?;
    // std listens with a backlog of 128, too few for thousands that come at once.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    let mut server = Server::new(listener)?;
    let (told, hears) = mpsc::channel();
    thread::spawn(move || {
        let apart = own_descriptors();
        let goes_on = apart.is_ok();
        // It ends with the benchmark; an error before that shows as connections that end.
        if told.send(apart).is_ok() && goes_on {
            drop(server.run());
        }
    });
    hears.recv().context("the echo server ended at once")?.context("no descriptors of its own for an echo server")?;
    Ok(at)
}

/// Gives the calling thread a copy of the process's table of descriptors.
#[expect(unsafe_code, reason = "descriptors opened from now on mean nothing to other threads")]
fn own_descriptors() -> rustix::io::Result<()> {
    // SAFETY: what the thread has was opened before and is in both tables; what it opens and closes from now on it keeps
    // to itself.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }
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
