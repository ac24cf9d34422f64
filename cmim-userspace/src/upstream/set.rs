//! An upstream: its servers, its queue, and the decision what a request gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Chooser;
use super::change;
use super::eligible::{Eligible, Wants, eligible, has_room};
use super::health::HealthState;
use super::pool::Idle;
use super::retry::RetryBudget;
use super::server::{Endpoint, Server, ServerId};
use crate::config::model;
use crate::job::{FairQueue, Ticket};

/// A request that was tried already waits this long for a server that is only busy; then it takes any.
const AVOID_FOR: Duration = Duration::from_secs(1);

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
    /// The request was sent before: it passes those who wait, is never refused for their number, and keeps off servers
    /// that others just saw fail.
    pub again: bool,
    /// The server that comes first where it takes requests.
    pub preferred: Option<ServerId>,
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
    pub role: Role,
    pub endpoint: Arc<Endpoint>,
    pub idle: Option<Idle<C>>,
}

/// What a request is to the server that it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Usual,
    /// The server is out, and this one finds out whether it still is.
    Probe,
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
    /// The connection could not be made.
    Refused,
    /// It broke, or nothing good came over it, before any byte of a response.
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
    again: bool,
    tried: Vec<ServerId>,
    fresh: bool,
}

impl Ask<'_> {
    fn wants(&self) -> Wants<'_> {
        Wants { again: self.again, preferred: self.preferred, tried: self.tried }
    }
}

impl<W> Waiter<W> {
    /// The servers that it still avoids.
    fn avoids(&self, now: Instant) -> &[ServerId] {
        let avoids = now.saturating_duration_since(self.since) < AVOID_FOR;
        if avoids { &self.tried } else { &[] }
    }

    fn wants(&self, now: Instant) -> Wants<'_> {
        Wants { again: self.again, preferred: None, tried: self.avoids(now) }
    }
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
        if !ask.again {
            self.retries.earn(now);
        }
        // Who waits already goes first; a newcomer would otherwise overtake it. One that comes back came before them.
        if (self.queue.is_empty() || ask.again)
            && let Some(grant) = self.grant(ask, &eligible(&self.servers, &ask.wants(), now), now)
        {
            return Acquired::Granted(grant);
        }
        let waiter = Waiter {
            wake: waiter(),
            since: now,
            worker: ask.worker,
            hash: ask.hash,
            again: ask.again,
            tried: ask.tried.to_vec(),
            fresh: ask.fresh,
        };
        if ask.again {
            return Acquired::Queued(self.queue.push_first(ask.client, waiter));
        }
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
    pub fn spend_retry(&mut self, now: Instant) -> bool {
        self.retries.spend(now)
    }

    /// Takes a waiting request out of the queue. False: its grant is on its way already.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queue.cancel(ticket).is_some()
    }

    /// The server of a [`Role::Probe`] sent a reply's head: it is known to work before the reply is whole. From then on
    /// the request is a usual one.
    pub fn probe_heard(&mut self, id: ServerId, now: Instant) {
        self.servers[id.0].health.probe_succeeded(now);
    }

    /// Ends a grant. What comes back: the idle connection that has to be closed for this one, if any.
    pub fn release(&mut self, id: ServerId, role: Role, ending: Ending<C>, now: Instant) -> Option<Idle<C>> {
        let server = &mut self.servers[id.0];
        debug_assert!(server.in_flight > 0, "released more often than granted");
        server.in_flight = server.in_flight.saturating_sub(1);
        match ending {
            Ending::Reusable(idle) => {
                server.answered(role, now);
                if server.draining { Some(idle) } else { server.pool.put(idle) }
            }
            Ending::Answered => {
                server.answered(role, now);
                None
            }
            Ending::Refused | Ending::Failed => {
                server.failures_total += 1;
                match (role, ending) {
                    (Role::Usual, _) => server.health.failed(now),
                    (Role::Probe, Ending::Refused) => server.health.probe_refused(now),
                    (Role::Probe, _) => server.health.probe_failed(now),
                }
                None
            }
            Ending::Abandoned => {
                if role == Role::Probe {
                    server.health.abandon_probe(now);
                }
                None
            }
        }
    }

    /// The next waiting request that can go now, with its grant. Called after each release, and now and then, until it
    /// says `None`.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(W, Grant<C>)> {
        let servers = &self.servers;
        if self.queue.is_empty() || !has_room(servers, now) {
            return None;
        }
        let mut found = Eligible::Nobody;
        let may_go = |waiter: &Waiter<W>| {
            found = eligible(servers, &waiter.wants(now), now);
            !matches!(found, Eligible::Nobody)
        };
        let waiter = self.queue.pop_first(may_go)?;
        let ask = Ask {
            client: 0,
            worker: waiter.worker,
            hash: waiter.hash,
            again: waiter.again,
            preferred: None,
            tried: waiter.avoids(now),
            working: &[],
            fresh: waiter.fresh,
        };
        let grant = self.grant(&ask, &found, now)?;
        Some((waiter.wake, grant))
    }

    /// Removes idle connections that are too old, and those of `worker` that `is_dead` says are gone.
    pub fn sweep(&mut self, worker: usize, now: Instant, mut is_dead: impl FnMut(&C) -> bool) -> Vec<Idle<C>> {
        self.servers.iter_mut().flat_map(|server| server.pool.sweep(worker, now, &mut is_dead)).collect()
    }

    /// The server at this place; `None`: it has left.
    pub fn find(&self, endpoint: &Endpoint) -> Option<ServerId> {
        self.servers.iter().position(|server| !server.leaving && *server.endpoint == *endpoint).map(ServerId)
    }

    /// An active check of a server ended.
    pub fn checked(&mut self, id: ServerId, well: bool, now: Instant) {
        self.servers[id.0].health.checked(well, now);
    }

    /// A place at one of those that were found for the request.
    fn grant(&mut self, ask: &Ask<'_>, found: &Eligible, now: Instant) -> Option<Grant<C>> {
        let id = self.choose(ask, found, now)?;
        let server = &mut self.servers[id.0];
        let role = if server.health() == HealthState::Down { Role::Probe } else { Role::Usual };
        if role == Role::Probe {
            server.health.begin_probe();
        }
        server.in_flight += 1;
        server.requests_total += 1;
        let idle = if ask.fresh { None } else { server.pool.take(ask.worker) };
        Some(Grant { server: id, role, endpoint: Arc::clone(&server.endpoint), idle })
    }

    fn choose(&mut self, ask: &Ask<'_>, found: &Eligible, now: Instant) -> Option<ServerId> {
        match found {
            Eligible::Probe(id) => Some(*id),
            Eligible::AnyOf(circle, candidates) => {
                let working = |id: ServerId| ask.working.iter().filter(|&&other| other == id).count();
                let takes_part = |server: &Server<C>| circle.holds(server);
                self.chooser.pick(&self.servers, takes_part, candidates.as_slice(), working, ask.hash, now)
            }
            Eligible::Nobody => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
