//! The origin server of all but the stacked benchmark: nginx with static pages, and the same as pages without a length.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Run;
use super::network::{Network, Side};
use super::process::Process;
use super::proxy::{fill, installed};

const TEMPLATE: &str = include_str!("peers/origin.conf");
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// Target and length.
pub(crate) const SMALL: (&str, usize) = ("/small", 1024);
pub(crate) const MEDIUM: (&str, usize) = ("/medium", 100 * 1024);
pub(crate) const BULK: (&str, usize) = ("/bulk", 10 * 1024 * 1024);
pub(crate) const DYNAMIC: (&str, usize) = ("/dynamic/page", 8 * 1024);
pub(crate) const DYNAMIC_LARGE: (&str, usize) = ("/dynamic/large", 1_000_000);
const PAGES: [(&str, usize); 5] = [SMALL, MEDIUM, BULK, DYNAMIC, DYNAMIC_LARGE];

#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Origin {
    pub(crate) fn start(run: &Run, network: &Network) -> Result<Self> {
        Self::start_with(run, network, &[])
    }

    /// With further pages: targets without a slash in them but the first, and their contents.
    pub(crate) fn start_with(run: &Run, network: &Network, further: &[(String, Vec<u8>)]) -> Result<Self> {
        let directory = run.directory.join(format!("origin-{}", run.started.fetch_add(1, Ordering::Relaxed)));
        let pages = directory.join("pages");
        fs::create_dir_all(pages.join("dynamic")).with_context(|| format!("making {}", pages.display()))?;
        for (target, length) in PAGES {
            fs::write(pages.join(target.trim_start_matches('/')), content(length))?;
        }
        for (target, content) in further {
            fs::write(pages.join(target.trim_start_matches('/')), content)?;
        }
        let address = network.free_address(Side::Server)?;
        let file = directory.join("origin.conf");
        fs::write(&file, fill(TEMPLATE, &directory, run.descriptors, address))?;
        let mut command = network.command(Side::Server, &installed("nginx")?);
        command.arg("-p").arg(&directory).arg("-c").arg(&file);
        let mut process = Process::start(command, "origin", &directory.join("origin.log"))?;
        process.wait_until(PATIENCE, || network.answers(Side::Client, address, CONNECT_PATIENCE))?;
        Ok(Self { address, process })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.process.pids()
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

/// Bytes that show a shift by any amount.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length.div_ceil(16)).flat_map(|line| format!("{line:015}\n").into_bytes()).take(length).collect()
}

/// Asks for a page once and compares it to the byte; to be called on the client's side.
pub(crate) fn verify(address: SocketAddr, (target, length): (&str, usize)) -> Result<()> {
    verify_content(address, target, &content(length))
}

/// The same with the content at hand.
pub(crate) fn verify_content(address: SocketAddr, target: &str, expected: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: whatever stands between, the reply's end is the connection's end, and nothing is chunked.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).context("reading a reply")?;
    let head = reply.windows(4).position(|end| end == b"\r\n\r\n").context("no reply's head")?;
    let (head, got) = reply.split_at(head + 4);
    let line = String::from_utf8_lossy(head.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned();
    if line.split_whitespace().nth(1) != Some("200") {
        bail!("WRONG REPLY: {line} for {target}");
    }
    if got != expected {
        bail!("WRONG REPLY: {} bytes for {target}, not its {}, or not the same", got.len(), expected.len());
    }
    Ok(())
}

/// Connections of a server on the calling thread's network that have not ended on both sides.
pub(crate) fn connections_of(server: SocketAddr) -> Option<f64> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
    let port = hexadecimal(server);
    Some(count(&table, |row| row.get(LOCAL).is_some_and(|local| local.ends_with(&port))))
}

/// Those that these processes have to a server; their network is the calling thread's.
pub(crate) fn connections_to(server: SocketAddr, pids: &[u32]) -> Option<f64> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
    let port = hexadecimal(server);
    let sockets: HashSet<String> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
    Some(count(&table, |row| {
        row.get(REMOTE).is_some_and(|remote| remote.ends_with(&port))
            && row.get(INODE).is_some_and(|inode| sockets.contains(*inode))
    }))
}

/// Columns of /proc/net/tcp.
const LOCAL: usize = 1;
const REMOTE: usize = 2;
const STATE: usize = 3;
const INODE: usize = 9;
/// SYN_RECV, TIME_WAIT, CLOSE, LISTEN. A server that has written all waits in FIN_WAIT1 for the last byte to go.
const NOT_HELD: [&str; 4] = ["03", "06", "07", "0A"];

fn hexadecimal(server: SocketAddr) -> String {
    format!(":{:04X}", server.port())
}

fn count(table: &str, ours: impl Fn(&[&str]) -> bool) -> f64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let held = rows.filter(|row| row.get(STATE).is_some_and(|state| !NOT_HELD.contains(state)) && ours(row));
    held.fold(0.0, |count, _| count + 1.0)
}

/// The inodes of a process's sockets.
fn sockets(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_length() {
        assert_eq!(PAGES.map(|(_, length)| content(length).len()), PAGES.map(|(_, length)| length));
    }

    #[test]
    fn only_the_servers_own_live_connections_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 0202470A:1F90 0101470A:A000 01 0:0 0:0\n   1: 0202470A:1F90 00000000:0000 0A 0:0 0:0\n\
             2: 0202470A:1F91 0101470A:A001 01 0:0 0:0\n   4: 0202470A:1F90 0101470A:A003 04 0:0 0:0\n   3: 0202470A:1F90 0101470A:A002 06 0:0 0:0\n";
        let port = hexadecimal(SocketAddr::from(([10, 71, 2, 2], 8080)));
        assert_eq!(count(table, |row| row[LOCAL].ends_with(&port)), 2.0);
        assert_eq!(count(table, |row| row[REMOTE].ends_with(":A001")), 1.0);
    }

    #[test]
    fn a_process_has_its_own_connections_only() -> Result<()> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let server = listener.local_addr()?;
        let _client = TcpStream::connect(server)?;
        assert_eq!(connections_to(server, &[std::process::id()]), Some(1.0));
        assert_eq!(connections_to(server, &[]), Some(0.0));
        Ok(())
    }
}
