//! The running device as the control socket and the status page see it.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::changer::{ChangeError, Changer};
use super::doorways::Doorways;
use super::upgrade::{self, Successor};
use crate::buffer::{Figures, Store};
use crate::config::model::{ListenAddress, TierKind};
use crate::config::{self, Config, Source};
use crate::control::Device;
use crate::control::message::{
    BufferTier, Buffers, Connection, Guard, Job, NewServer, Queue, Reloaded, Server, Splice, Status,
};
use crate::exchange::upstream::SharedUpstream;
use crate::kernel::KernelPart;
use crate::observe::counters::{Counters, Totals, sum};
use crate::observe::roll::Roll;
use crate::stack::Seq;

/// The configuration in force, with what was made of it.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub config: Arc<Config>,
    /// In the order of [`Config::upstreams`].
    pub upstreams: Vec<Arc<SharedUpstream>>,
}

impl Live {
    /// Whether a listener has this address in the configuration.
    pub(super) fn has_listener(&self, address: ListenAddress) -> bool {
        self.config.listeners.iter().any(|listener| listener.address.contains(&address))
    }
}

/// Everything that can be told about the device.
#[derive(Debug)]
pub(super) struct Daemon {
    pub live: Mutex<Live>,
    pub counters: Vec<Arc<Counters>>,
    pub rolls: Vec<Arc<Roll>>,
    pub store: Arc<Store>,
    pub kernel: Mutex<KernelPart>,
    pub started: Instant,
    pub draining: AtomicBool,
    /// The file that the configuration came from.
    pub source: Option<Source>,
    pub doorways: Mutex<Doorways>,
    /// The socket of the admin address once more, for a successor.
    pub admin: Option<TcpListener>,
    /// It became another user at its start, for good.
    pub gave_up_root: bool,
    /// Told when the device is to end.
    pub end: Notify,
    /// A successor has taken over: the end is no hurry.
    pub handed_over: AtomicBool,
    /// One change of the configuration at a time.
    pub changer: Mutex<Changer>,
}

impl Daemon {
    pub(super) fn live(&self) -> Live {
        self.live.lock().clone()
    }

    /// One change of the configuration; refused while the device drains.
    fn change<T>(&self, act: impl FnOnce(&mut Changer) -> Result<T, ChangeError>) -> Result<T, ChangeError> {
        let mut changer = self.changer.lock();
        if self.draining.load(Ordering::Relaxed) { Err(ChangeError::Draining) } else { act(&mut changer) }
    }
}

impl Device for Daemon {
    fn status(&self) -> Status {
        let servers = self.servers();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            workers: self.counters.len(),
            kernel: self.kernel.lock().report(),
            draining: self.draining.load(Ordering::Relaxed),
            ..Status::default()
        };
        self.totals().fill(&mut status);
        status.lanes.local = self.kernel.lock().local_figures();
        status.server_connections.idle = servers.iter().map(|server| server.idle).sum();
        status.buffers = self.buffers();
        status.servers = servers;
        status
    }

    fn totals(&self) -> Totals {
        sum(&self.counters)
    }

    fn connections(&self) -> Vec<Connection> {
        let mut connections: Vec<Connection> = self.rolls.iter().flat_map(|roll| roll.list()).collect();
        connections.sort_by_key(|connection| connection.id);
        // What the kernel carries, a connection hears of at its end. A kernel that cannot be asked is told by `splices`.
        add_spliced(&mut connections, &self.splices().unwrap_or_default());
        connections
    }

    fn servers(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for upstream in &self.live().upstreams {
            upstream.each_server(|server| {
                servers.push(Server {
                    upstream: upstream.model.name.clone(),
                    address: server.endpoint.name.to_string(),
                    state: server.state_name().to_owned(),
                    weight: server.weight,
                    in_flight: server.in_flight as u64,
                    idle: server.pool.len() as u64,
                    requests_total: server.requests_total,
                    failures_total: server.failures_total,
                });
            });
        }
        servers
    }

    fn buffers(&self) -> Buffers {
        let report = self.store.report();
        Buffers {
            flash: report.of_kind(TierKind::Flash).map(tier),
            disk: report.of_kind(TierKind::Disk).map(tier),
            memory: tier(report.memory),
        }
    }

    fn set_draining(&self, upstream: &str, address: &str, draining: bool) -> bool {
        let live = self.live();
        let Some(named) = live.upstreams.iter().find(|shared| *shared.name == *upstream) else { return false };
        // As `cmim servers` shows it, or as the file may have it: a host name, an IPv6 address in another form.
        let meant =
            || config::server_address(address).is_ok_and(|meant| named.set_draining(&meant.to_string(), draining));
        named.set_draining(address, draining) || meant()
    }

    fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.rolls.iter().flat_map(|roll| roll.jobs()).collect();
        jobs.sort_by(|one, other| other.age_seconds.total_cmp(&one.age_seconds));
        jobs
    }

    fn cancel_job(&self, id: &str) -> bool {
        let Some((connection, seq)) = id.split_once('.') else { return false };
        let (Ok(connection), Ok(seq)) = (connection.parse(), seq.parse()) else { return false };
        self.rolls.iter().any(|roll| roll.stop(connection, Seq(seq)))
    }

    fn queues(&self) -> Vec<Queue> {
        let queue = |upstream: &Arc<SharedUpstream>| {
            let figures = upstream.queue();
            Queue {
                upstream: upstream.name.to_string(),
                waiting: figures.waiting as u64,
                oldest_seconds: figures.oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()),
                limit: upstream.model.queue_limit as u64,
                refused_total: figures.refused_total,
            }
        };
        self.live().upstreams.iter().map(queue).collect()
    }

    fn deny(&self, sources: IpNet) -> Result<(), String> {
        self.kernel.lock().deny(sources).map_err(|error| error.clause())
    }

    fn allow(&self, sources: IpNet) -> Result<bool, String> {
        self.kernel.lock().allow(sources).map_err(|error| error.clause())
    }

    fn denied(&self) -> Result<Vec<IpNet>, String> {
        self.kernel.lock().denied().map_err(|error| error.clause())
    }

    fn guard(&self) -> Result<Guard, String> {
        self.kernel.lock().guard().map_err(|error| error.clause())
    }

    fn splices(&self) -> Result<Vec<Splice>, String> {
        self.kernel.lock().splices().map_err(|error| error.clause())
    }

    fn config_toml(&self) -> String {
        config::to_toml(&self.live().config)
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.source.as_ref().map(|source| source.file.clone())
    }

    fn reload(&self) -> Result<Reloaded, Vec<String>> {
        self.change(|changer| changer.reload(self)).map_err(|error| error.lines())
    }

    fn add_server(&self, upstream: &str, server: &NewServer) -> Result<(), String> {
        let NewServer { address, weight, max_requests, backup } = server.clone();
        let server = config::NewServer { address, weight, max_requests, backup };
        let changed = self.change(|changer| {
            let config = config::with_server(&self.live().config, upstream, &server)?;
            changer.take_over(self, config)
        });
        changed.map(drop).map_err(|error| error.to_string())
    }

    fn remove_server(&self, upstream: &str, address: &str) -> Result<(), String> {
        let changed = self.change(|changer| {
            let config = config::without_server(&self.live().config, upstream, address)?;
            changer.take_over(self, config)
        });
        changed.map(drop).map_err(|error| error.to_string())
    }

    fn drain(&self) {
        self.end.notify_one();
    }

    fn upgrade(&self, binary: Option<PathBuf>) -> Result<String, String> {
        // No other change meanwhile: the new process reads the file by itself.
        let _changer = self.changer.lock();
        if self.draining.load(Ordering::Relaxed) {
            return Err(ChangeError::Draining.to_string());
        }
        let Successor { pid, version } = upgrade::hand_over(self, binary).map_err(|error| error.to_string())?;
        let left = self.totals().client_open;
        self.end.notify_one();
        let own = process::id();
        Ok(format!("pid {pid} (cmim {version}) has taken over; pid {own} finishes its {left} client connections"))
    }
}

/// Adds what the kernel has carried so far to its clients' figures.
fn add_spliced(connections: &mut [Connection], splices: &[Splice]) {
    if splices.is_empty() {
        return;
    }
    let mut clients: HashMap<&str, (u64, u64)> = HashMap::new();
    for splice in splices {
        let bytes = splice.bytes + splice.relayed;
        clients.entry(&splice.from).or_default().0 += bytes;
        clients.entry(&splice.to).or_default().1 += bytes;
    }
    for connection in connections {
        if let Some((read, written)) = clients.get(connection.address.as_str()) {
            connection.bytes_in += read;
            connection.bytes_out += written;
        }
    }
}

/// A tier's figures as the control socket tells them.
fn tier(figures: Figures) -> BufferTier {
    BufferTier {
        used: figures.used,
        size: figures.size,
        replies: figures.contents,
        spilled_total: figures.spilled_total,
        refused_total: figures.refused_total,
        written_total: figures.written_total,
        written_per_day: figures.written_per_day,
        degraded: figures.degraded,
    }
}
