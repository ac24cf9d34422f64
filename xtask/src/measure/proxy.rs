//! The contenders: cmim, its peers and the direct path, each started from its template and ended when dropped.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::network::{Network, Side};
use super::process::Process;
use crate::command::{is_root, which};

const CMIM: &str = include_str!("peers/cmim.toml");
const HAPROXY: &str = include_str!("peers/haproxy.cfg");
const NGINX: &str = include_str!("peers/nginx.conf");
/// The verifier has a share in cmim's start.
const START_PATIENCE: Duration = Duration::from_secs(15);
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Direct,
    Cmim,
    Haproxy,
    Nginx,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Cmim, Self::Haproxy, Self::Nginx];
    pub(crate) const PROXIES: [Self; 3] = [Self::Cmim, Self::Haproxy, Self::Nginx];
    pub(crate) const PEERS: [Self; 2] = [Self::Haproxy, Self::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Cmim => "cmim",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What all contenders of a run have in common.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) kernel: &'a str,
    pub(crate) workers: usize,
    pub(crate) descriptors: u64,
    pub(crate) directory: &'a Path,
    pub(crate) network: &'a Network,
    pub(crate) servers: &'a [SocketAddr],
}

/// A running contender.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Proxy {
    pub(crate) fn start(contender: Contender, setup: &Setup<'_>) -> Result<Self> {
        let &[first, ..] = setup.servers else { bail!("a benchmark without servers") };
        if contender == Contender::Direct {
            return Ok(Self { address: first, process: None });
        }
        let address = setup.network.free_address(Side::Device)?;
        let (program, template, file) = match contender {
            Contender::Haproxy => (installed("haproxy")?, HAPROXY, "haproxy.cfg"),
            Contender::Nginx => (installed("nginx")?, NGINX, "nginx.conf"),
            Contender::Cmim | Contender::Direct => (setup.binary.to_owned(), CMIM, "cmim.toml"),
        };
        let file = setup.directory.join(file);
        fs::write(&file, setup.fill(template, address, contender))
            .with_context(|| format!("writing {}", file.display()))?;
        let mut command = setup.network.command(Side::Device, &program);
        match contender {
            Contender::Haproxy => command.args(["-db", "-f"]).arg(&file),
            Contender::Nginx => command.arg("-p").arg(setup.directory).arg("-c").arg(&file),
            Contender::Cmim | Contender::Direct => command.args(["run", "--config"]).arg(&file),
        };
        let log = setup.directory.join(format!("{}.log", contender.name()));
        let mut process = Process::start(command, contender.name(), &log)?;
        process.wait_until(START_PATIENCE, || setup.network.answers(Side::Device, address, CONNECT_PATIENCE))?;
        Ok(Self { address, process: Some(process) })
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
    fn fill(&self, template: &str, listen: SocketAddr, contender: Contender) -> String {
        let line = |(index, server): (usize, &SocketAddr)| match contender {
            Contender::Haproxy => format!("    server origin{index} {server}"),
            Contender::Nginx => format!("        server {server} max_fails=0;"),
            Contender::Cmim | Contender::Direct => format!("  {{ address = \"{server}\" }},"),
        };
        let lines = self.servers.iter().enumerate().map(line).collect::<Vec<_>>().join("\n");
        fill(template, self.directory, self.descriptors, listen)
            .replace("@servers@", &lines)
            .replace("@workers@", &self.workers.to_string())
            .replace("@kernel@", self.kernel)
            .replace("@pins@", &format!("/sys/fs/bpf/cmim-bench-{}", std::process::id()))
    }
}

/// What every template has.
pub(crate) fn fill(template: &str, directory: &Path, descriptors: u64, listen: SocketAddr) -> String {
    // Two descriptors for each connection that a proxy carries, and some for itself.
    let connections = (descriptors / 2).saturating_sub(100).max(100);
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
            kernel: "off",
            workers: 2,
            descriptors: 1024,
            directory: Path::new("/tmp/x"),
            network: &Network::Loopback { why: String::new() },
            servers: &servers,
        };
        let gaps = [(CMIM, Contender::Cmim), (HAPROXY, Contender::Haproxy), (NGINX, Contender::Nginx)];
        for (template, contender) in gaps {
            let filled = setup.fill(template, servers[0], contender);
            assert!(filled.contains("127.0.0.1:2"), "{filled}");
            let code = filled.lines().filter(|line| !line.trim().starts_with('#'));
            assert_eq!(code.filter(|line| line.contains('@')).count(), 0, "{filled}");
        }
    }
}
