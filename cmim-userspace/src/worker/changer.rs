//! Changing the configuration of the running device, whole or not at all.
//!
//! Owns what a change goes through: the doorways, the access log, the workers' ends, the checks. What can be refused is
//! done first (addresses bound, log opened); what is done to the rest afterwards cannot fail.

use std::sync::Arc;

use cmim_common::local::LONGEST_HEAD;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::accept::Admission;
use super::device::{Daemon, Live};
use super::doorways::Fresh;
use super::event_loop::{Sockets, Turn};
use super::health;
use crate::config::model::{ServerAddress, Upstream};
use crate::config::{self, Config, ConfigErrors};
use crate::control::message::Reloaded;
use crate::exchange::upstream::SharedUpstream;
use crate::kernel::{KernelError, LocalLane};
use crate::net::{Inherited, ListenError};
use crate::observe::access_log::{AccessLog, AccessLogError, LogWriter};
use crate::upstream::Settings;

/// Why the configuration stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error("the daemon runs without a file (`cmim run --config FILE` has one to read again)")]
    NoFile,
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    #[error("{}", .0.clause())]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Server(#[from] config::ServerError),
    #[error("the device is draining")]
    Draining,
}

impl ChangeError {
    pub(super) fn lines(&self) -> Vec<String> {
        self.to_string().lines().map(str::to_owned).collect()
    }
}

/// What a change goes through.
#[derive(Debug)]
pub(super) struct Changer {
    admission: Arc<Admission>,
    workers: Vec<mpsc::UnboundedSender<Turn>>,
    /// `None` once the device has ended.
    pub log: Option<AccessLog>,
    /// Logs of earlier configurations that requests under way may still write to.
    earlier_logs: Vec<AccessLog>,
    checks: Vec<AbortHandle>,
}

/// Has the local lane lead to the servers of this configuration that are on this host.
pub(super) fn lead_to_servers(lane: &LocalLane, config: &Config) {
    if config.limits.request_head > LONGEST_HEAD as usize {
        tracing::info!("no local lane: limits.request_head is over {LONGEST_HEAD} bytes");
        lane.set_servers([]);
        return;
    }
    let servers = config.upstreams.iter().flat_map(|upstream| &upstream.servers);
    lane.set_servers(servers.filter_map(|server| match &server.address {
        ServerAddress::Tcp(address) => Some(*address),
        ServerAddress::Unix(_) => None,
    }));
}

impl Changer {
    /// For these workers; the log comes later.
    pub(super) fn new(admission: Arc<Admission>, workers: Vec<mpsc::UnboundedSender<Turn>>) -> Self {
        Self { admission, workers, log: None, earlier_logs: Vec::new(), checks: Vec::new() }
    }

    /// Reads the file again.
    pub(super) fn reload(&mut self, device: &Daemon) -> Result<Reloaded, ChangeError> {
        let source = device.source.as_ref().ok_or(ChangeError::NoFile)?;
        let file = source.file.display().to_string();
        let change = config::change(&device.live().config, source.load()?);
        // Also where nothing differs: the host may allow more than it did.
        let incomplete = self.take_over(device, change.config)?;
        let reloaded = Reloaded { file, applied: change.applied, restart: change.restart, incomplete };
        tracing::info!("{}", reloaded.lines().join("; "));
        Ok(reloaded)
    }

    /// Puts `config` in force; keys that are fixed at the start have their old values in it. What comes back is what the
    /// kernel part could not do, one clause each.
    pub(super) fn take_over(&mut self, device: &Daemon, config: Config) -> Result<Vec<String>, ChangeError> {
        let old = device.live();
        let config = Arc::new(config);
        let log =
            (old.config.access_log != config.access_log).then(|| AccessLog::open(&config.access_log)).transpose()?;
        let (sockets, incomplete) = Self::open_doors(device, &old, &config)?;
        if let Some(log) = log {
            self.earlier_logs.extend(self.log.replace(log));
        }
        self.earlier_logs.retain(AccessLog::has_writers);
        self.admission.set_limits(&config.limits);
        let upstreams = config.upstreams.iter().map(|model| upstream(&old, &config, model)).collect();
        let live = Live { config, upstreams };
        self.hand_out(device, &live, sockets);
        *device.live.lock() = live.clone();
        self.check(&live);
        let is_gone = |upstream: &&Arc<SharedUpstream>| !live.upstreams.iter().any(|other| other.name == upstream.name);
        old.upstreams.iter().filter(is_gone).for_each(|upstream| upstream.retire());
        Ok(incomplete)
    }

    /// Listens where the new configuration wants it beyond the old one, in the kernel part as well.
    fn open_doors(device: &Daemon, old: &Live, config: &Config) -> Result<(Vec<Sockets>, Vec<String>), ChangeError> {
        let mut doorways = device.doorways.lock();
        let fresh = doorways.bind(config, &mut Inherited::default())?;
        let listenings = doorways.listenings(config, &fresh);
        let mut kernel = device.kernel.lock();
        let mut incomplete = Vec::new();
        // Before the doors open: no connection passes the guard by.
        if let Err(error) = kernel.set_listeners(&listenings) {
            incomplete.push(error.clause());
        }
        let opened = fresh.listen().map_err(ChangeError::from).and_then(|listened| {
            kernel.open(&listened.open_sockets(), &listened.listenings(&listenings))?;
            Ok(listened)
        });
        let listened = match opened {
            Ok(listened) => listened,
            Err(error) => {
                // What they were before; the kernel took that once already.
                let before = doorways.listenings(&old.config, &Fresh::default());
                let _: Result<(), KernelError> = kernel.set_listeners(&before);
                kernel.restore(&doorways.open_sockets());
                return Err(error);
            }
        };
        if let Err(error) = kernel.set_limits(&config.kernel) {
            incomplete.push(error.clause());
        }
        lead_to_servers(&kernel.local_lane(), config);
        // Also where they are the same: one that could not be guarded is tried again.
        kernel.set_interfaces(&config.kernel.interfaces);
        *doorways = doorways.with(config, &listened);
        Ok((listened.by_worker(config.daemon.workers), incomplete))
    }

    /// Returns once every worker has it in force.
    fn hand_out(&self, device: &Daemon, live: &Live, sockets: Vec<Sockets>) {
        let mut answers = Vec::with_capacity(self.workers.len());
        for ((worker, counters), sockets) in self.workers.iter().zip(&device.counters).zip(sockets) {
            let (done, answer) = oneshot::channel();
            let log = self.log.as_ref().map_or_else(LogWriter::off, |log| log.writer(Arc::clone(counters)));
            // A worker that has ended needs no configuration.
            if worker.send(Turn { live: live.clone(), log, sockets, done }).is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // Not answered: it began to drain meanwhile.
            let _: Result<(), oneshot::error::RecvError> = answer.blocking_recv();
        }
    }

    /// Checks the servers as this configuration wants it, and no longer as an earlier one did. Needs a tokio runtime.
    pub(super) fn check(&mut self, live: &Live) {
        self.checks.drain(..).for_each(|check| check.abort());
        let check = |upstream: &Arc<SharedUpstream>| {
            let checking = health::check(Arc::clone(upstream), Arc::clone(&live.config));
            Handle::current().spawn(checking).abort_handle()
        };
        self.checks = live.upstreams.iter().map(check).collect();
    }

    /// Opens the access log's file anew, as after a rotation.
    pub(super) fn reopen_log(&self) -> Result<(), AccessLogError> {
        self.log.as_ref().map_or(Ok(()), AccessLog::reopen)
    }

    /// Writes what is left of the access logs; for the end.
    pub(super) fn close_logs(&mut self) {
        self.earlier_logs.clear();
        self.log = None;
    }
}

/// An upstream of the new configuration, with the state of the old one's of the same name.
fn upstream(old: &Live, config: &Config, model: &Upstream) -> Arc<SharedUpstream> {
    let settings = settings(config, model);
    let earlier = old.upstreams.iter().find(|upstream| *upstream.name == *model.name);
    let keep_alive = old.config.timeouts.server_keep_alive == config.timeouts.server_keep_alive;
    match earlier {
        Some(earlier) if keep_alive && earlier.model == *model => Arc::clone(earlier),
        Some(earlier) => earlier.reconfigured(&settings),
        None => SharedUpstream::new(&settings),
    }
}

/// What an upstream of this configuration is made of.
pub(super) fn settings<'a>(config: &Config, upstream: &'a Upstream) -> Settings<'a> {
    let seed = u64::from(std::process::id());
    Settings { upstream, server_keep_alive: config.timeouts.server_keep_alive, seed }
}
