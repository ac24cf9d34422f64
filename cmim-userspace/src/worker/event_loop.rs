//! One worker: a thread with an event loop that owns its listening sockets and connections.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_local;

use super::accept::{Admission, Door, OpenHere, accept};
use super::device::Live;
use super::parking::Parking;
use super::yielding;
use crate::buffer::{BufferPool, Store};
use crate::client::Entrance;
use crate::config::model::ListenAddress;
use crate::exchange::{Current, Drain, Site, Trains};
use crate::kernel::{LocalLane, Splicer, WorkerLoad};
use crate::lane::Rules;
use crate::lane::pipe::PipePool;
use crate::net::Entry;
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
    /// Another process accepts; connections end behind their next reply.
    Retiring,
    /// No new connections; those that are open end behind their present requests.
    Draining,
    /// The grace is over.
    Stopped,
}

/// Listening sockets of one worker, each with its address as the configuration has it.
pub(super) type Sockets = Vec<(ListenAddress, TcpListener)>;

/// What a worker is made of; everything in it can move to the worker's thread.
pub(super) struct Crew {
    pub worker: usize,
    pub counters: Arc<Counters>,
    pub store: Arc<Store>,
    pub roll: Arc<Roll>,
    pub admission: Arc<Admission>,
    /// Where the worker tells the kernel how many connections it has.
    pub load: WorkerLoad,
    pub first: Turn,
    pub turns: mpsc::UnboundedReceiver<Turn>,
    /// Where the sockmap lane is to be had.
    pub splicer: Option<Splicer>,
    /// The way to servers on this host.
    pub local: LocalLane,
    pub phase: watch::Receiver<Phase>,
}

/// A configuration that a worker takes over.
pub(super) struct Turn {
    pub live: Live,
    pub log: LogWriter,
    /// Of addresses that are new.
    pub sockets: Sockets,
    /// Told once it is in force.
    pub done: oneshot::Sender<()>,
}

fn runtime() -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().on_thread_park(yielding::before_sleep);
    builder.build_local(LocalOptions::default())
}

/// Starts a worker's thread.
pub(super) fn start(crew: Crew) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("cmim-worker-{}", crew.worker)).spawn(move || {
        let worker = crew.worker;
        let lived = runtime().and_then(|runtime| {
            let lived = runtime.block_on(live(crew));
            // Connections that outlived the grace end with their tasks.
            runtime.shutdown_background();
            lived
        });
        if let Err(error) = lived {
            tracing::error!(worker, "cannot start an event loop: {error}");
        }
    })
}

async fn live(crew: Crew) -> io::Result<()> {
    let idle_watch = Arc::new(IdleWatch::default());
    let Crew { worker, counters, store, roll, admission, load, first, mut turns, splicer, local, mut phase } = crew;
    let ground = Ground {
        worker,
        counters,
        store,
        buffers: Rc::default(),
        pipes: Rc::new(PipePool::new(first.live.config.kernel.splice_window)),
        splicer,
        local,
        idle_watch: Arc::clone(&idle_watch),
    };
    let here = Rc::new(OpenHere::new(load.clone()));
    let Turn { live, log, sockets, done } = first;
    let current = Rc::new(Current::new(ground.site(live, log)));
    let parking = Parking::open(&current)?;
    let mut doors = Doors {
        current: Rc::clone(&current),
        admission,
        roll,
        parking: Rc::clone(&parking),
        here: Rc::clone(&here),
        open: Vec::new(),
    };
    doors.open(sockets);
    // Nobody waits where the answer came too late.
    let _: Result<(), ()> = done.send(());
    spawn_local(keep_idle(Rc::clone(&current), idle_watch));
    spawn_local(forget(load));

    let retiring = loop {
        tokio::select! {
            biased;
            // An error says that the main thread is gone, which ends this one too.
            told = phase.wait_for(|phase| *phase >= Phase::Retiring) => match told {
                Ok(phase) => break *phase == Phase::Retiring,
                Err(_) => return Ok(()),
            },
            Some(Turn { live, log, sockets, done }) = turns.recv() => {
                // First: who waits before a door that goes comes in as long as it has a listener.
                doors.close(|address| !live.has_listener(address)).await;
                current.replace(ground.site(live, log));
                parking.wake_strangers(&current.site());
                doors.rename();
                doors.open(sockets);
                let _: Result<(), ()> = done.send(());
            }
        }
    };
    // A change that comes too late is answered by the end of the channel.
    drop(turns);
    doors.close(|_| true).await;
    current.drain(retiring);
    if !retiring {
        parking.wake_all();
    }
    tokio::select! {
        () = here.none_left() => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
    }
    Ok(())
}

/// What a worker has whatever the configuration.
struct Ground {
    worker: usize,
    counters: Arc<Counters>,
    store: Arc<Store>,
    buffers: Rc<BufferPool>,
    pipes: Rc<PipePool>,
    splicer: Option<Splicer>,
    local: LocalLane,
    idle_watch: Arc<IdleWatch>,
}

impl Ground {
    fn site(&self, live: Live, log: LogWriter) -> Site {
        let kernel = &live.config.kernel;
        self.pipes.set_capacity(kernel.splice_window);
        let lanes = Rules { mode: kernel.splice, min: kernel.splice_min, sockmap: self.splicer.is_some() };
        Site {
            worker: self.worker,
            config: live.config,
            upstreams: live.upstreams,
            counters: Arc::clone(&self.counters),
            buffers: Rc::clone(&self.buffers),
            pipes: Rc::clone(&self.pipes),
            lanes,
            splicer: self.splicer.clone(),
            local: self.local.clone(),
            store: Arc::clone(&self.store),
            log,
            idle_watch: Waker::from(Arc::clone(&self.idle_watch)),
            drain: Drain::default(),
            trains: Trains::default(),
        }
    }
}

/// The worker's listening sockets.
struct Doors {
    current: Rc<Current>,
    admission: Arc<Admission>,
    roll: Arc<Roll>,
    parking: Rc<Parking>,
    here: Rc<OpenHere>,
    open: Vec<OpenDoor>,
}

struct OpenDoor {
    address: ListenAddress,
    /// By which clients come in from now on.
    entrance: Rc<RefCell<Rc<Entrance>>>,
    closing: Rc<Notify>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Doors {
    fn open(&mut self, sockets: Sockets) {
        let site = self.current.site();
        for (address, socket) in sockets {
            let Some(listener) = site.listener(address) else { continue };
            let name: Arc<str> = Arc::from(listener.name.as_str());
            let socket = match Entry::watch(socket) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::error!(listener = %name, "cannot watch the listening socket: {error}");
                    continue;
                }
            };
            let closing = Rc::new(Notify::new());
            let entrance = Entrance { address, name, roll: Arc::clone(&self.roll) };
            let entrance = Rc::new(RefCell::new(Rc::new(entrance)));
            let door = Door {
                entrance: Rc::clone(&entrance),
                admission: Arc::clone(&self.admission),
                parking: Rc::clone(&self.parking),
                here: Rc::clone(&self.here),
                closing: Rc::clone(&closing),
            };
            let accepting = spawn_local(accept(Rc::clone(&self.current), door, socket));
            self.open.push(OpenDoor { address, entrance, closing, accepting });
        }
    }

    /// A listener may keep its address under another name: who comes from now on is listed under that one.
    fn rename(&self) {
        let site = self.current.site();
        for OpenDoor { address, entrance, .. } in &self.open {
            let Some(listener) = site.listener(*address) else { continue };
            if *entrance.borrow().name != *listener.name {
                let name = Arc::from(listener.name.as_str());
                *entrance.borrow_mut() = Rc::new(Entrance { address: *address, name, roll: Arc::clone(&self.roll) });
            }
        }
    }

    /// Stops accepting at these addresses. Their connections end behind their present requests.
    async fn close(&mut self, goes: impl Fn(ListenAddress) -> bool) {
        for OpenDoor { closing, accepting, .. } in self.open.extract_if(.., |door| goes(door.address)) {
            closing.notify_one();
            // A task that panicked has said so already.
            let _: Result<(), tokio::task::JoinError> = accepting.await;
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
async fn keep_idle(current: Rc<Current>, watch: Arc<IdleWatch>) {
    loop {
        // Either way there is something to look at; the timeout is for age.
        let _: Result<(), _> = tokio::time::timeout(SWEEP_EVERY, watch.0.notified()).await;
        let site = current.site();
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
