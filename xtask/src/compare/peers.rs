//! The device and its peers as running processes, each before the same servers.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{ask, clean, which};

/// Event loops of each.
const WORKERS: usize = 2;
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Which program stands between the client and the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cmim,
    Haproxy,
    Nginx,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Cmim, Self::Haproxy, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cmim => "cmim",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Cmim => include_str!("peers/cmim.toml"),
            Self::Haproxy => include_str!("peers/haproxy.cfg"),
            Self::Nginx => include_str!("peers/nginx.conf"),
        }
    }

    /// One server's line in the configuration.
    fn server(self, number: usize, address: SocketAddr) -> String {
        match self {
            Self::Cmim => format!("  {{ address = \"{address}\", max_requests = {} }},", super::origins::AT_ONCE),
            Self::Haproxy => format!("    server s{number} {address} maxconn {}", super::origins::AT_ONCE),
            Self::Nginx => format!("        server {address};"),
        }
    }

    fn command(self, binary: &Path, configuration: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Cmim => clean(binary),
            Self::Haproxy => Command::new(which("haproxy").context("haproxy is not installed")?),
            Self::Nginx => Command::new(which("nginx").context("nginx is not installed")?),
        };
        match self {
            Self::Cmim => command.args(["run", "--config"]).arg(configuration),
            Self::Haproxy => command.arg("-f").arg(configuration),
            Self::Nginx => command.arg("-c").arg(configuration),
        };
        Ok(command)
    }

    /// As it names itself.
    pub(super) fn version(self, binary: &Path) -> String {
        let said = match self {
            Self::Cmim => ask(binary, ["--version"]),
            Self::Haproxy => ask("haproxy", ["-v"]),
            // nginx answers on stderr.
            Self::Nginx => ask("sh", ["-c", "nginx -v 2>&1"]),
        };
        said.and_then(|said| said.lines().next().map(str::to_owned)).unwrap_or_else(|| "unknown".to_owned())
    }
}

/// A running one; dropped, it is ended and its files removed.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    child: Child,
    directory: PathBuf,
}

impl Peer {
    pub(super) fn start(kind: Kind, binary: &Path, servers: &[SocketAddr]) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("cmim-bench-{}-{}", std::process::id(), kind.name()));
        fs::create_dir_all(&directory)?;
        let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr())?;
        let lines: Vec<String> =
            servers.iter().enumerate().map(|(number, &address)| kind.server(number, address)).collect();
        let text = kind
            .template()
            .replace("{workers}", &WORKERS.to_string())
            .replace("{listen}", &address.to_string())
            .replace("{directory}", &directory.display().to_string())
            .replace("{servers}", &lines.join("\n"));
        let configuration = directory.join("configuration");
        fs::write(&configuration, text)?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = kind.command(binary, &configuration)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("{} did not start", kind.name()))?;
        let mut peer = Self { kind, address, child, directory };
        peer.wait_until_ready()?;
        Ok(peer)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let said = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status})\n{}", self.kind.name(), said());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready in time\n{}", self.kind.name(), said());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let deadline = Instant::now() + STOP_PATIENCE;
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            while Instant::now() < deadline {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return;
                }
                thread::sleep(POLL);
            }
        }
        // Its own child, and only where it did not heed the signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
