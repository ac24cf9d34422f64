//! The contenders: cmim, its peers and the direct path, each started from its template and ended when dropped.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Run;
use super::contender::{Contender, Program};
use super::device::Control;
use super::network::{Network, Side};
use super::process::Process;
use crate::command::{is_root, which};

const CMIM: &str = include_str!("peers/cmim.toml");
const HAPROXY: &str = include_str!("peers/haproxy.cfg");
/// What HAProxy does where it is to send the fields that cmim always sends.
pub(crate) const FORWARDED: &str = include_str!("peers/haproxy-forwarded.cfg");
const NGINX: &str = include_str!("peers/nginx.conf");
/// The verifier has a share in cmim's start.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// Descriptors of a proxy for its server connections and itself; the rest may be clients.
const RESERVED: u64 = 1000;
const BPFFS: &str = "/sys/fs/bpf";
const PINS: &str = "cmim-bench-";
const CONTROL_SOCKET: &str = "cmim.sock";
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// What a benchmark sets differently from the other ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) workers: usize,
    /// cmim's `kernel.mode`
    pub(crate) kernel: &'a str,
    /// cmim's `kernel.interfaces`, as in TOML
    pub(crate) interfaces: &'a str,
}

impl<'a> Settings<'a> {
    pub(crate) fn of(run: &'a Run) -> Self {
        Self { workers: run.workers, kernel: &run.kernel, interfaces: "" }
    }
}

/// What all contenders of a benchmark have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) descriptors: u64,
    pub(crate) directory: &'a Path,
    pub(crate) started: &'a AtomicUsize,
    pub(crate) network: &'a Network,
    pub(crate) servers: &'a [SocketAddr],
    pub(crate) settings: Settings<'a>,
}

/// A running contender.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// cmim's control socket and the binary that speaks with it.
    pub(crate) control: Option<Control>,
    process: Option<Process>,
}

impl Proxy {
    pub(crate) fn start(contender: Contender, setup: &Setup<'_>) -> Result<Self> {
        let &[first, ..] = setup.servers else { bail!("a benchmark without servers") };
        let program = match contender.program() {
            Program::None => return Ok(Self { address: first, control: None, process: None }),
            Program::Cmim => setup.binary.to_owned(),
            Program::Haproxy => installed("haproxy")?,
            Program::Nginx => installed("nginx")?,
        };
        let number = setup.started.fetch_add(1, Ordering::Relaxed);
        let address = setup.network.free_address(Side::Device)?;
        let directory = setup.directory.join(number.to_string());
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let file = directory.join("configuration");
        fs::write(&file, setup.fill(&directory, number, address, contender))
            .with_context(|| format!("writing {}", file.display()))?;
        let mut command = setup.network.command(Side::Device, &program);
        match contender.program() {
            Program::Haproxy => command.args(["-db", "-f"]).arg(&file),
            Program::Nginx => command.arg("-p").arg(&directory).arg("-c").arg(&file),
            Program::Cmim | Program::None => command.args(["run", "--config"]).arg(&file),
        };
        let mut process = Process::start(command, contender.name(), &directory.join("log"))?;
        process.wait_until(START_PATIENCE, || setup.network.answers(Side::Device, address, CONNECT_PATIENCE))?;
        let control = (contender.program() == Program::Cmim)
            .then(|| Control { binary: program, socket: directory.join(CONTROL_SOCKET) });
        Ok(Self { address, control, process: Some(process) })
    }

    /// Whose CPU and memory are the proxy's; none for the direct path.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::pids).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }
}

impl Setup<'_> {
    fn fill(&self, directory: &Path, number: usize, listen: SocketAddr, contender: Contender) -> String {
        let template = template(contender.program());
        let line = |(index, server): (usize, &SocketAddr)| match contender.program() {
            Program::Haproxy => format!("    server origin{index} {server}"),
            Program::Nginx => format!("        server {server} max_fails=0;"),
            Program::Cmim | Program::None => format!("  {{ address = \"{server}\" }},"),
        };
        let lines = self.servers.iter().enumerate().map(line).collect::<Vec<_>>().join("\n");
        let (splice, splice_min) = match contender.lane() {
            Some("copy") => ("off", "64KiB"),
            // Forced also where the device would not choose it for so few bytes.
            Some(lane) => (lane, "0"),
            None => ("auto", "64KiB"),
        };
        // A connection on the local lane takes no other.
        let local_bypass =
            if contender == Contender::CmimNoBypass || contender.lane().is_some() { "off" } else { "auto" };
        let forwarded = if contender == Contender::HaproxyForwarded { FORWARDED } else { "" };
        fill(template, directory, self.descriptors, listen)
            .replace("@forwarded@", forwarded.trim_end())
            .replace("@servers@", &lines)
            .replace("@workers@", &self.settings.workers.to_string())
            .replace("@kernel@", self.settings.kernel)
            .replace("@interfaces@", self.settings.interfaces)
            .replace("@splice@", splice)
            .replace("@splice_min@", splice_min)
            .replace("@local_bypass@", local_bypass)
            .replace("@pipeline@", &contender.pipeline().to_string())
            .replace("@pins@", &format!("{}{number}", pins()))
    }
}

/// The configuration of a program as it is before a run fills it in.
pub(crate) fn template(program: Program) -> &'static str {
    match program {
        Program::Haproxy => HAPROXY,
        Program::Nginx => NGINX,
        Program::Cmim | Program::None => CMIM,
    }
}

/// How the pin directories of this run's devices begin.
fn pins() -> String {
    format!("{BPFFS}/{PINS}{}-", std::process::id())
}

/// Removes what devices of this run may have left, those that had to be killed for instance.
pub(crate) fn remove_pins() {
    let Ok(entries) = fs::read_dir(BPFFS) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.to_string_lossy().starts_with(&pins()) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// How many clients a proxy can have, and we to it, when few of them are at work at a time.
pub(crate) fn most_clients(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(RESERVED)).unwrap_or(usize::MAX)
}

/// What every template has.
pub(crate) fn fill(template: &str, directory: &Path, descriptors: u64, listen: SocketAddr) -> String {
    let connections = descriptors.saturating_sub(RESERVED).max(100);
    let user = if is_root() { "user root;" } else { "" };
    template
        .replace("@directory@", &directory.display().to_string())
        .replace("@descriptors@", &descriptors.to_string())
        .replace("@connections@", &connections.to_string())
        .replace("@listen@", &listen.to_string())
        .replace("@user@", user)
}

pub(crate) fn installed(program: &str) -> Result<PathBuf> {
    which(program).with_context(|| format!("{program} is not installed; on Debian: apt-get install {program}"))
}

/// Whether somebody accepts connections there.
pub(crate) fn accepts(address: SocketAddr, patience: Duration) -> bool {
    TcpStream::connect_timeout(&address, patience).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_template_keeps_a_gap() {
        let servers = [SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        let setup = Setup {
            binary: Path::new("cmim"),
            descriptors: 1024,
            directory: Path::new("/tmp/x"),
            started: &AtomicUsize::new(0),
            network: &Network::Loopback { why: String::new() },
            servers: &servers,
            settings: Settings { workers: 2, kernel: "off", interfaces: "" },
        };
        let others = [Contender::HaproxyForwarded, Contender::CmimPipelined];
        for contender in Contender::PROXIES.into_iter().chain(Contender::LANES).chain(others) {
            let filled = setup.fill(Path::new("/tmp/x/1"), 1, servers[0], contender);
            assert!(filled.contains("127.0.0.1:2"), "{filled}");
            let code = filled.lines().filter(|line| !line.trim().starts_with('#'));
            assert_eq!(code.filter(|line| line.contains('@')).count(), 0, "{filled}");
        }
    }
}
