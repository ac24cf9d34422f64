//! The daemon's start and end.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::accept::Admission;
use super::device::Daemon;
use super::event_loop::{self, Crew, Phase};
use super::health;
use super::privileges::{self, User, UserError};
use crate::buffer::{BufferError, Store};
use crate::config::Config;
use crate::config::model::Listener;
use crate::control::{self, ControlError, ControlSocket, Device};
use crate::exchange::upstream::SharedUpstream;
use crate::kernel::{self, KernelError, KernelPart, Listening, OpenSockets};
use crate::net::{self, Bound, ListenError};
use crate::observe::access_log::{AccessLog, AccessLogError};
use crate::observe::admin::{self, AdminError};
use crate::observe::counters::Counters;
use crate::observe::notify;
use crate::observe::roll::Roll;
use crate::upstream::Settings;

/// How often the end of the workers is looked for while they drain.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// An interface that appears is guarded this much later at most.
const LOOK_FOR_INTERFACES_EVERY: Duration = Duration::from_secs(1);

/// Why the daemon did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    #[error(transparent)]
    Buffer(#[from] BufferError),
    #[error("{}", .0.clause())]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the device until it is told to end and has drained. `config_path`: the file that the configuration came from.
pub fn run(config: Config, config_path: Option<PathBuf>) -> Result<(), RunError> {
    privileges::raise_descriptor_limit();
    // First of all: whoever sees the sockets may send a signal already.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::catch()?
    };
    let prepared = Prepared::new(Arc::new(config))?;
    if let Some(path) = config_path {
        tracing::info!("configuration: {}", path.display());
    }
    prepared.live(&runtime, signals)?;
    // Probes and answers under way end here; the sockets and pins went with their owners.
    runtime.shutdown_background();
    Ok(())
}

/// The signals that the daemon hears.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on they do not kill the process.
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Sockets of one worker, each with its listener.
type Sockets = Vec<(Arc<Listener>, TcpListener)>;

/// Everything that can fail at the start has succeeded.
struct Prepared {
    config: Arc<Config>,
    sockets: Vec<Sockets>,
    control: ControlSocket,
    admin: Option<TcpListener>,
    log: AccessLog,
    store: Arc<Store>,
    kernel: KernelPart,
}

impl Prepared {
    fn new(config: Arc<Config>) -> Result<Self, RunError> {
        let user = config.daemon.user.as_deref().map(User::find).transpose()?.flatten();
        let mut doors = Vec::new();
        let mut addresses = Vec::new();
        for (id, listener) in (0..).zip(&config.listeners) {
            let listener = Arc::new(listener.clone());
            for &address in &listener.address {
                let bound = net::bind(&listener.name, address, config.daemon.workers)?;
                addresses.push(Listening { id, name: listener.name.clone(), address: bound.address() });
                doors.push((Arc::clone(&listener), bound));
            }
        }
        let admin = config.daemon.metrics_address.map(admin::bind).transpose()?;
        let log = AccessLog::open(&config.access_log)?;
        // Before the doors open: no connection passes the guard by.
        let mut kernel = kernel::start(&config.kernel, &addresses, config.daemon.workers)?;
        let sockets = listen(doors, config.daemon.workers)?;
        kernel.open(&open_sockets(&addresses, &sockets), &addresses)?;
        // Last: whoever finds it finds the doors open.
        let control = control::bind(&config.daemon.control_socket)?;
        if let Some(user) = user {
            kernel.hand_to(user.uid, user.gid)?;
            control.hand_to(user.uid, user.gid)?;
            user.become_it()?;
            tracing::info!("running as {}", user.name);
        }
        // As the user who has to open the tiers' files again when one fails.
        let store = Store::open(&config.buffer)?;
        Ok(Self { config, sockets, control, admin, log, store, kernel })
    }

    fn live(self, runtime: &Runtime, signals: Signals) -> Result<(), RunError> {
        let Self { config, sockets, control, admin, log, store, kernel } = self;
        let device = Arc::new(device(&config, store, kernel));
        let (phase, follow) = watch::channel(Phase::Running);
        let admission = Admission::new(&config.limits);
        let mut workers = Vec::with_capacity(sockets.len());
        for (worker, sockets) in sockets.into_iter().enumerate() {
            let counters = Arc::clone(&device.counters[worker]);
            workers.push(event_loop::start(Crew {
                worker,
                config: Arc::clone(&config),
                upstreams: device.upstreams.clone(),
                log: log.writer(Arc::clone(&counters)),
                counters,
                store: Arc::clone(&device.store),
                roll: Arc::clone(&device.rolls[worker]),
                admission: Arc::clone(&admission),
                load: device.kernel.lock().load_of(worker),
                sockets,
                phase: follow.clone(),
            })?);
        }
        let attendance = Attendance { device, phase, log, workers };
        runtime.block_on(attendance.attend(control, admin, signals));
        Ok(())
    }
}

/// Opens the doors, and gives each worker its socket of each.
fn listen(doors: Vec<(Arc<Listener>, Bound)>, workers: usize) -> Result<Vec<Sockets>, ListenError> {
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
    for (listener, bound) in doors {
        let address = bound.address();
        for (worker, socket) in sockets.iter_mut().zip(bound.listen()?) {
            worker.push((Arc::clone(&listener), socket));
        }
        tracing::info!(listener = %listener.name, "listening on {address}");
    }
    Ok(sockets)
}

/// The sockets by address; each worker has one of each, in the same order.
fn open_sockets<'a>(addresses: &[Listening], sockets: &'a [Sockets]) -> Vec<OpenSockets<'a>> {
    let all = addresses.iter().enumerate().map(|(position, listening)| {
        let of_worker = |sockets: &'a Sockets| sockets.get(position).map(|(_, socket)| socket.as_fd());
        OpenSockets { address: listening.address, sockets: sockets.iter().filter_map(of_worker).collect() }
    });
    all.collect()
}

fn device(config: &Arc<Config>, store: Arc<Store>, kernel: KernelPart) -> Daemon {
    let workers = config.daemon.workers;
    let seed = u64::from(std::process::id());
    let upstreams = config.upstreams.iter().map(|upstream| {
        SharedUpstream::new(&Settings { upstream, server_keep_alive: config.timeouts.server_keep_alive, seed })
    });
    Daemon {
        config: Arc::clone(config),
        counters: (0..workers).map(|_| Arc::new(Counters::default())).collect(),
        rolls: (0..workers).map(|_| Arc::new(Roll::default())).collect(),
        upstreams: upstreams.collect(),
        store,
        kernel: Mutex::new(kernel),
        started: Instant::now(),
        draining: AtomicBool::new(false),
    }
}

/// The main thread's work while the device runs.
struct Attendance {
    device: Arc<Daemon>,
    phase: watch::Sender<Phase>,
    log: AccessLog,
    workers: Vec<JoinHandle<()>>,
}

impl Attendance {
    async fn attend(self, control: ControlSocket, admin: Option<TcpListener>, signals: Signals) {
        let Signals { mut terminate, mut interrupt, hangup } = signals;
        let device: Arc<dyn Device> = Arc::clone(&self.device) as Arc<dyn Device>;
        let answering = tokio::spawn(control::serve(control, Arc::clone(&device)));
        if let Some(admin) = admin {
            tokio::spawn(async move {
                if let Err(error) = admin::serve(admin, device).await {
                    tracing::error!("{error}");
                }
            });
        }
        if let Some(log) = self.device.kernel.lock().take_log() {
            tokio::spawn(async move {
                if let Err(error) = log.forward().await {
                    tracing::warn!("the BPF programs' log ended: {error}");
                }
            });
        }
        for upstream in &self.device.upstreams {
            tokio::spawn(health::probe(Arc::clone(upstream), Arc::clone(&self.device.config)));
        }
        notify::ready();
        tokio::select! {
            () = self.keep(hangup) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify::stopping();
        self.device.draining.store(true, Ordering::Relaxed);
        let grace = self.device.config.daemon.shutdown_grace;
        tracing::info!("draining for at most {} s; a second signal ends at once", grace.as_secs());
        // A receiver is gone only where its worker is.
        self.phase.send_replace(Phase::Draining);
        tokio::select! {
            () = self.workers_ended() => {}
            () = tokio::time::sleep(grace) => tracing::warn!("the grace is over; closing what is still open"),
            _ = terminate.recv() => tracing::warn!("closing what is still open"),
            _ = interrupt.recv() => tracing::warn!("closing what is still open"),
        }
        self.phase.send_replace(Phase::Stopped);
        self.workers_ended().await;
        answering.abort();
        tracing::info!("ended");
    }

    /// Reopens the access log at SIGHUP and tells systemd that the device is alive; never returns.
    async fn keep(&self, mut hangup: Signal) {
        let mut watchdog = notify::watchdog_interval().map(tokio::time::interval);
        let mut interfaces = (!self.device.config.kernel.interfaces.is_empty())
            .then(|| tokio::time::interval(LOOK_FOR_INTERFACES_EVERY));
        loop {
            tokio::select! {
                _ = hangup.recv() => match self.log.reopen() {
                    Ok(()) => tracing::info!("SIGHUP: access log reopened"),
                    Err(error) => tracing::error!("{error}"),
                },
                () = tick(&mut watchdog) => notify::watchdog(),
                () = tick(&mut interfaces) => self.device.kernel.lock().look_for_interfaces(),
            }
        }
    }

    async fn workers_ended(&self) {
        while !self.workers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
