//! One worker: a thread with an event loop that owns its listening sockets and connections.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;

use super::accept::{Admission, Door, OpenHere, accept};
use crate::buffer::{BufferPool, Store};
use crate::config::model::{Config, Listener};
use crate::exchange::upstream::SharedUpstream;
use crate::exchange::{Drain, Site};
use crate::kernel::WorkerLoad;
use crate::lane::Rules;
use crate::lane::pipe::PipePool;
use crate::observe::access_log::LogWriter;
use crate::observe::counters::Counters;
use crate::observe::roll::Roll;

/// Idle server connections are looked at this often for their age; one that ends is noticed at once.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A handshake that is not done in this time is one of few.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// How far the device's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Running,
    /// No new connections; those that are open end behind their present requests.
    Draining,
    /// The grace is over.
    Stopped,
}

/// What a worker is made of; everything in it can move to the worker's thread.
pub(super) struct Crew {
    pub worker: usize,
    pub config: Arc<Config>,
    pub upstreams: Vec<Arc<SharedUpstream>>,
    pub counters: Arc<Counters>,
    pub store: Arc<Store>,
    pub log: LogWriter,
    pub roll: Arc<Roll>,
    pub admission: Arc<Admission>,
    /// Listening sockets, each with the listener that it belongs to.
    pub sockets: Vec<(Arc<Listener>, TcpListener)>,
    /// Where the worker tells the kernel how many connections it has.
    pub load: WorkerLoad,
    pub phase: watch::Receiver<Phase>,
}

/// Starts a worker's thread.
pub(super) fn start(crew: Crew) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("cmim-worker-{}", crew.worker)).spawn(move || {
        let runtime = match LocalRuntime::new() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(worker = crew.worker, "cannot start an event loop: {error}");
                return;
            }
        };
        runtime.block_on(live(crew));
        // Connections that outlived the grace end with their tasks.
        runtime.shutdown_background();
    })
}

async fn live(crew: Crew) {
    let idle_watch = Arc::new(IdleWatch::default());
    let kernel = &crew.config.kernel;
    let lanes = Rules { mode: kernel.splice, min: kernel.splice_min, sockmap: false };
    let pipes = PipePool::new(kernel.splice_window);
    let site = Rc::new(Site {
        worker: crew.worker,
        config: crew.config,
        upstreams: crew.upstreams,
        counters: crew.counters,
        buffers: BufferPool::default(),
        pipes,
        lanes,
        store: crew.store,
        log: crew.log,
        idle_watch: Waker::from(Arc::clone(&idle_watch)),
        drain: Drain::default(),
    });
    let here = Rc::new(OpenHere::new(crew.load.clone()));
    let mut accepting = Vec::new();
    for (listener, socket) in crew.sockets {
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %listener.name, "cannot watch the listening socket: {error}");
                continue;
            }
        };
        let door = Door {
            name: Arc::from(listener.name.as_str()),
            listener,
            admission: Arc::clone(&crew.admission),
            roll: Arc::clone(&crew.roll),
        };
        accepting.push(spawn_local(accept(Rc::clone(&site), door, socket, Rc::clone(&here))));
    }
    spawn_local(keep_idle(Rc::clone(&site), idle_watch));
    spawn_local(forget(crew.load));

    let mut phase = crew.phase;
    // An error says that the main thread is gone, which ends this one too.
    if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_ok() {
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        site.drain.begin();
        tokio::select! {
            () = here.none_left() => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
        }
    }
}

/// Forgets connections that the kernel chose this worker for and that never came.
async fn forget(load: WorkerLoad) {
    let mut each = tokio::time::interval(FORGET_EVERY);
    loop {
        each.tick().await;
        load.forget();
    }
}

/// Takes idle server connections that ended or grew old out of their pools.
async fn keep_idle(site: Rc<Site>, watch: Arc<IdleWatch>) {
    loop {
        // Either way there is something to look at; the timeout is for age.
        let _: Result<(), _> = tokio::time::timeout(SWEEP_EVERY, watch.0.notified()).await;
        for upstream in &site.upstreams {
            upstream.sweep(&site);
        }
    }
}

/// Wakes [`keep_idle`] when an idle connection turns readable.
#[derive(Debug, Default)]
struct IdleWatch(Notify);

impl Wake for IdleWatch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}
