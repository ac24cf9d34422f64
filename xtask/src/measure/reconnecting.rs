//! A load generator for replies that may end with their connection.
//!
//! wrk takes the end of such a reply for an error of the next one and opens two connections for each, which would make
//! every path look bad that passes the server's end on to the client. This one has a blocking thread per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::Run;
use super::network::{Network, Side};
use super::statistics::percentile;
use super::wrk::{Load, Outcome};

const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 64 * 1024;
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
const MILLI: f64 = 1000.0;

/// Runs it on the client's side; the outcome, and how many connections it took.
pub(crate) fn load(run: &Run, network: &Network, load: &Load<'_>) -> Result<(Outcome, f64)> {
    let clients = network.within(Side::Client, || {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..load.connections)
                .map(|_| scope.spawn(|| Client::run(run, load.address, load.target, load.seconds)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a client's thread panicked"))?)
                .collect::<Result<Vec<Client>>>()
        })
    })??;
    run.check_interrupt()?;
    let mut times: Vec<f64> = clients.iter().flat_map(|client| client.times_ms.iter().copied()).collect();
    times.sort_by(f64::total_cmp);
    let (p50_ms, p99_ms) = percentile(&times, 50).zip(percentile(&times, 99)).context("not one reply")?;
    let requests = f64::from(u32::try_from(times.len())?);
    let connections = clients.iter().map(|client| f64::from(client.connections)).sum();
    let seconds = f64::from(u32::try_from(load.seconds)?);
    let outcome = Outcome { requests, rate: requests / seconds, p50_ms, p99_ms, megabytes: None };
    Ok((outcome, connections))
}

/// One client: asks, reads the reply to its end, asks again.
#[derive(Debug, Default)]
struct Client {
    times_ms: Vec<f64>,
    connections: u32,
}

impl Client {
    fn run(run: &Run, address: SocketAddr, target: &str, seconds: u64) -> Result<Self> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut client = Self::default();
        let mut buffer = vec![0; BUFFER];
        let mut kept = None;
        while Instant::now() < end && run.check_interrupt().is_ok() {
            let started = Instant::now();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => client.connect(address)?,
            };
            stream.write_all(request.as_bytes()).context("asking")?;
            let persists = read_reply(&mut stream, &mut buffer)?;
            client.times_ms.push(started.elapsed().as_secs_f64() * MILLI);
            kept = persists.then_some(stream);
        }
        Ok(client)
    }

    fn connect(&mut self, address: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        self.connections += 1;
        Ok(stream)
    }
}

/// Reads one reply; whether the connection can take another request.
fn read_reply(stream: &mut impl Read, buffer: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    let mut framing = None;
    loop {
        let free = buffer.get_mut(filled..).filter(|free| !free.is_empty()).context("a reply larger than its page")?;
        let read = stream.read(free).context("reading a reply")?;
        filled += read;
        let so_far = buffer.get(..filled).unwrap_or_default();
        if framing.is_none() {
            framing = Framing::find(so_far)?;
        }
        match framing {
            Some(Framing::Closed) if read == 0 => return Ok(false),
            _ if read == 0 => bail!("a connection ended in a reply"),
            Some(Framing::Ends { at, persists }) if filled >= at => return Ok(persists),
            Some(Framing::Chunked { persists }) if so_far.ends_with(LAST_CHUNK) => return Ok(persists),
            _ => {}
        }
    }
}

/// How a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Ends { at: usize, persists: bool },
    Chunked { persists: bool },
    Closed,
}

impl Framing {
    /// `None` while the head is not whole.
    fn find(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(length) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).to_ascii_lowercase();
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        if first.split(' ').nth(1) != Some("200") {
            bail!("{first}");
        }
        let mut found = Self::Closed;
        let persists = !head.contains("\r\nconnection: close\r\n");
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name {
                "content-length" => found = Self::Ends { at: length + value.trim().parse::<usize>()?, persists },
                "transfer-encoding" => found = Self::Chunked { persists },
                _ => {}
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut reply: &[u8]) -> Result<bool> {
        read_reply(&mut reply, &mut [0; 256])
    }

    #[test]
    fn each_way_to_end_is_understood() -> Result<()> {
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")?);
        assert!(!read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")?);
        assert!(read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")?);
        assert!(!read(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")?);
        Ok(())
    }

    #[test]
    fn a_cut_or_refused_reply_is_an_error() {
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").is_err());
        assert!(read(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\nConte").is_err());
    }
}
