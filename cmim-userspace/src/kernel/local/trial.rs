//! The local lane's trial: before it is used, it has to show on this very kernel that nothing is lost, nothing overtakes
//! anything and nothing piles up, and that it is worth its while.
//!
//! A connection to and from this process over the loopback interface, a few milliseconds at the start of the daemon.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cmim_common::local::WINDOW;
use socket2::{Domain, Socket, Type};

use super::LocalLane;
use crate::kernel::KernelError;
use crate::kernel::maps::Maps;

/// All of it together. A working lane needs some milliseconds of it, but the host may be busy.
const PATIENCE: Duration = Duration::from_secs(2);
/// One message of the trial, about a small reply.
const MESSAGE: usize = 1_024;
/// What is sent to a reader that does not read; TCP's own buffers may take less.
const FLOOD: usize = 4 * WINDOW as usize;
/// Round trips that are timed together, and how many times; the best time counts, as all disturbance costs time.
const ROUND_TRIPS: u32 = 50;
const TIMES: u32 = 8;

/// A connection with both its ends.
pub(super) struct Connection {
    pub daemon: TcpStream,
    pub server: TcpStream,
}

/// What is sent in one direction, known at both ends: the byte at each place.
pub(super) fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at % 251) as u8).collect()
}

/// Tries the lane. `Ok`: it works; whether a round trip on it takes clearly less time than one by TCP.
///
/// # Errors
///
/// [`KernelError::LocalTrial`] where anything is not as it should be.
pub(super) fn run(lane: &LocalLane, maps: &Maps) -> Result<bool, KernelError> {
    let failed = |what: String| KernelError::LocalTrial { what };
    let began = Instant::now();
    let deadline = began + PATIENCE;
    let connection = Connection::open(Some(lane)).map_err(|error| failed(format!("no connection: {error}")))?;
    let trial = Trial { maps, deadline };
    trial.both_ways(&connection).map_err(failed)?;
    trial.order_and_bound(&connection.server, &connection.daemon).map_err(failed)?;
    trial.order_and_bound(&connection.daemon, &connection.server).map_err(failed)?;
    let timed = |lane| {
        let connection = Connection::open(lane)?;
        (0..TIMES).map(|_| connection.round_trips()).try_fold(Duration::MAX, |best, time| Ok(best.min(time?)))
    };
    let compared = timed(Some(lane)).and_then(|on| Ok((on, timed(None)?)));
    let (on, off) = compared.map_err(|error: io::Error| failed(format!("a round trip: {error}")))?;
    trial.end(&connection).map_err(failed)?;
    tracing::debug!(
        "{ROUND_TRIPS} round trips take {on:?} on the local lane and {off:?} by TCP; the trial took {:?}",
        began.elapsed()
    );
    Ok(on < off * 9 / 10)
}

impl Connection {
    pub(super) fn open(lane: Option<&LocalLane>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(lane) = lane {
            lane.mark(socket.as_fd()).map_err(|error| io::Error::other(error.clause()))?;
        }
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let daemon = TcpStream::from(socket);
        let (server, _) = listener.accept()?;
        for stream in [&daemon, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { daemon, server })
    }

    fn round_trips(&self) -> io::Result<Duration> {
        let message = pattern(0, MESSAGE);
        let mut read = vec![0; MESSAGE];
        let began = Instant::now();
        for _ in 0..ROUND_TRIPS {
            (&self.daemon).write_all(&message)?;
            (&self.server).read_exact(&mut read)?;
            (&self.server).write_all(&message)?;
            (&self.daemon).read_exact(&mut read)?;
        }
        Ok(began.elapsed())
    }
}

struct Trial<'a> {
    maps: &'a Maps,
    deadline: Instant,
}

impl Trial<'_> {
    /// Messages go past TCP in both directions.
    fn both_ways(&self, connection: &Connection) -> Result<(), String> {
        let Connection { daemon, server } = connection;
        for (from, to, name) in [(daemon, server, "to the server"), (server, daemon, "from the server")] {
            let before = self.handed_over()?;
            self.send(from, &pattern(0, MESSAGE))?;
            self.expect(to, 0, MESSAGE)?;
            if self.handed_over()? != before + MESSAGE as u64 {
                return Err(format!("what goes {name} does not take the lane"));
            }
        }
        Ok(())
    }

    /// A reader that does not read gets at most a window past TCP; the rest comes behind it, in order.
    fn order_and_bound(&self, from: &TcpStream, to: &TcpStream) -> Result<(), String> {
        let told = |error: io::Error| format!("a reader that waits: {error}");
        let before = self.handed_over()?;
        from.set_nonblocking(true).map_err(told)?;
        let mut sent = 0;
        while sent < FLOOD {
            match (&*from).write(&pattern(sent, MESSAGE)) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(told(error)),
            }
            self.in_time()?;
        }
        from.set_nonblocking(false).map_err(told)?;
        let handed_over = self.handed_over()? - before;
        if handed_over == 0 || handed_over > u64::from(WINDOW) {
            return Err(format!("{handed_over} bytes were handed to a reader that does not read"));
        }
        self.expect(to, 0, sent)?;
        // All is read, so the lane is open again.
        let before = self.handed_over()?;
        self.send(from, &pattern(0, MESSAGE))?;
        self.expect(to, 0, MESSAGE)?;
        if self.handed_over()? == before { Err("it does not come back behind TCP".to_owned()) } else { Ok(()) }
    }

    /// The end of a stream comes behind its last byte.
    fn end(&self, connection: &Connection) -> Result<(), String> {
        let told = |error: io::Error| format!("the stream's end: {error}");
        self.send(&connection.server, &pattern(0, MESSAGE))?;
        connection.server.shutdown(std::net::Shutdown::Write).map_err(told)?;
        self.expect(&connection.daemon, 0, MESSAGE)?;
        match (&connection.daemon).read(&mut [0]).map_err(told)? {
            0 => Ok(()),
            _ => Err("there are bytes behind the stream's end".to_owned()),
        }
    }

    fn send(&self, mut to: &TcpStream, bytes: &[u8]) -> Result<(), String> {
        self.in_time()?;
        to.write_all(bytes).map_err(|error| format!("sending: {error}"))
    }

    /// Reads exactly what was sent.
    fn expect(&self, mut from: &TcpStream, first: usize, length: usize) -> Result<(), String> {
        self.in_time()?;
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).map_err(|error| format!("reading: {error}"))?;
        if bytes == pattern(first, length) { Ok(()) } else { Err("bytes are not in order".to_owned()) }
    }

    fn in_time(&self) -> Result<(), String> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(format!("it took more than {PATIENCE:?}")) }
    }

    fn handed_over(&self) -> Result<u64, String> {
        self.maps.counters().map(|counters| counters.local_bytes).map_err(|error| error.clause())
    }
}
