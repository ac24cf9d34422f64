//! One server of an upstream: its place, its load, its pool and its health.

use std::sync::Arc;
use std::time::Instant;

use super::health::{Health, HealthState};
use super::pool::Pool;
use super::set::Role;
use crate::config::model::ServerAddress;

/// A server's place in its upstream. One that has left keeps its place until its last request has ended, so that a late
/// release cannot meet another server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub usize);

/// Where a server is, shared by all that have to do with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: ServerAddress,
    /// The address as the logs and listings have it.
    pub name: Arc<str>,
}

impl Endpoint {
    pub fn new(address: &ServerAddress) -> Arc<Self> {
        Arc::new(Self { address: address.clone(), name: address.to_string().into() })
    }
}

#[derive(Debug)]
pub struct Server<C> {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub max_requests: Option<usize>,
    pub backup: bool,
    pub in_flight: usize,
    pub requests_total: u64,
    pub failures_total: u64,
    pub pool: Pool<C>,
    pub(super) health: Health,
    pub(super) draining: bool,
    /// The configuration has it no more; it is draining as well, and gone with its last request.
    pub(super) leaving: bool,
}

impl<C> Server<C> {
    pub fn health(&self) -> HealthState {
        self.health.state()
    }

    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// As `cmim servers` shows it.
    pub fn state_name(&self) -> &'static str {
        match (self.draining, self.health.state()) {
            (true, _) => "draining",
            (false, HealthState::Up) => "up",
            (false, HealthState::Down) => "down",
            (false, HealthState::Probing) => "probing",
        }
    }

    /// It has left, and its place is free.
    pub fn is_gone(&self) -> bool {
        self.leaving && self.in_flight == 0
    }

    pub(super) fn takes_work(&self) -> bool {
        !self.draining && self.health.is_up()
    }

    pub(super) fn answered(&mut self, role: Role, now: Instant) {
        match role {
            Role::Usual => self.health.succeeded(),
            Role::Probe => self.health.probe_succeeded(now),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.max_requests.is_none_or(|most| self.in_flight < most)
    }

    /// Load per weight after one more request; lower is better. Exact in integers so that ties are ties.
    pub(super) fn load(&self, now: Instant) -> u64 {
        const SCALE: u64 = 1_000_000;
        (self.in_flight as u64 + 1).saturating_mul(SCALE) / self.present_weight(now)
    }

    /// The weight in thousandths, less while the server takes up its work again. Never 0.
    pub(super) fn present_weight(&self, now: Instant) -> u64 {
        (u64::from(self.weight.max(1)) * self.health.share(now)).max(1)
    }
}
