//! A load generator for very many connections: they are opened first, each with its first exchange, and then asked on,
//! either at a fixed rate, each in its turn, or so that always so many wait for a reply.
//!
//! At a fixed rate a reply's time counts from the moment at which its question was due, not from the one at which it was
//! sent: a proxy that makes its clients wait does not slow down the clock as well.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::sockopt::set_socket_linger;

use super::Run;
use super::network::{Network, Side};
use super::statistics::percentile;

/// Threads that open and ask, each its share of the connections.
const THREADS: usize = 2;
/// For connecting, for a first reply, and for the last replies after the end.
const PATIENCE: Duration = Duration::from_secs(10);
const EVENTS: usize = 256;
const BUFFER: usize = 64 * 1024;
const MILLI: f64 = 1000.0;

/// When a connection asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So often a second, all connections together.
    Rate(f64),
    /// The next one in turn as soon as a reply is there, so that always so many wait for one.
    Waiting(usize),
}

/// What is said on each connection.
#[derive(Debug, Clone)]
pub(crate) enum Speech {
    /// A GET again and again; the reply has a length, which is always the same.
    Page { request: String },
    /// An upgrade, and then messages that come back as they are.
    Tunnel { request: String, message: Vec<u8> },
}

/// Open connections, shared out to the threads.
#[derive(Debug)]
pub(crate) struct Clients {
    shares: Vec<Vec<Client>>,
    question: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) replies: f64,
    /// Replies a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// What one reply has, in bytes.
    length: usize,
    got: usize,
    /// When the questions that have no reply yet were due; the first one is on its way.
    due: VecDeque<Instant>,
}

impl Clients {
    /// Opens so many connections and has the first exchange on each.
    pub(crate) fn open(
        run: &Run,
        network: &Network,
        address: SocketAddr,
        count: usize,
        speech: &Speech,
    ) -> Result<Self> {
        let share = |thread: usize| count / THREADS + usize::from(thread < count % THREADS);
        let open = |thread| (0..share(thread)).map(|_| Client::open(run, address, speech)).collect::<Result<Vec<_>>>();
        let shares = network.within(Side::Client, || {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || open(thread))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().map_err(|_| anyhow!("a client's thread panicked"))?)
                    .collect::<Result<Vec<_>>>()
            })
        })??;
        let question = match speech {
            Speech::Page { request } => request.clone().into_bytes(),
            Speech::Tunnel { message, .. } => message.clone(),
        };
        Ok(Self { shares, question })
    }

    /// Asks for so many seconds and waits for every reply; one that does not come is an error.
    pub(crate) fn ask(&mut self, run: &Run, pace: Pace, seconds: u64) -> Result<Outcome> {
        let started = Instant::now();
        let end = started + Duration::from_secs(seconds);
        let pace = match pace {
            Pace::Rate(rate) => Pace::Rate(rate / f64::from(u32::try_from(THREADS)?)),
            Pace::Waiting(count) => Pace::Waiting(count / THREADS),
        };
        let question = self.question.as_slice();
        let times = thread::scope(|scope| {
            let threads: Vec<_> = self
                .shares
                .iter_mut()
                .map(|share| scope.spawn(move || Asking::new(share, question)?.run(run, pace, started, end)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a client's thread panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        run.check_interrupt()?;
        let mut times: Vec<f64> = times.into_iter().flatten().collect();
        times.sort_by(f64::total_cmp);
        let (p50_ms, p99_ms) = percentile(&times, 50).zip(percentile(&times, 99)).context("not one reply")?;
        let replies = f64::from(u32::try_from(times.len())?);
        Ok(Outcome { replies, rate: replies / started.elapsed().as_secs_f64(), p50_ms, p99_ms })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Closed by a reset: thousands of closed connections would wait, and their ports with them.
        let _ = set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}

impl Client {
    fn open(run: &Run, address: SocketAddr, speech: &Speech) -> Result<Self> {
        run.check_interrupt()?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let length = match speech {
            Speech::Page { request } => {
                stream.write_all(request.as_bytes())?;
                let (head, early) = read_head(&mut stream, "200")?;
                let content = content_length(&head).context("a reply without a length")?;
                stream.read_exact(&mut vec![0; content.checked_sub(early).context("bytes after a reply")?])?;
                head.len() + content
            }
            Speech::Tunnel { request, message } => {
                stream.write_all(request.as_bytes())?;
                let (_, early) = read_head(&mut stream, "101")?;
                if early > 0 {
                    bail!("bytes in a tunnel before anything was said");
                }
                message.len()
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self { stream, length, got: 0, due: VecDeque::new() })
    }

    /// Says the question; it is small, so that a connection that does not take it whole is stuck.
    fn say(&mut self, question: &[u8]) -> Result<()> {
        let written = self.stream.write(question).context("asking")?;
        if written < question.len() {
            bail!("a connection takes no more questions");
        }
        Ok(())
    }

    /// A question is due; it goes out now if no other one is on its way.
    fn ask(&mut self, question: &[u8], due: Instant) -> Result<()> {
        self.due.push_back(due);
        if self.due.len() == 1 { self.say(question) } else { Ok(()) }
    }

    /// Reads what is there; when the reply's question was due, once the reply is whole.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<Instant>> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("a connection ended"),
            Ok(count) => self.got += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("reading a reply"),
        }
        if self.got < self.length {
            return Ok(None);
        }
        if self.got > self.length {
            bail!("a reply of {} bytes, all others have {}", self.got, self.length);
        }
        self.got = 0;
        self.due.pop_front().map(Some).context("a reply to nothing")
    }
}

/// One thread's part.
struct Asking<'a> {
    clients: &'a mut [Client],
    question: &'a [u8],
    epoll: std::os::fd::OwnedFd,
    times_ms: Vec<f64>,
    /// Questions without a reply.
    open: usize,
    /// Who asked last.
    turn: usize,
}

impl<'a> Asking<'a> {
    fn new(clients: &'a mut [Client], question: &'a [u8]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, client) in clients.iter().enumerate() {
            let data = epoll::EventData::new_u64(u64::try_from(index)?);
            epoll::add(&epoll, &client.stream, data, epoll::EventFlags::IN)?;
        }
        Ok(Self { clients, question, epoll, times_ms: Vec::new(), open: 0, turn: 0 })
    }

    fn run(mut self, run: &Run, pace: Pace, started: Instant, end: Instant) -> Result<Vec<f64>> {
        let (step, waiting) = match pace {
            Pace::Rate(rate) => (Duration::from_secs_f64(1.0 / rate), 0),
            Pace::Waiting(count) => (Duration::MAX, count.min(self.clients.len())),
        };
        for _ in 0..waiting {
            self.ask_next(Instant::now())?;
        }
        let mut next = if waiting > 0 { end } else { started };
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; BUFFER];
        loop {
            let now = Instant::now();
            while next <= now && next < end {
                self.ask_next(next)?;
                next += step;
            }
            if now >= end && self.open == 0 || run.check_interrupt().is_err() {
                return Ok(self.times_ms);
            }
            if now > end + PATIENCE {
                bail!("{} of {} replies did not come", self.open, self.open + self.times_ms.len());
            }
            // Not later than that: an interrupt is to be noticed.
            let until = next.min(now + PATIENCE / 100);
            let wait = if now < end { until.saturating_duration_since(now) } else { PATIENCE / 100 };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::try_from(wait)?)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll"),
            }
            for event in &events {
                let replied = self.readable(usize::try_from(event.data.u64())?, &mut buffer)?;
                if replied && self.open < waiting && Instant::now() < end {
                    self.ask_next(Instant::now())?;
                }
            }
        }
    }

    /// Has the next client in turn ask.
    fn ask_next(&mut self, due: Instant) -> Result<()> {
        self.turn = (self.turn + 1) % self.clients.len().max(1);
        let client = self.clients.get_mut(self.turn).context("no client")?;
        self.open += 1;
        client.ask(self.question, due)
    }

    /// Whether that was the end of a reply.
    fn readable(&mut self, index: usize, buffer: &mut [u8]) -> Result<bool> {
        let client = self.clients.get_mut(index).context("no such client")?;
        let Some(due) = client.read(buffer)? else { return Ok(false) };
        self.open -= 1;
        self.times_ms.push(due.elapsed().as_secs_f64() * MILLI);
        if !client.due.is_empty() {
            client.say(self.question)?;
        }
        Ok(true)
    }
}

/// Reads a head; the head, and how many bytes came after it.
fn read_head(stream: &mut impl Read, status: &str) -> Result<(Vec<u8>, usize)> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).context("reading a head")?;
        if count == 0 {
            bail!("the connection ended in a head");
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) {
            let early = head.len() - end;
            head.truncate(end);
            let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
            if line.split(' ').nth(1) != Some(status) {
                bail!("{line:?}, not {status}");
            }
            return Ok((head, early));
        }
        if head.len() > BUFFER {
            bail!("a head without an end");
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_to_its_end_and_its_status_is_looked_at() -> Result<()> {
        let mut reply: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\n\r\nabc";
        let (head, early) = read_head(&mut reply, "200")?;
        assert_eq!((content_length(&head), early), (Some(12), 3));
        assert!(read_head(&mut &b"HTTP/1.1 502 Bad Gateway\r\n\r\n"[..], "200").is_err());
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\n"[..], "200").is_err());
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        Ok(())
    }
}
