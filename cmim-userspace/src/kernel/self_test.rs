//! The sockmap lane tried out on connections of the device's own, before any client's bytes depend on it: earlier
//! kernels lose or repeat bytes in ways that no version number tells.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::error::KernelError;
use super::splice::{Splice, Splicer, Way};

/// Longest wait for one step; each takes microseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Socket buffers of the test, in bytes: small, so that they fill quickly.
const BUFFER: usize = 32 * 1024;
/// A sender that could send nothing for so long is stopped.
const SETTLED: Duration = Duration::from_millis(3);
/// More than a reader that stopped, with such buffers and what the kernel makes of them, can have taken.
const FLOOD: usize = 4 << 20;

/// Carries bytes both ways, stops reading, goes on, and ends.
///
/// # Errors
///
/// [`KernelError::SelfTest`] with the step that failed.
pub(super) fn run(splicer: &Splicer) -> Result<(), KernelError> {
    let start = Instant::now();
    Sockets::open()
        .and_then(|sockets| try_all(splicer, &sockets))
        .map_err(|source| KernelError::SelfTest { lane: "sockmap", source })?;
    tracing::debug!("the sockmap lane works, tried in {:?}", start.elapsed());
    Ok(())
}

/// Two connections with the device in the middle.
struct Sockets {
    client: TcpStream,
    first: TcpStream,
    second: TcpStream,
    server: TcpStream,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let pair = || {
            let outside = TcpStream::connect_timeout(&address, PATIENCE)?;
            let (inside, peer) = listener.accept()?;
            if peer != outside.local_addr()? {
                return Err(io::Error::other("somebody else connected to it"));
            }
            for socket in [&outside, &inside] {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.set_nodelay(true)?;
                socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER)?;
                socket2::SockRef::from(socket).set_send_buffer_size(BUFFER)?;
            }
            Ok((outside, inside))
        };
        let ((client, first), (server, second)) = (pair()?, pair()?);
        Ok(Self { client, first, second, server })
    }
}

fn try_all(splicer: &Splicer, sockets: &Sockets) -> io::Result<()> {
    let mut splice = splicer.begin(&sockets.first, &sockets.second).map_err(io::Error::other)?;
    for way in [Way::Forth, Way::Back] {
        splice.install(way, None).map_err(io::Error::other)?;
    }
    carry(&sockets.client, &sockets.server, b"from the client")?;
    carry(&sockets.server, &sockets.client, b"from the server")?;
    let progress = splice.progress(Way::Forth).map_err(io::Error::other)?;
    if (progress.spliced, progress.passed) != (15, 0) {
        return Err(io::Error::other("the kernel did not carry the bytes"));
    }
    stop_reading(&mut splice, sockets)?;
    carry(&sockets.client, &sockets.server, b"once more by itself")?;
    sockets.client.shutdown(std::net::Shutdown::Write)?;
    match (&sockets.first).read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other("bytes that nobody sent")),
        Err(error) => Err(error),
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut got = vec![0; bytes.len()];
    from.write_all(bytes)?;
    to.read_exact(&mut got)?;
    if got == bytes { Ok(()) } else { Err(io::Error::other("other bytes arrived than were sent")) }
}

/// The server reads nothing for a while: what the client can send is bounded, and all of it arrives in order.
fn stop_reading(splice: &mut Splice<'_>, sockets: &Sockets) -> io::Result<()> {
    for socket in [&sockets.client, &sockets.first, &sockets.second, &sockets.server] {
        socket.set_nonblocking(true)?;
    }
    let sent = flood(&sockets.client)?;
    let progress = splice.progress(Way::Forth).map_err(io::Error::other)?;
    if sent >= FLOOD || progress.passed == 0 {
        return Err(io::Error::other("a reader that stopped did not stop its sender"));
    }
    let mut relay = Relay::default();
    let mut buffer = vec![0; BUFFER];
    let mut arrived = 0;
    let end = Instant::now() + PATIENCE;
    while arrived < sent || !relay.is_level(splice)? {
        if Instant::now() > end {
            return Err(io::Error::other(format!("{arrived} of {sent} bytes arrived after a pause")));
        }
        relay.step(splice, sockets, &mut buffer)?;
        let count = ready((&sockets.server).read(&mut buffer))?;
        for byte in buffer.iter().take(count) {
            if *byte != pattern(arrived) {
                return Err(io::Error::other(format!("byte {arrived} after a pause is another one")));
            }
            arrived += 1;
        }
    }
    for socket in [&sockets.client, &sockets.first, &sockets.second, &sockets.server] {
        socket.set_nonblocking(false)?;
    }
    Ok(())
}

/// Sends until nothing more is taken; says how much was.
fn flood(mut socket: &TcpStream) -> io::Result<usize> {
    let mut sent = 0;
    // Once full, what is on its way may still make room for a moment.
    let mut last = Instant::now();
    while sent < FLOOD && last.elapsed() < SETTLED {
        let bytes: Vec<u8> = (sent..sent + BUFFER).map(pattern).collect();
        let count = ready(socket.write(&bytes))?;
        if count > 0 {
            sent += count;
            last = Instant::now();
        }
    }
    Ok(sent)
}

/// A byte by its position; of a period that no buffer's size is a multiple of.
const fn pattern(position: usize) -> u8 {
    (position % 251) as u8
}

/// 0 where nothing could be done now.
fn ready(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Passes on what the kernel left to userspace, as the lane does.
#[derive(Debug, Default)]
struct Relay {
    held: Vec<u8>,
    written: usize,
}

impl Relay {
    fn step(&mut self, splice: &mut Splice<'_>, sockets: &Sockets, buffer: &mut [u8]) -> io::Result<()> {
        if self.held.is_empty() {
            let progress = splice.progress(Way::Forth).map_err(io::Error::other)?;
            if splice.is_level(Way::Forth, &progress) || !splice.is_drained(Way::Forth, &progress)? {
                return Ok(());
            }
            let count = ready((&sockets.first).read(buffer))?;
            self.held.extend(buffer.iter().take(count));
        }
        self.written += ready((&sockets.second).write(self.held.get(self.written..).unwrap_or_default()))?;
        if self.written == self.held.len() {
            splice.pass_on(Way::Forth, self.written as u64);
            *self = Self::default();
        }
        Ok(())
    }

    fn is_level(&self, splice: &Splice<'_>) -> io::Result<bool> {
        let progress = splice.progress(Way::Forth).map_err(io::Error::other)?;
        Ok(self.held.is_empty() && splice.is_level(Way::Forth, &progress))
    }
}
