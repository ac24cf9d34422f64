//! The origin server of all but the stacked benchmark: nginx with static pages, and the same as pages without a length.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
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
        let pages = run.directory.join("pages");
        fs::create_dir_all(pages.join("dynamic")).with_context(|| format!("making {}", pages.display()))?;
        for (target, length) in PAGES {
            fs::write(pages.join(target.trim_start_matches('/')), content(length))?;
        }
        let address = network.free_address(Side::Server)?;
        let file = run.directory.join("origin.conf");
        fs::write(&file, fill(TEMPLATE, &run.directory, run.descriptors, address))?;
        let mut command = network.command(Side::Server, &installed("nginx")?);
        command.arg("-p").arg(&run.directory).arg("-c").arg(&file);
        let mut process = Process::start(command, "origin", &run.directory.join("origin.log"))?;
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
fn content(length: usize) -> Vec<u8> {
    (0..length.div_ceil(16)).flat_map(|line| format!("{line:015}\n").into_bytes()).take(length).collect()
}

/// Asks for a page once and compares it to the byte; to be called on the client's side.
pub(crate) fn verify(address: SocketAddr, (target, length): (&str, usize)) -> Result<()> {
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
    if got != content(length) {
        bail!("WRONG REPLY: {} bytes for {target}, not its {length}, or not the same", got.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_length() {
        assert_eq!(PAGES.map(|(_, length)| content(length).len()), PAGES.map(|(_, length)| length));
    }
}
