//! The control socket's typed requests and answers.
//!
//! One JSON value a line each way: the client writes one [`Request`], the daemon writes one [`Answer`]. The same types
//! make the CLI's tables and its `--json`, so that both can only say the same.

mod guard;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use guard::{Guard, GuardCounters, GuardedInterface, GuardedListener};

/// What `cmim` asks of a running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Request {
    Status,
    Connections,
    Servers,
    /// Takes a server out of the balance, or puts it back.
    ServerDraining {
        upstream: String,
        address: String,
        draining: bool,
    },
    ServerAdd {
        upstream: String,
        server: NewServer,
    },
    /// Its requests are finished, then it is forgotten.
    ServerRemove {
        upstream: String,
        address: String,
    },
    Jobs,
    /// `id` as [`Job::id`] has it.
    JobCancel {
        id: String,
    },
    Queues,
    Buffers,
    /// Drops what comes from `sources`, an address or a network such as "203.0.113.0/24", on the guarded interfaces.
    DenyAdd {
        sources: String,
    },
    /// Takes exactly this network off the list again.
    DenyRemove {
        sources: String,
    },
    DenyList,
    Guard,
    Splices,
    ConfigShow,
    /// Which file the configuration came from.
    ConfigFile,
    /// Reads that file again.
    Reload,
    /// Stops accepting, finishes and ends.
    Drain,
    /// Starts `binary`, or the daemon's own path, in the daemon's place, and finishes.
    Upgrade {
        binary: Option<PathBuf>,
    },
}

impl Request {
    /// Whether it waits for more than locks: for host names, workers, another process.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        matches!(
            self,
            Self::Reload
                | Self::ServerDraining { .. }
                | Self::ServerAdd { .. }
                | Self::ServerRemove { .. }
                | Self::Upgrade { .. }
        )
    }
}

/// A server that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewServer {
    pub address: String,
    pub weight: u32,
    /// 0: no limit.
    pub max_requests: u64,
    pub backup: bool,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<Status>),
    Connections(Vec<Connection>),
    Servers(Vec<Server>),
    Jobs(Vec<Job>),
    Queues(Vec<Queue>),
    Buffers(Box<Buffers>),
    /// Denied networks, IPv4 first.
    Denied(Vec<String>),
    Guard(Box<Guard>),
    Splices(Vec<Splice>),
    /// A change was made; one line that says which.
    Changed(String),
    /// The effective configuration, as TOML.
    ConfigShow(String),
    /// The file that the daemon was started with.
    ConfigFile(PathBuf),
    Reloaded(Box<Reloaded>),
    /// The configuration stays as it is; one line for each reason.
    NotReloaded(Vec<String>),
    /// The request was understood and refused, or not understood; one line with the way out.
    Refused(String),
}

/// A configuration that was read again and is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub file: String,
    /// What changed, one line each.
    pub applied: Vec<String>,
    /// Keys that differ from what runs and need a restart or an upgrade.
    pub restart: Vec<String>,
    /// What the kernel part could not do, one clause each.
    pub incomplete: Vec<String>,
}

impl Reloaded {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} is in force", self.file)];
        lines.extend(self.applied.iter().cloned());
        if self.applied.is_empty() {
            lines.push("nothing changed".to_owned());
        }
        if !self.restart.is_empty() {
            lines.push(format!("not without a restart or `cmim upgrade`: {}", self.restart.join(", ")));
        }
        lines.extend(self.incomplete.iter().map(|clause| format!("kernel part: {clause}")));
        lines
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub workers: usize,
    /// No longer accepts; it ends once the open requests are answered.
    #[serde(default)]
    pub draining: bool,
    pub client_connections: ClientConnections,
    pub server_connections: ServerConnections,
    pub requests_total: u64,
    pub replies: Replies,
    pub stacked: Stacked,
    pub jobs: Jobs,
    pub buffers: Buffers,
    pub lanes: Lanes,
    pub kernel: Kernel,
    pub servers: Vec<Server>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConnections {
    pub open: u64,
    pub accepted_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConnections {
    pub open: u64,
    pub idle: u64,
    pub opened_total: u64,
    pub reused_total: u64,
    /// Requests sent behind another one on its connection (`server_pipeline`).
    #[serde(default)]
    pub pipelined_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies {
    /// Held until whole, then sent with a Content-Length that the server did not give.
    pub rewritten_total: u64,
    pub streamed_total: u64,
    /// Held replies that left the RAM tier.
    pub spilled_total: u64,
    /// Replies of the device's own making: refusals, 502, 503, 504.
    pub local_total: u64,
    /// Trailer fields dropped because their reply became length-delimited.
    pub trailers_dropped_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacked {
    pub noticed_total: u64,
    pub distributed_total: u64,
    pub in_flight: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    pub active: u64,
    pub queued: u64,
    /// However they ended: `requests_total` = `active` + `queued` + `done_total` at every instant.
    pub done_total: u64,
    /// Of these, ended with a reply of the device's own making or a cut one.
    #[serde(default)]
    pub failed_total: u64,
    /// Of these, ended because the client left or the operator stopped them.
    #[serde(default)]
    pub cancelled_total: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    pub memory: BufferTier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<BufferTier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<BufferTier>,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferTier {
    /// Of a file tier, in whole extents, so that it agrees with `df`.
    pub used: u64,
    pub size: u64,
    pub replies: u64,
    /// Contents that moved on to a later tier for want of room here.
    pub spilled_total: u64,
    /// Contents that found no room here; of memory: in no tier.
    pub refused_total: u64,
    #[serde(default)]
    pub written_total: u64,
    /// In the last 24 hours: a flash drive's wear.
    #[serde(default)]
    pub written_per_day: u64,
    /// Why nothing new goes here at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    pub copy: Lane,
    pub pipe: Lane,
    pub sockmap: Lane,
    pub local: Lane,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    pub active: u64,
    pub splices_total: u64,
    pub bytes_total: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// "on", "partial" or "off".
    pub mode: String,
    pub programs: Vec<Program>,
    /// Names of the pinned maps.
    pub maps: Vec<String>,
    pub pin_dir: String,
    /// What this host does not allow, one clause each.
    pub missing: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    /// As bpftool says it: "xdp", "sk_skb", …
    pub kind: String,
    /// Interface names, map names; empty: loaded, attached to nothing.
    pub attached_to: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub upstream: String,
    pub address: String,
    /// "up", "down", "probing", "draining".
    pub state: String,
    pub weight: u32,
    pub in_flight: u64,
    pub idle: u64,
    pub requests_total: u64,
    pub failures_total: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    pub id: u64,
    pub listener: String,
    pub address: String,
    pub age_seconds: f64,
    pub requests: u64,
    /// Requests of this connection in the device now.
    pub stacked: u64,
    /// "copy", "pipe", "sockmap", "local" (copied from a server connection on that lane), or "" while no content or
    /// tunnel is on its way.
    pub lane: String,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// "idle", "reading", "waiting", "replying", "tunnel", "closing".
    pub state: String,
}

/// A request in the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The connection's number and the request's number on it: "17.3".
    pub id: String,
    pub client: String,
    /// Empty where the request could not be parsed; so is `target`.
    pub method: String,
    pub target: String,
    /// "received", "queued", "dispatched", "replying".
    pub state: String,
    /// Empty before it has one.
    pub server: String,
    pub age_seconds: f64,
    /// Content bytes of its reply that are in the device or went through it.
    pub bytes: u64,
    /// The tier in which its reply waits: "memory", "flash", "disk", or "" while none of it does.
    pub tier: String,
}

/// The queue of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    pub upstream: String,
    /// Requests that wait for a server with room.
    pub waiting: u64,
    /// How long the one that has waited longest has, in seconds; 0 where none waits.
    pub oldest_seconds: f64,
    pub limit: u64,
    /// Requests refused because the queue was full.
    pub refused_total: u64,
}

/// One direction that the kernel carries, as its map has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splice {
    /// The map's `generation`: a tunnel's two directions have the same.
    pub id: u64,
    /// The far end of the connection on which the bytes come, and the device's own.
    pub from: String,
    pub from_local: String,
    /// The far end of the connection on which they go, and the device's own.
    pub to: String,
    pub to_local: String,
    pub lane: String,
    /// "splicing", "paused" (bytes wait for the daemon to pass them on) or "ended" (the content is whole).
    pub state: String,
    /// Handed over by the kernel.
    pub bytes: u64,
    /// Passed on by the daemon.
    pub relayed: u64,
    /// Of a content's bytes, still to come; absent: it ends with its connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Bytes that wait for the daemon to pass them on.
    pub backlog: u64,
}
