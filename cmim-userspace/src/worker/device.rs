//! The running device as the control socket and the status page see it.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::buffer::{Figures, Store};
use crate::config::model::TierKind;
use crate::config::{self, Config};
use crate::control::Device;
use crate::control::message::{BufferTier, Buffers, Connection, Guard, Job, Queue, Server, Status};
use crate::exchange::upstream::SharedUpstream;
use crate::kernel::KernelPart;
use crate::observe::counters::{Counters, Totals, sum};
use crate::observe::roll::Roll;
use crate::stack::Seq;

/// Everything that can be told about the device.
#[derive(Debug)]
pub(super) struct Daemon {
    pub config: Arc<Config>,
    pub counters: Vec<Arc<Counters>>,
    pub rolls: Vec<Arc<Roll>>,
    pub upstreams: Vec<Arc<SharedUpstream>>,
    pub store: Arc<Store>,
    pub kernel: Mutex<KernelPart>,
    pub started: Instant,
    pub draining: AtomicBool,
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
        connections
    }

    fn servers(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for upstream in &self.upstreams {
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
        let named = self.upstreams.iter().find(|shared| *shared.name == *upstream);
        named.is_some_and(|shared| shared.set_draining(address, draining))
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
        self.upstreams.iter().map(queue).collect()
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

    fn config_toml(&self) -> String {
        config::to_toml(&self.config)
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
