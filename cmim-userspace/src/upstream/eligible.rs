//! Which servers of an upstream may take a request now.

use std::time::Instant;

use super::health::HealthState;
use super::server::{Server, ServerId};

/// What an upstream has for a request.
#[derive(Debug)]
pub(super) enum Eligible {
    /// A server whose pause after a failure is over: this request finds out.
    Probe(ServerId),
    /// One of these, all of the same circle.
    AnyOf(Circle, Candidates),
    /// It has to wait.
    Nobody,
}

/// What a request wants of its server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wants<'a> {
    /// It was sent before: a server that others just saw fail comes behind those that nobody did.
    pub again: bool,
    /// Comes before all others where it is up and has room.
    pub preferred: Option<ServerId>,
    /// Comes last.
    pub tried: &'a [ServerId],
}

/// In order of preference: the preferred one, a probe that is due, servers that are up and not tried yet, any that are
/// up; primaries before backups; and where all are out, any one as a probe. One that was not tried and is only busy is
/// waited for.
pub(super) fn eligible<C>(servers: &[Server<C>], wants: &Wants<'_>, now: Instant) -> Eligible {
    let tried = wants.tried;
    let present = Circle::now(servers);
    let mut circle = present;
    if let Some(id) = wants.preferred.filter(|&id| is_well(servers, circle, id, now)) {
        return Eligible::AnyOf(circle, Candidates::one(id));
    }
    // One that a server's death has cost an attempt finds nothing out for others.
    let probe = || due_probe(servers, present, tried, now).map(Eligible::Probe);
    if !wants.again
        && let Some(probe) = probe()
    {
        return probe;
    }
    let mut candidates = open(servers, circle, tried);
    if candidates.is_empty() && !tried.is_empty() {
        if circle == Circle::Primaries {
            // A backup that was not tried yet is better than a primary that just failed this request.
            let backups = open(servers, Circle::Backups, tried);
            if !backups.is_empty() {
                (circle, candidates) = (Circle::Backups, backups);
            }
        }
        let untried = |circle: Circle| ids(servers).any(|(server, id)| circle.holds(server) && !tried.contains(&id));
        if candidates.is_empty() && !untried(circle) && !(circle == Circle::Primaries && untried(Circle::Backups)) {
            candidates = open(servers, circle, &[]);
        }
    }
    if wants.again || circle == Circle::OneProbe {
        candidates = candidates.without_suspects(servers, now);
    }
    if candidates.is_empty() && wants.again {
        return probe().unwrap_or(Eligible::Nobody);
    }
    if candidates.is_empty() { Eligible::Nobody } else { Eligible::AnyOf(circle, candidates) }
}

/// Whether a server takes a request now, and nobody just saw it fail.
fn is_well<C>(servers: &[Server<C>], circle: Circle, id: ServerId, now: Instant) -> bool {
    let well = |server: &Server<C>| circle.holds(server) && server.has_room() && !server.health.is_suspect(now);
    servers.get(id.0).is_some_and(well)
}

/// Whether any server has room for anyone: cheaper than asking for each that waits.
pub(super) fn has_room<C>(servers: &[Server<C>], now: Instant) -> bool {
    !matches!(eligible(servers, &Wants::default(), now), Eligible::Nobody)
}

/// The servers of a circle that have room, without those that were tried.
fn open<C>(servers: &[Server<C>], circle: Circle, tried: &[ServerId]) -> Candidates {
    let mut open = Candidates::default();
    for (server, id) in ids(servers) {
        if circle.holds(server) && server.has_room() && !tried.contains(&id) {
            open.push(id);
        }
    }
    open
}

/// A backup is not looked after while it has nothing to do.
fn due_probe<C>(servers: &[Server<C>], circle: Circle, tried: &[ServerId], now: Instant) -> Option<ServerId> {
    let due = |server: &Server<C>| {
        !server.draining
            && server.has_room()
            && server.health.probe_is_due(now)
            && !(server.backup && circle == Circle::Primaries)
    };
    ids(servers).find(|&(server, id)| due(server) && !tried.contains(&id)).map(|(_, id)| id)
}

fn ids<C>(servers: &[Server<C>]) -> impl Iterator<Item = (&Server<C>, ServerId)> {
    servers.iter().enumerate().map(|(at, server)| (server, ServerId(at)))
}

/// The servers among which the balance rule picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circle {
    Primaries,
    /// No primary is up.
    Backups,
    /// All are out: one request at a time finds out whether that is still so.
    OneProbe,
    /// All are out and a probe is on its way: the others wait for what it says.
    Nobody,
}

impl Circle {
    fn now<C>(servers: &[Server<C>]) -> Self {
        let takes = |backup: bool| servers.iter().any(|server| server.backup == backup && server.takes_work());
        if takes(false) {
            Self::Primaries
        } else if takes(true) {
            Self::Backups
        } else if servers.iter().any(|server| !server.leaving && server.health() == HealthState::Probing) {
            Self::Nobody
        } else {
            Self::OneProbe
        }
    }

    pub(super) fn holds<C>(self, server: &Server<C>) -> bool {
        match self {
            Self::Primaries => !server.backup && server.takes_work(),
            Self::Backups => server.backup && server.takes_work(),
            Self::OneProbe => !server.draining,
            Self::Nobody => false,
        }
    }
}

/// The servers that may take a request, on the stack for the usual number of servers.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    few: [ServerId; Self::FEW],
    count: usize,
    many: Vec<ServerId>,
}

impl Candidates {
    const FEW: usize = 16;

    fn one(id: ServerId) -> Self {
        let mut one = Self::default();
        one.push(id);
        one
    }

    /// Those that nobody just saw fail, or all where there is no other.
    fn without_suspects<C>(self, servers: &[Server<C>], now: Instant) -> Self {
        let is_suspect = |id: &ServerId| servers.get(id.0).is_some_and(|server| server.health.is_suspect(now));
        if !self.as_slice().iter().any(is_suspect) {
            return self;
        }
        let mut rest = Self::default();
        self.as_slice().iter().filter(|id| !is_suspect(id)).for_each(|&id| rest.push(id));
        if rest.is_empty() { self } else { rest }
    }

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

    pub(super) fn as_slice(&self) -> &[ServerId] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}
