//! The daemon's start and end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::accept::Admission;
use super::changer::{self, Changer};
use super::device::{Daemon, Live};
use super::doorways::Doorways;
use super::event_loop::{self, Crew, Phase, Sockets, Turn};
use super::predecessor::{Predecessor, PredecessorError};
use super::privileges::{self, User, UserError};
use crate::buffer::{self, BufferError, Store};
use crate::config::{Config, Source};
use crate::control::{self, ControlError, ControlSocket, Device};
use crate::exchange::upstream::SharedUpstream;
use crate::kernel::{self, KernelError, KernelPart, Listening};
use crate::net::{Inherited, ListenError};
use crate::observe::access_log::{AccessLog, AccessLogError};
use crate::observe::admin::{self, AdminError};
use crate::observe::counters::Counters;
use crate::observe::notify;
use crate::observe::roll::Roll;

/// How often the end of the workers is looked for while they drain.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long answers on the control socket may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
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
    #[error(transparent)]
    Predecessor(#[from] PredecessorError),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the device until it is told to end and has drained. `source`: the file that the configuration came from.
pub fn run(config: Config, source: Option<Source>) -> Result<(), RunError> {
    let descriptors = privileges::raise_descriptor_limit();
    // First of all: whoever sees the sockets may send a signal already.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::catch()?
    };
    let (mut predecessor, inherited) = match Predecessor::meet()? {
        Some((predecessor, inherited)) => (Some(predecessor), inherited),
        None => (None, Inherited::of_service_manager().map_err(PredecessorError::ServiceManager)?),
    };
    let prepared = Prepared::new(Arc::new(config), inherited, predecessor.as_mut());
    let prepared = prepared.inspect_err(|error| {
        if let Some(predecessor) = &predecessor {
            predecessor.failed(error);
        }
    })?;
    if let Some(source) = &source {
        tracing::info!("configuration: {}", source.file.display());
    }
    let admission = Admission::new(&prepared.config.limits, descriptors);
    prepared.live(source, predecessor, &admission, &runtime, signals)?;
    // Checks and answers under way end here; the sockets and pins went with their owners.
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

/// Everything that can fail at the start has succeeded.
struct Prepared {
    config: Arc<Config>,
    doorways: Doorways,
    sockets: Vec<Sockets>,
    control: ControlSocket,
    admin: Option<TcpListener>,
    log: AccessLog,
    store: Arc<Store>,
    kernel: KernelPart,
    /// It was root and is somebody else now.
    gave_up_root: bool,
}

impl Prepared {
    /// `inherited`: listening sockets that need not be bound. `predecessor`: whose place this daemon takes.
    fn new(
        config: Arc<Config>,
        mut inherited: Inherited,
        mut predecessor: Option<&mut Predecessor>,
    ) -> Result<Self, RunError> {
        let user = config.daemon.user.as_deref().map(User::find).transpose()?.flatten();
        let fresh = Doorways::default().bind(&config, &mut inherited)?;
        let addresses = Doorways::default().listenings(&config, &fresh);
        let admin = admin(&config, predecessor.as_deref_mut())?;
        let log = AccessLog::open(&config.access_log)?;
        // Before the doors open: no connection passes the guard by.
        let mut kernel = match predecessor.as_deref_mut() {
            None => kernel::start(&config.kernel, &addresses, config.daemon.workers)?,
            Some(predecessor) => take_kernel_part(&config, &addresses, predecessor)?,
        };
        let listened = fresh.listen()?;
        kernel.open(&listened.open_sockets(), &addresses)?;
        let doorways = Doorways::default().with(&config, &listened);
        let sockets = listened.by_worker(config.daemon.workers);
        for address in inherited.left() {
            tracing::info!("{address} was passed to this process, and no listener has it: closed");
        }
        // Last: whoever finds it finds the doors open.
        let control = match predecessor {
            Some(_) => control::bind_beside(&config.daemon.control_socket)?,
            None => control::bind(&config.daemon.control_socket)?,
        };
        let made = buffer::make_directories(&config.buffer);
        let gave_up_root = user.is_some();
        if let Some(user) = user {
            kernel.hand_to(user.gid)?;
            control.hand_to(user.uid, user.gid)?;
            made.hand_to(user.uid, user.gid);
            log.hand_to(user.gid)?;
            user.become_it()?;
            tracing::info!("running as {}", user.name);
        }
        // As the user who has to open the tiers' files again when one fails.
        let store = Store::open(&config.buffer)?;
        Ok(Self { config, doorways, sockets, control, admin, log, store, kernel, gave_up_root })
    }

    fn live(
        self,
        source: Option<Source>,
        predecessor: Option<Predecessor>,
        admission: &Arc<Admission>,
        runtime: &Runtime,
        signals: Signals,
    ) -> Result<(), RunError> {
        let Self { config, doorways, sockets, control, admin, log, store, kernel, gave_up_root } = self;
        let lane = kernel.local_lane();
        changer::lead_to_servers(&lane, &config);
        let (turns, followed): (Vec<_>, Vec<_>) = sockets.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let workers = config.daemon.workers;
        let upstreams = config.upstreams.iter();
        let upstreams = upstreams.map(|upstream| SharedUpstream::new(&changer::settings(&config, upstream))).collect();
        let device = Arc::new(Daemon {
            live: Mutex::new(Live { config, upstreams }),
            counters: (0..workers).map(|_| Arc::new(Counters::default())).collect(),
            rolls: (0..workers).map(|_| Arc::new(Roll::default())).collect(),
            store,
            kernel: Mutex::new(kernel),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            source,
            doorways: Mutex::new(doorways),
            admin: admin.as_ref().map(TcpListener::try_clone).transpose()?,
            gave_up_root,
            end: Notify::new(),
            handed_over: AtomicBool::new(false),
            changer: Mutex::new(Changer::new(Arc::clone(admission), turns)),
        });
        let (phase, follow) = watch::channel(Phase::Running);
        let mut workers = Vec::with_capacity(sockets.len());
        let splicer = device.kernel.lock().splicer();
        for (worker, (sockets, turns)) in sockets.into_iter().zip(followed).enumerate() {
            let counters = Arc::clone(&device.counters[worker]);
            let log = log.writer(Arc::clone(&counters));
            // Nobody waits for the first one: the sockets listen already.
            let (done, _) = oneshot::channel();
            workers.push(event_loop::start(Crew {
                worker,
                counters,
                store: Arc::clone(&device.store),
                roll: Arc::clone(&device.rolls[worker]),
                admission: Arc::clone(admission),
                load: device.kernel.lock().load_of(worker),
                first: Turn { live: device.live(), log, sockets, done },
                turns,
                splicer: splicer.clone(),
                local: lane.clone(),
                phase: follow.clone(),
            })?);
        }
        device.changer.lock().log = Some(log);
        let attendance = Attendance { device, phase, workers };
        runtime.block_on(attendance.attend(control, admin, predecessor, signals))?;
        Ok(())
    }
}

/// The kernel part in the place of the old daemon's, with its deny list.
fn take_kernel_part(
    config: &Config,
    addresses: &[Listening],
    predecessor: &mut Predecessor,
) -> Result<KernelPart, RunError> {
    let mut released = Ok(());
    let release = || released = predecessor.release();
    let mut kernel = kernel::start_after(&config.kernel, addresses, config.daemon.workers, release)?;
    released?;
    for network in predecessor.denied() {
        if let Err(error) = kernel.deny(*network) {
            tracing::warn!("{network} is not denied any more: {}", error.clause());
        }
    }
    Ok(kernel)
}

/// The admin address, bound here or by the daemon before this one.
fn admin(config: &Config, predecessor: Option<&mut Predecessor>) -> Result<Option<TcpListener>, AdminError> {
    let Some(address) = config.daemon.metrics_address else { return Ok(None) };
    let inherited = predecessor.and_then(|predecessor| predecessor.admin(address));
    inherited.map_or_else(|| admin::bind(address), Ok).map(Some)
}

/// The main thread's work while the device runs.
struct Attendance {
    device: Arc<Daemon>,
    phase: watch::Sender<Phase>,
    workers: Vec<JoinHandle<()>>,
}

impl Attendance {
    async fn attend(
        self,
        mut control: ControlSocket,
        admin: Option<TcpListener>,
        predecessor: Option<Predecessor>,
        signals: Signals,
    ) -> Result<(), ControlError> {
        let Signals { mut terminate, mut interrupt, hangup } = signals;
        let device: Arc<dyn Device> = Arc::clone(&self.device) as Arc<dyn Device>;
        // A predecessor's place is taken last of all.
        control.take_place(&self.device.live().config.daemon.control_socket)?;
        let owed = control.answering();
        let answering = tokio::spawn(control::serve(control, Arc::clone(&device)));
        let admin = admin.map(|admin| tokio::spawn(serve_admin(admin, device)));
        if let Some(log) = self.device.kernel.lock().take_log() {
            tokio::spawn(async move {
                if let Err(error) = log.forward().await {
                    tracing::warn!("the BPF programs' log ended: {error}");
                }
            });
        }
        self.device.changer.lock().check(&self.device.live());
        if let Some(events) = self.device.kernel.lock().take_events() {
            tokio::spawn(async move {
                if let Err(error) = events.forward().await {
                    tracing::error!("the splices' news ended: {error}");
                }
            });
        }
        notify::ready();
        if let Some(predecessor) = predecessor {
            predecessor.ready();
            tracing::info!("taken over from the daemon before this one");
        }
        tokio::select! {
            () = self.keep(hangup) => {}
            () = self.device.end.notified() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.begin_end(admin.as_ref());
        tokio::select! {
            () = self.workers_ended() => {}
            () = tokio::time::sleep(self.grace()) => tracing::warn!("the grace is over; closing what is still open"),
            _ = terminate.recv() => tracing::warn!("closing what is still open"),
            _ = interrupt.recv() => tracing::warn!("closing what is still open"),
        }
        self.phase.send_replace(Phase::Stopped);
        self.workers_ended().await;
        // Whoever asked for this end is told so.
        let all_answered = async {
            while !owed.is_done() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let _: Result<(), _> = tokio::time::timeout(LAST_ANSWERS, all_answered).await;
        answering.abort();
        self.device.changer.lock().close_logs();
        tracing::info!("ended");
        Ok(())
    }

    fn grace(&self) -> Duration {
        self.device.live().config.daemon.shutdown_grace
    }

    /// Stops accepting, for good or because another process does.
    fn begin_end(&self, admin: Option<&tokio::task::JoinHandle<()>>) {
        let grace = self.grace().as_secs();
        self.device.draining.store(true, Ordering::Relaxed);
        let phase = if self.device.handed_over.load(Ordering::Relaxed) {
            tracing::info!("handed over; finishing for at most {grace} s, a signal ends at once");
            // The successor answers there from now on.
            admin.inspect(|admin| admin.abort());
            Phase::Retiring
        } else {
            notify::stopping();
            tracing::info!("draining for at most {grace} s; a second signal ends at once");
            Phase::Draining
        };
        // They would keep the doors open behind the workers' backs.
        *self.device.doorways.lock() = Doorways::default();
        // A receiver is gone only where its worker is.
        self.phase.send_replace(phase);
    }

    /// Hears SIGHUP and tells systemd that the device is alive; never returns.
    async fn keep(&self, mut hangup: Signal) {
        let mut watchdog = notify::watchdog_interval().map(tokio::time::interval);
        let mut interfaces = tokio::time::interval(LOOK_FOR_INTERFACES_EVERY);
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    let device = Arc::clone(&self.device);
                    // Host names are resolved, workers waited for: not on the thread that feeds the watchdog.
                    tokio::task::spawn_blocking(move || heed_hangup(&device));
                }
                () = tick(&mut watchdog) => notify::watchdog(),
                _ = interfaces.tick() => self.device.kernel.lock().look_for_interfaces(),
            }
        }
    }

    async fn workers_ended(&self) {
        while !self.workers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn serve_admin(socket: TcpListener, device: Arc<dyn Device>) {
    if let Err(error) = admin::serve(socket, device).await {
        tracing::error!("{error}");
    }
}

/// Opens the access log anew and reads the configuration again.
fn heed_hangup(device: &Daemon) {
    match device.changer.lock().reopen_log() {
        Ok(()) => tracing::info!("SIGHUP: access log reopened"),
        Err(error) => tracing::error!("{error}"),
    }
    if let Err(errors) = device.reload() {
        errors.iter().for_each(|error| tracing::error!("not reloaded: {error}"));
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
