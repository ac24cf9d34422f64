//! An upstream as all workers share it: the pure state behind a lock, the queue's waiting, the idle connections.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::progress::Progress;
use super::server::ServerSocket;
use super::site::Site;
use crate::config::model;
use crate::job::{State, Ticket};
use crate::upstream::{Acquired, Ask, Ending, Endpoint, Grant, Idle, Role, Server, ServerId, Settings, Upstream};

type Servers = Upstream<ServerSocket, oneshot::Sender<Place>>;

/// One upstream as one configuration has it. Its state goes on from one configuration to the next, in which the upstream
/// has the same name. The lock is held for single steps of the pure state only, never across a wait or a system call.
#[derive(Debug)]
pub struct SharedUpstream {
    pub model: model::Upstream,
    pub name: Arc<str>,
    state: Arc<Mutex<Servers>>,
}

/// A place at a server, with an idle connection to it where there was one.
#[derive(Debug)]
pub struct Place {
    pub lease: Lease,
    pub endpoint: Arc<Endpoint>,
    pub idle: Option<Idle<ServerSocket>>,
    /// When it was got.
    pub since: Instant,
}

impl SharedUpstream {
    pub fn new(settings: &Settings<'_>) -> Arc<Self> {
        Self::of(settings, Arc::new(Mutex::new(Upstream::new(settings))))
    }

    /// The same upstream as a newer configuration has it. Requests that came by the older one share its servers.
    pub fn reconfigured(&self, settings: &Settings<'_>) -> Arc<Self> {
        let closed = self.state.lock().reconfigure(settings);
        // Closed outside the lock: closing is a system call.
        drop(closed);
        let new = Self::of(settings, Arc::clone(&self.state));
        // A server was added, or may take more.
        new.serve_queue();
        new
    }

    /// No configuration has the upstream any more: the requests that it has are served, and nothing is pooled.
    pub fn retire(&self) {
        let closed = self.state.lock().retire();
        drop(closed);
    }

    fn of(settings: &Settings<'_>, state: Arc<Mutex<Servers>>) -> Arc<Self> {
        let model = settings.upstream.clone();
        Arc::new(Self { name: Arc::from(model.name.as_str()), model, state })
    }

    /// A place at a server, waiting in the queue for it where all are busy.
    pub async fn acquire(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<Place, Failure> {
        let mut queued = None;
        let waiter = || {
            let (sender, receiver) = oneshot::channel();
            queued = Some(receiver);
            sender
        };
        // The guard must not live into the match's arms, where the queue is waited for.
        let acquired = self.state.lock().acquire(ask, now, waiter);
        match acquired {
            Acquired::Granted(grant) => Ok(self.place(grant, now)),
            Acquired::QueueFull => Err(Failure::QueueFull),
            Acquired::Queued(ticket) => {
                let receiver = queued.ok_or(Failure::QueueFull)?;
                progress.to(State::Queued);
                // Those who wait for one server leave room at others.
                self.serve_queue();
                self.wait(ticket, receiver).await
            }
        }
    }

    /// Pays for one retry out of the upstream's budget.
    pub fn spend_retry(&self) -> bool {
        let now = Instant::now();
        self.state.lock().spend_retry(now)
    }

    /// An idle connection to the server of a lease, for `worker`.
    pub fn idle(&self, id: ServerId, worker: usize) -> Option<Idle<ServerSocket>> {
        self.state.lock().idle(id, worker)
    }

    /// Where the server of a lease is.
    pub fn endpoint(&self, id: ServerId) -> Arc<Endpoint> {
        Arc::clone(&self.state.lock().server(id).endpoint)
    }

    /// Closes this upstream's idle connections that are too old, and those of this worker that ended. Called now and
    /// then; who waits for a server that is out gets it here once its pause is over.
    pub fn sweep(self: &Arc<Self>, site: &Site) {
        let (gone, waiting) = {
            let mut state = self.state.lock();
            let gone = state.sweep(site.worker, Instant::now(), |socket| !socket.stream.is_quiet(&site.idle_watch));
            (gone, state.queued() > 0)
        };
        drop(gone);
        if waiting {
            self.serve_queue();
        }
    }

    /// Shows each server to `see`, in order, at one instant.
    pub fn each_server(&self, see: impl FnMut(&Server<ServerSocket>)) {
        self.state.lock().servers().iter().filter(|server| !server.is_gone()).for_each(see);
    }

    /// The queue at this instant: how many wait, since when the first of them, and how many were refused.
    pub fn queue(&self) -> QueueFigures {
        let state = self.state.lock();
        QueueFigures { waiting: state.queued(), oldest: state.oldest_queued(), refused_total: state.refused_total }
    }

    /// Takes the server with this address out of the balance, or puts it back. False: there is none.
    pub fn set_draining(self: &Arc<Self>, address: &str, draining: bool) -> bool {
        // The guard ends with this line: closing is a system call, and the queue takes the lock itself.
        let idle = self.state.lock().set_draining(address, draining);
        if idle.is_none() {
            return false;
        }
        drop(idle);
        self.serve_queue();
        true
    }

    /// What an active check of a server found.
    pub fn checked(self: &Arc<Self>, endpoint: &Endpoint, well: bool) {
        // Under one lock: a reload in between could take the server's place away.
        let state = self.state.lock();
        let Some(id) = state.find(endpoint) else { return };
        self.change(state, id, |state| state.checked(id, well, Instant::now()));
        self.serve_queue();
    }

    async fn wait(self: &Arc<Self>, ticket: Ticket, receiver: oneshot::Receiver<Place>) -> Result<Place, Failure> {
        let waiting = Waiting { upstream: self, ticket };
        let place = tokio::time::timeout(self.model.queue_timeout, receiver).await;
        drop(waiting);
        match place {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Failure::QueueTimeout),
        }
    }

    fn place(self: &Arc<Self>, grant: Grant<ServerSocket>, since: Instant) -> Place {
        let Grant { server, role, endpoint, idle } = grant;
        Place { lease: Lease { upstream: Some(Arc::clone(self)), server, role }, endpoint, idle, since }
    }

    fn release(self: &Arc<Self>, server: ServerId, role: Role, ending: Ending<ServerSocket>, now: Instant) {
        let (surplus, waiting) = self.change(self.state.lock(), server, |state| {
            let surplus = state.release(server, role, ending, now);
            (surplus, state.queued() > 0)
        });
        // Closed outside the lock: closing is a system call.
        drop(surplus);
        if waiting {
            self.serve_queue();
        }
    }

    /// Does what may take a server out or bring it back, and logs it where it does.
    fn change<T>(&self, mut state: MutexGuard<'_, Servers>, id: ServerId, act: impl FnOnce(&mut Servers) -> T) -> T {
        let was_up = state.server(id).is_up();
        let done = act(&mut state);
        let server = state.server(id);
        let is_up = server.is_up();
        let turn = (is_up != was_up).then(|| (is_up, Arc::clone(&server.endpoint)));
        // Logged outside the lock: writing is a system call.
        drop(state);
        match turn {
            Some((true, server)) => tracing::info!(upstream = %self.name, server = %server.name, "the server is up"),
            Some((false, server)) => tracing::warn!(upstream = %self.name, server = %server.name, "the server is down"),
            None => {}
        }
        done
    }

    /// Hands free places to those who wait.
    fn serve_queue(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            let next = self.state.lock().next_waiting(now);
            let Some((waiter, grant)) = next else { return };
            // A waiter that has just given up hands its place back, which serves the queue again; hence outside the lock.
            drop(waiter.send(self.place(grant, now)));
        }
    }
}

/// A queue's figures at one instant.
#[derive(Debug, Clone, Copy)]
pub struct QueueFigures {
    pub waiting: usize,
    /// When the request that has waited longest came; `None`: none waits.
    pub oldest: Option<Instant>,
    pub refused_total: u64,
}

/// A place in the queue; given up when dropped.
struct Waiting<'a> {
    upstream: &'a Arc<SharedUpstream>,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.upstream.state.lock().cancel(self.ticket);
    }
}

/// A place at a server, counted in its `in_flight` until the lease ends. Dropped as it is, it says nothing about the
/// server.
#[derive(Debug)]
pub struct Lease {
    /// `None` once it has ended.
    upstream: Option<Arc<SharedUpstream>>,
    server: ServerId,
    role: Role,
}

impl Lease {
    pub fn server(&self) -> ServerId {
        self.server
    }

    pub fn is_probe(&self) -> bool {
        self.role == Role::Probe
    }

    /// The server sent a reply's head. However long its content takes, others need not wait for it to know that the
    /// server is back.
    pub fn heard(&mut self) {
        if !self.is_probe() {
            return;
        }
        self.role = Role::Usual;
        if let Some(upstream) = &self.upstream {
            let state = upstream.state.lock();
            upstream.change(state, self.server, |state| state.probe_heard(self.server, Instant::now()));
            upstream.serve_queue();
        }
    }

    /// The server answered, and its connection can take another request.
    pub fn reusable(mut self, site: &Site, socket: ServerSocket) {
        if !socket.stream.is_quiet(&site.idle_watch) {
            self.end(Ending::Answered);
            return;
        }
        let now = Instant::now();
        self.end_at(Ending::Reusable(Idle { connection: socket, worker: site.worker, since: now }), now);
    }

    /// The server answered, and its connection ends.
    pub fn answered(mut self) {
        self.end(Ending::Answered);
    }

    /// The connection could not be made, and that was known at once.
    pub fn refused(mut self) {
        self.end(Ending::Refused);
    }

    /// The connection was not made in time, or ended before a byte of a response.
    pub fn failed(mut self) {
        self.end(Ending::Failed);
    }

    fn end(&mut self, ending: Ending<ServerSocket>) {
        if self.upstream.is_some() {
            self.end_at(ending, Instant::now());
        }
    }

    fn end_at(&mut self, ending: Ending<ServerSocket>, now: Instant) {
        if let Some(upstream) = self.upstream.take() {
            upstream.release(self.server, self.role, ending, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end(Ending::Abandoned);
    }
}
