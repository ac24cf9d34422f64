//! Where a benchmark's traffic runs: client, device and server in network namespaces of their own, joined by veth
//! pairs, or all three in one namespace, or on the host's loopback. What was made is removed when dropped.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::proxy::accepts;
use crate::command::{ask, is_root, which};

const DIRECTORY: &str = "/var/run/netns";
const PREFIX: &str = "cmim-measure-";
/// The first that can be had; the host's own default may be a pacing one, which measures its own pace.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "reno"];
/// What namespaces may choose from, for the whole host.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

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

    /// The device's end of the pair that leads to this side.
    pub(crate) fn link_from_device(self) -> String {
        format!("to-{}", self.name())
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
        Self::of(Layout::Apart)
    }

    /// All three on one host, which is a namespace of its own where that is possible.
    pub(crate) fn together() -> Self {
        Self::of(Layout::Together)
    }

    fn of(layout: Layout) -> Self {
        if !is_root() {
            return Self::Loopback { why: "not root".to_owned() };
        }
        if which("ip").is_none() || which("nsenter").is_none() {
            return Self::Loopback { why: "ip or nsenter is not installed".to_owned() };
        }
        match Names::make(layout) {
            Ok(names) => Self::Namespaces { names },
            Err(error) => Self::Loopback { why: format!("{error:#}") },
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Loopback { why } => format!("the host's loopback ({why}), {}", host_congestion_control()),
            Self::Namespaces { names } => {
                let place = match names.layout {
                    Layout::Apart => "client, device and server in network namespaces over veth",
                    Layout::Together => "client, device and server in one network namespace over loopback",
                };
                let shaped = names.shaped.as_ref().map_or_else(String::new, |rate| format!(", {rate} to the client"));
                format!("{place}{shaped}, {}", names.congestion_control)
            }
        }
    }

    /// Whether the three sides are joined by links.
    pub(crate) fn is_apart(&self) -> bool {
        matches!(self, Self::Namespaces { names } if names.layout == Layout::Apart)
    }

    /// A link on the client's side on which packets to this address and its neighbours end.
    pub(crate) fn lead_nowhere(&self, address: Ipv4Addr) -> Result<()> {
        let Self::Namespaces { names } = self else { bail!("no network of ours") };
        let client = names.name(Side::Client);
        // Both throw away what they are given; a kernel may have only one of them.
        ip(&["-n", &client, "link", "add", "nowhere", "type", "dummy"])
            .or_else(|_| ip(&["-n", &client, "link", "add", "nowhere", "type", "ifb"]))?;
        ip(&["-n", &client, "link", "set", "nowhere", "arp", "off", "up"])?;
        ip(&["-n", &client, "route", "add", &format!("{address}/32"), "dev", "nowhere"])
    }

    /// Slows the link from the device to the client down.
    pub(crate) fn shape(&mut self, rate: &str) -> Result<()> {
        let Self::Namespaces { names } = self else { bail!("no link of ours to shape") };
        let device = names.name(Side::Device);
        let link = Side::Client.link_from_device();
        run_tool(
            "tc",
            &[
                "-n", &device, "qdisc", "replace", "dev", &link, "root", "tbf", "rate", rate, "burst", "2mb",
                "latency", "20ms",
            ],
        )?;
        names.shaped = Some(rate.to_owned());
        Ok(())
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

    pub(crate) fn address(&self, side: Side) -> Ipv4Addr {
        match self {
            Self::Namespaces { names } if names.layout == Layout::Apart => side.address(),
            Self::Loopback { .. } | Self::Namespaces { .. } => Ipv4Addr::LOCALHOST,
        }
    }

    pub(crate) fn free_address(&self, side: Side) -> Result<SocketAddr> {
        let address = self.address(side);
        let free = || TcpListener::bind((IpAddr::V4(address), 0)).and_then(|listener| listener.local_addr());
        self.within(side, free)?.with_context(|| format!("no free port on {address}"))
    }

    /// Whether somebody on that side accepts connections.
    pub(crate) fn answers(&self, side: Side, address: SocketAddr, patience: Duration) -> bool {
        self.within(side, || accepts(address, patience)).unwrap_or(false)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Apart,
    Together,
}

/// cubic allowed to namespaces, which changes no connection of the host's; as it was when dropped.
#[derive(Debug)]
pub(crate) struct Allowance {
    before: Option<String>,
}

impl Allowance {
    pub(crate) fn give() -> Self {
        let wanted = CONGESTION_CONTROLS[0];
        let before = fs::read_to_string(ALLOWED).unwrap_or_default().trim().to_owned();
        if before.split_whitespace().any(|name| name == wanted) {
            return Self { before: None };
        }
        // Not root, or no such control here: the next one will do.
        let given = fs::write(ALLOWED, format!("{before} {wanted}")).is_ok();
        Self { before: given.then_some(before) }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(ALLOWED, before);
        }
    }
}

/// The namespaces of one benchmark.
#[derive(Debug)]
pub(crate) struct Names {
    id: String,
    layout: Layout,
    congestion_control: &'static str,
    shaped: Option<String>,
}

impl Names {
    fn make(layout: Layout) -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        remove_left_behind();
        let id = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Before the first one is made: dropped on an error, it removes those that there are.
        let mut names = Self { id, layout, congestion_control: "", shaped: None };
        for side in names.sides() {
            ip(&["netns", "add", &names.name(*side)])?;
            ip(&["-n", &names.name(*side), "link", "set", "lo", "up"])?;
        }
        if layout == Layout::Apart {
            names.join(Side::Client, "10.71.1.2/24", "10.71.1.1/24")?;
            names.join(Side::Server, "10.71.2.2/24", "10.71.2.1/24")?;
            for (side, by) in [(Side::Client, "10.71.1.1"), (Side::Server, "10.71.2.1")] {
                ip(&["-n", &names.name(side), "route", "add", "default", "via", by])?;
            }
        }
        for side in names.sides() {
            names.congestion_control = within(&names.path(*side), tune)??;
        }
        Ok(names)
    }

    /// Those that have a namespace of their own.
    fn sides(&self) -> &'static [Side] {
        match self.layout {
            Layout::Apart => &Side::ALL,
            Layout::Together => &[Side::Device],
        }
    }

    fn name(&self, side: Side) -> String {
        let side = if self.layout == Layout::Together { Side::Device } else { side };
        format!("{PREFIX}{}-{}", self.id, side.name())
    }

    fn path(&self, side: Side) -> PathBuf {
        Path::new(DIRECTORY).join(self.name(side))
    }

    /// A veth pair between `side` and the device.
    fn join(&self, side: Side, outer: &str, inner: &str) -> Result<()> {
        let (here, device) = (self.name(side), self.name(Side::Device));
        let peer = side.link_from_device();
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
        for side in self.sides() {
            // With a namespace its veth pairs go, too.
            let _ = ip(&["netns", "delete", &self.name(*side)]);
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
    run_tool("ip", arguments)
}

fn run_tool(name: &str, arguments: &[&str]) -> Result<()> {
    let program =
        which(name).with_context(|| format!("{name} is not installed; on Debian: apt-get install iproute2"))?;
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        bail!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What loopback traffic runs with.
pub(crate) fn host_congestion_control() -> String {
    ask("cat", ["/proc/sys/net/ipv4/tcp_congestion_control"]).map_or_else(String::new, |text| text.trim().to_owned())
}
