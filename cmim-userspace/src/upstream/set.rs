//! An upstream: its servers, its queue, and the decision what a request gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Chooser;
use super::change;
use super::health::HealthState;
use super::pool::Idle;
use super::retry::RetryBudget;
use super::server::{Endpoint, Server, ServerId};
use crate::config::model;
use crate::job::{FairQueue, Ticket};

/// What an upstream is made of.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    pub upstream: &'a model::Upstream,
    pub server_keep_alive: Duration,
    /// Any number; makes random-two differ between runs.
    pub seed: u64,
}

/// What one request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The client connection, for fair turns.
    pub client: u64,
    /// The worker that will drive the exchange.
    pub worker: usize,
    /// For the hash rule.
    pub hash: u64,
    /// Servers that this request has tried already: the others come first.
    pub tried: &'a [ServerId],
    /// Servers that work for this client's other stacked requests, one entry a request: the others come first.
    pub working: &'a [ServerId],
    /// Without an idle connection: the last one turned out to be stale, or [`Upstream::idle`] is asked for one later.
    pub fresh: bool,
}

/// A place at a server, and an idle connection to it where there is one. Whoever holds it calls
/// [`Upstream::release`] exactly once.
#[derive(Debug)]
pub struct Grant<C> {
    pub server: ServerId,
    pub endpoint: Arc<Endpoint>,
    pub idle: Option<Idle<C>>,
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Acquired<C> {
    Granted(Grant<C>),
    /// The waiter was queued; its grant comes out of a later [`Upstream::release`].
    Queued(Ticket),
    /// `queue_limit` jobs wait already.
    QueueFull,
}

/// How a request's use of a server ended.
#[derive(Debug)]
pub enum Ending<C> {
    /// The server answered; its connection may be used again.
    Reusable(Idle<C>),
    /// The server answered; its connection is closed.
    Answered,
    /// The connection could not be made, or broke before any byte of a reply.
    Failed,
    /// It says nothing about the server: the client left, or an idle connection was stale.
    Abandoned,
}

/// The servers of one upstream. `C`: an idle connection. `W`: what wakes a queued request.
#[derive(Debug)]
pub struct Upstream<C, W> {
    pub(super) servers: Vec<Server<C>>,
    pub(super) chooser: Chooser,
    pub(super) queue: FairQueue<Waiter<W>>,
    retries: RetryBudget,
    /// Requests refused because the queue was full.
    pub refused_total: u64,
}

#[derive(Debug)]
pub(super) struct Waiter<W> {
    wake: W,
    since: Instant,
    worker: usize,
    hash: u64,
    fresh: bool,
}

impl<C, W> Upstream<C, W> {
    pub fn new(settings: &Settings<'_>) -> Self {
        let upstream = settings.upstream;
        let servers = upstream.servers.iter().map(|server| change::newcomer(server, settings)).collect();
        Self {
            servers,
            chooser: Chooser::new(upstream.balance, settings.seed),
            queue: FairQueue::new(upstream.queue_limit),
            retries: RetryBudget::default(),
            refused_total: 0,
        }
    }

    pub fn servers(&self) -> &[Server<C>] {
        &self.servers
    }

    pub fn server_ids(&self) -> impl Iterator<Item = ServerId> + use<C, W> {
        (0..self.servers.len()).map(ServerId)
    }

    pub fn server(&self, id: ServerId) -> &Server<C> {
        &self.servers[id.0]
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// When the request that has waited longest was queued.
    pub fn oldest_queued(&self) -> Option<Instant> {
        self.queue.iter().map(|waiter| waiter.since).min()
    }

    /// A place for a request now, or a place in the queue for `waiter`.
    pub fn acquire(&mut self, ask: &Ask<'_>, now: Instant, waiter: impl FnOnce() -> W) -> Acquired<C> {
        if ask.tried.is_empty() {
            self.retries.earn();
        }
        // Who waits already goes first; a newcomer would otherwise overtake it.
        if self.queue.is_empty()
            && let Some(grant) = self.grant(ask, now)
        {
            return Acquired::Granted(grant);
        }
        let waiter = Waiter { wake: waiter(), since: now, worker: ask.worker, hash: ask.hash, fresh: ask.fresh };
        match self.queue.push(ask.client, waiter) {
            Ok(ticket) => Acquired::Queued(ticket),
            Err(_) => {
                self.refused_total += 1;
                Acquired::QueueFull
            }
        }
    }

    /// An idle connection for a grant that came without one.
    pub fn idle(&mut self, id: ServerId, worker: usize) -> Option<Idle<C>> {
        self.servers[id.0].pool.take(worker)
    }

    /// Pays for one retry out of the budget.
    #[must_use]
    pub fn spend_retry(&mut self) -> bool {
        self.retries.spend()
    }

    /// Takes a waiting request out of the queue. False: its grant is on its way already.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queue.cancel(ticket).is_some()
    }

    /// Ends a grant. What comes back: the idle connection that has to be closed for this one, if any.
    pub fn release(&mut self, id: ServerId, ending: Ending<C>, now: Instant) -> Option<Idle<C>> {
        let server = &mut self.servers[id.0];
        debug_assert!(server.in_flight > 0, "released more often than granted");
        server.in_flight = server.in_flight.saturating_sub(1);
        match ending {
            Ending::Reusable(idle) => {
                server.health.succeeded(now);
                if server.draining { Some(idle) } else { server.pool.put(idle) }
            }
            Ending::Answered => {
                server.health.succeeded(now);
                None
            }
            Ending::Failed => {
                server.failures_total += 1;
                server.health.failed(now);
                None
            }
            Ending::Abandoned => {
                server.health.abandon_probe(now);
                None
            }
        }
    }

    /// The next waiting request that can go now, with its grant. Called after each release until it says `None`.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(W, Grant<C>)> {
        if self.queue.is_empty() || !self.can_grant(now) {
            return None;
        }
        let waiter = self.queue.pop()?;
        // A queued request takes whichever server has room, also one that it tried before.
        let ask =
            Ask { client: 0, worker: waiter.worker, hash: waiter.hash, tried: &[], working: &[], fresh: waiter.fresh };
        let grant = self.grant(&ask, now);
        debug_assert!(grant.is_some(), "can_grant and grant disagree");
        Some((waiter.wake, grant?))
    }

    /// Removes idle connections that are too old, and those of `worker` that `is_dead` says are gone.
    pub fn sweep(&mut self, worker: usize, now: Instant, mut is_dead: impl FnMut(&C) -> bool) -> Vec<Idle<C>> {
        self.servers.iter_mut().flat_map(|server| server.pool.sweep(worker, now, &mut is_dead)).collect()
    }

    /// An active probe of a server ended; one that has left meanwhile is nobody's.
    pub fn probed(&mut self, endpoint: &Endpoint, well: bool, now: Instant) {
        let present = |server: &&mut Server<C>| !server.leaving && *server.endpoint == *endpoint;
        let Some(Server { health, .. }) = self.servers.iter_mut().find(present) else { return };
        match (well, health.state()) {
            (true, _) => health.succeeded(now),
            (false, _) => {
                health.failed(now);
            }
        }
    }

    fn grant(&mut self, ask: &Ask<'_>, now: Instant) -> Option<Grant<C>> {
        let id = self.choose(ask, now)?;
        let server = &mut self.servers[id.0];
        if matches!(server.health(), HealthState::Down { .. }) {
            server.health.begin_probe();
        }
        server.in_flight += 1;
        server.requests_total += 1;
        let idle = if ask.fresh { None } else { server.pool.take(ask.worker) };
        Some(Grant { server: id, endpoint: Arc::clone(&server.endpoint), idle })
    }

    /// In order of preference: a server whose pause after a failure is over (one request finds out), servers that are
    /// up and not tried yet, any that are up; primaries before backups; and where all are out, any one as a probe.
    fn choose(&mut self, ask: &Ask<'_>, now: Instant) -> Option<ServerId> {
        if let Some(id) = self.due_probe(ask.tried, now) {
            return Some(id);
        }
        let mut circle = self.circle();
        let mut candidates = self.open(circle, ask.tried);
        if candidates.is_empty() && circle == Circle::Primaries && !ask.tried.is_empty() {
            // A backup that was not tried yet is better than a primary that just failed this request.
            let backups = self.open(Circle::Backups, ask.tried);
            if !backups.is_empty() {
                (circle, candidates) = (Circle::Backups, backups);
            }
        }
        if candidates.is_empty() {
            candidates = self.open(circle, &[]);
        }
        let working = |id: ServerId| ask.working.iter().filter(|&&other| other == id).count();
        let takes_part = |server: &Server<C>| circle.holds(server);
        self.chooser.pick(&self.servers, takes_part, candidates.as_slice(), working, ask.hash, now)
    }

    /// The servers of a circle that have room, without those that were tried.
    fn open(&self, circle: Circle, tried: &[ServerId]) -> Candidates {
        let mut open = Candidates::default();
        for (server, id) in self.servers.iter().zip(self.server_ids()) {
            if circle.holds(server) && server.has_room() && !tried.contains(&id) {
                open.push(id);
            }
        }
        open
    }

    /// Whether [`Self::choose`] would find a server for a request that has tried none.
    fn can_grant(&self, now: Instant) -> bool {
        let circle = self.circle();
        self.due_probe(&[], now).is_some()
            || self.servers.iter().any(|server| circle.holds(server) && server.has_room())
    }

    /// Which servers may take work now.
    fn circle(&self) -> Circle {
        let takes = |backup: bool| self.servers.iter().any(|server| server.backup == backup && server.takes_work());
        if takes(false) {
            Circle::Primaries
        } else if takes(true) {
            Circle::Backups
        } else if self.servers.iter().any(|server| !server.leaving && server.health() == HealthState::Probing) {
            Circle::Nobody
        } else {
            Circle::OneProbe
        }
    }

    fn due_probe(&self, tried: &[ServerId], now: Instant) -> Option<ServerId> {
        let due = |server: &Server<C>| !server.draining && server.has_room() && server.health.probe_is_due(now);
        self.server_ids().find(|&id| due(&self.servers[id.0]) && !tried.contains(&id))
    }
}

/// The servers among which the balance rule picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circle {
    Primaries,
    /// No primary is up.
    Backups,
    /// All are out: one request at a time finds out whether that is still so.
    OneProbe,
    /// All are out and a probe is on its way: the others wait for what it says.
    Nobody,
}

impl Circle {
    fn holds<C>(self, server: &Server<C>) -> bool {
        match self {
            Self::Primaries => !server.backup && server.takes_work(),
            Self::Backups => server.backup && server.takes_work(),
            Self::OneProbe => !server.draining,
            Self::Nobody => false,
        }
    }
}

impl<C> Server<C> {
    fn takes_work(&self) -> bool {
        !self.draining && self.health.is_up()
    }
}

/// The servers that may take a request, on the stack for the usual number of servers.
#[derive(Debug, Default)]
struct Candidates {
    few: [ServerId; Self::FEW],
    count: usize,
    many: Vec<ServerId>,
}

impl Candidates {
    const FEW: usize = 16;

    fn push(&mut self, id: ServerId) {
        if self.many.is_empty() && self.count < Self::FEW {
            self.few[self.count] = id;
            self.count += 1;
            return;
        }
        if self.many.is_empty() {
            self.many.extend_from_slice(&self.few[..self.count]);
        }
        self.many.push(id);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn as_slice(&self) -> &[ServerId] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}

#[cfg(test)]
pub(super) mod tests;
