//! Where a benchmark's traffic runs: client, device and server in network namespaces of their own, joined by veth
//! pairs, or all three on loopback. What was made is removed when dropped.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::proxy::accepts;
use crate::command::{ask, is_root, which};

const DIRECTORY: &str = "/var/run/netns";
const PREFIX: &str = "cmim-measure-";
/// The first that the host allows in a namespace; its own default may be a pacing one, which measures its own pace.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "reno"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Device,
    Server,
}

impl Side {
    const ALL: [Self; 3] = [Self::Client, Self::Device, Self::Server];

    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Device => "device",
            Self::Server => "server",
        }
    }

    /// Inside our namespaces only, so that they are in nobody's way. The device has another one towards the server.
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Client => Ipv4Addr::new(10, 71, 1, 2),
            Self::Device => Ipv4Addr::new(10, 71, 1, 1),
            Self::Server => Ipv4Addr::new(10, 71, 2, 2),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Network {
    Loopback { why: String },
    Namespaces { names: Names },
}

impl Network {
    /// Namespaces where that is possible, else loopback with the reason.
    pub(crate) fn make() -> Self {
        if !is_root() {
            return Self::Loopback { why: "not root".to_owned() };
        }
        if which("ip").is_none() || which("nsenter").is_none() {
            return Self::Loopback { why: "ip or nsenter is not installed".to_owned() };
        }
        match Names::make() {
            Ok(names) => Self::Namespaces { names },
            Err(error) => Self::Loopback { why: format!("{error:#}") },
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Loopback { why } if why.is_empty() => "loopback".to_owned(),
            Self::Loopback { why } => format!("loopback ({why})"),
            Self::Namespaces { names } => {
                format!("client, device and server in network namespaces over veth, {}", names.congestion_control)
            }
        }
    }

    /// A program on one side. nsenter becomes the program, so that the process id is its own.
    pub(crate) fn command(&self, side: Side, program: &Path) -> Command {
        match self {
            Self::Loopback { .. } => Command::new(program),
            Self::Namespaces { names } => {
                let mut command = Command::new("nsenter");
                // ip netns exec would mount another /sys, without the bpffs.
                command.arg(format!("--net={}", names.path(side).display())).arg("--").arg(program);
                command
            }
        }
    }

    /// Runs `work` on a thread of that side; threads and sockets that it makes belong there, too.
    pub(crate) fn within<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> Result<T> {
        match self {
            Self::Loopback { .. } => Ok(work()),
            Self::Namespaces { names } => within(&names.path(side), work),
        }
    }

    pub(crate) fn free_address(&self, side: Side) -> Result<SocketAddr> {
        let address = match self {
            Self::Loopback { .. } => Ipv4Addr::LOCALHOST,
            Self::Namespaces { .. } => side.address(),
        };
        let free = || TcpListener::bind((IpAddr::V4(address), 0)).and_then(|listener| listener.local_addr());
        self.within(side, free)?.with_context(|| format!("no free port on {address}"))
    }

    /// Whether somebody on that side accepts connections.
    pub(crate) fn answers(&self, side: Side, address: SocketAddr, patience: Duration) -> bool {
        self.within(side, || accepts(address, patience)).unwrap_or(false)
    }
}

/// The three namespaces of this run.
#[derive(Debug)]
pub(crate) struct Names {
    run: u32,
    congestion_control: &'static str,
}

impl Names {
    fn make() -> Result<Self> {
        remove_left_behind();
        // Before the first one is made: dropped on an error, it removes those that there are.
        let mut names = Self { run: std::process::id(), congestion_control: "" };
        for side in Side::ALL {
            ip(&["netns", "add", &names.name(side)])?;
            ip(&["-n", &names.name(side), "link", "set", "lo", "up"])?;
        }
        names.join(Side::Client, "10.71.1.2/24", "10.71.1.1/24")?;
        names.join(Side::Server, "10.71.2.2/24", "10.71.2.1/24")?;
        for (side, by) in [(Side::Client, "10.71.1.1"), (Side::Server, "10.71.2.1")] {
            ip(&["-n", &names.name(side), "route", "add", "default", "via", by])?;
        }
        for side in Side::ALL {
            names.congestion_control = within(&names.path(side), tune)??;
        }
        Ok(names)
    }

    fn name(&self, side: Side) -> String {
        format!("{PREFIX}{}-{}", self.run, side.name())
    }

    fn path(&self, side: Side) -> PathBuf {
        Path::new(DIRECTORY).join(self.name(side))
    }

    /// A veth pair between `side` and the device.
    fn join(&self, side: Side, outer: &str, inner: &str) -> Result<()> {
        let (here, device) = (self.name(side), self.name(Side::Device));
        let peer = format!("to-{}", side.name());
        ip(&["-n", &here, "link", "add", "veth0", "type", "veth", "peer", "name", &peer, "netns", &device])?;
        for (namespace, link, address) in [(&here, "veth0", outer), (&device, peer.as_str(), inner)] {
            ip(&["-n", namespace, "address", "add", address, "dev", link])?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        Ok(())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for side in Side::ALL {
            // With a namespace its veth pairs go, too.
            let _ = ip(&["netns", "delete", &self.name(side)]);
        }
    }
}

/// Those of runs that were killed before they could tidy up.
fn remove_left_behind() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let run = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The sysctls of the namespace that the calling thread is in; the congestion control that it has now.
fn tune() -> Result<&'static str> {
    let ipv4 = Path::new("/proc/sys/net/ipv4");
    for (name, value) in [("ip_forward", "1"), ("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        let path = ipv4.join(name);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))?;
    }
    fs::write("/proc/sys/net/core/somaxconn", "4096").context("writing somaxconn")?;
    CONGESTION_CONTROLS
        .into_iter()
        .find(|name| fs::write(ipv4.join("tcp_congestion_control"), name).is_ok())
        .with_context(|| format!("none of {} is allowed in a namespace", CONGESTION_CONTROLS.join(", ")))
}

fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = fs::File::open(namespace).with_context(|| format!("opening {}", namespace.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        inside.join().map_err(|_| anyhow!("a thread in {} panicked", namespace.display()))?
    })
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new(which("ip").context("ip is not installed")?).args(arguments).output()?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What loopback traffic runs with.
pub(crate) fn host_congestion_control() -> String {
    ask("cat", ["/proc/sys/net/ipv4/tcp_congestion_control"]).map_or_else(String::new, |text| text.trim().to_owned())
}
