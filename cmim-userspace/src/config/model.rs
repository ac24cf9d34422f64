//! The valid configuration: what the rest of the device reads.
//!
//! Owns the meaning of every key after validation: references are resolved to indices, addresses are parsed, sizes are
//! bytes, "auto" is an enum. It knows no file and no TOML; [`super::validate`] makes it and nothing else does.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

pub use super::listen_address::ListenAddress;

/// A whole configuration, checked: every reference in it resolves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    pub daemon: Daemon,
    pub kernel: Kernel,
    pub buffer: Buffer,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub access_log: AccessLog,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// At least one; listeners and routes name them by [`UpstreamIndex`].
    pub upstreams: Vec<Upstream>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Daemon {
    /// Event loops; "auto" is already resolved to the CPUs this process may run on. At least 1.
    pub workers: usize,
    pub control_socket: PathBuf,
    /// The user to become once the kernel part is loaded; `None`: stay who you are.
    pub user: Option<String>,
    pub shutdown_grace: Duration,
    pub metrics_address: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    pub mode: KernelMode,
    pub pin_dir: PathBuf,
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
    pub splice: SpliceMode,
    /// Bytes; smaller contents are copied.
    pub splice_min: u64,
    /// Bytes in flight between the two sockets of one splice, at most.
    pub splice_window: u64,
    pub local_bypass: LocalBypass,
    /// SYNs a second that one source may send to listeners through the guard; 0: no limit.
    pub syn_rate_per_source: u64,
    /// SYNs a second to one listener's address, from where on the guard answers with cookies; 0: it never does.
    pub syn_rate_per_listener: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelMode {
    Auto,
    Required,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    Auto,
    Native,
    Generic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpliceMode {
    Auto,
    Sockmap,
    Pipe,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalBypass {
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Buffer {
    /// Bytes of the RAM tier of the whole device.
    pub memory: u64,
    /// Bytes of RAM that one reply takes before it moves on to the next tier, where there is one.
    pub memory_per_reply: u64,
    /// Further tiers in the order in which they are tried.
    pub tiers: Vec<Tier>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tier {
    pub kind: TierKind,
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TierKind {
    Flash,
    Disk,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes of a request head, 431 above.
    pub request_head: usize,
    /// Header fields of a request, 431 above.
    pub request_headers: usize,
    /// Bytes of a request target, 414 above.
    pub request_target: usize,
    /// Bytes of a request content, 413 above.
    pub request_content: u64,
    /// Bytes of a reply head, 502 above.
    pub reply_head: usize,
    pub client_connections: usize,
    /// `None`: no limit.
    pub client_connections_per_address: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeouts {
    pub client_head: Duration,
    pub client_idle: Duration,
    pub client_write: Duration,
    pub server_connect: Duration,
    pub server_first_byte: Duration,
    pub server_idle: Duration,
    pub server_keep_alive: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccessLog {
    pub path: AccessLogPath,
    pub format: AccessLogFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLogPath {
    Stdout,
    Off,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLogFormat {
    Json,
    Combined,
}

/// Position of an upstream in [`Config::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct UpstreamIndex(pub usize);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    pub name: String,
    /// At least one.
    pub address: Vec<ListenAddress>,
    /// Where no route fits.
    pub upstream: UpstreamIndex,
    /// Stacked requests read ahead on one client connection; 1: no distribution.
    pub pipeline_depth: usize,
    pub accept_proxy_protocol: bool,
    /// CIDRs whose X-Forwarded-* and Forwarded are kept and extended.
    pub trusted_proxies: Vec<IpNet>,
    /// Sorted as they are tried: longest host first (none last), then longest path first.
    pub routes: Vec<Route>,
    /// CONNECT is refused with 405 unless this is set.
    pub allow_connect: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// Lower case, without port; `None`: any host.
    pub host: Option<String>,
    /// A prefix of the target's path; "/" is every path.
    pub path: String,
    pub upstream: UpstreamIndex,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upstream {
    pub name: String,
    pub balance: Balance,
    pub hash_on: HashOn,
    pub length_rewrite: LengthRewrite,
    pub hold_time: Duration,
    /// Bytes.
    pub hold_size: u64,
    pub request_buffering: RequestBuffering,
    /// Pooled idle connections per server.
    pub max_idle: usize,
    /// Requests at once on one server connection, 1 to 64.
    pub server_pipeline: usize,
    pub retries: u32,
    pub queue_limit: usize,
    pub queue_timeout: Duration,
    /// At least one.
    pub servers: Vec<Server>,
    /// `None`: passive only.
    pub health: Option<Health>,
    pub send_proxy_protocol: SendProxyProtocol,
}

impl Upstream {
    /// Whether one client's server connection may serve another's request: one that was announced as one client's may not.
    #[must_use]
    pub fn shares_connections(&self) -> bool {
        self.send_proxy_protocol == SendProxyProtocol::Off
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    LeastRequests,
    RoundRobin,
    RandomTwo,
    Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashOn {
    ClientAddress,
    Target,
    /// Lower-case field name.
    Header(String),
    Cookie(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthRewrite {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestBuffering {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendProxyProtocol {
    Off,
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    pub address: ServerAddress,
    /// 1 to 256.
    pub weight: u32,
    /// In flight at once; `None`: no limit.
    pub max_requests: Option<usize>,
    pub backup: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for ServerAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    pub path: String,
    pub every: Duration,
    pub timeout: Duration,
    /// Good checks in a row that bring a server back.
    pub rise: u32,
    /// Failures in a row that take a server out.
    pub fall: u32,
}

impl Listener {
    /// Whether `peer` is a proxy whose forwarding fields are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}
