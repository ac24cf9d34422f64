//! The addresses that the device listens on: from the configuration to each worker's sockets, at the start and later.

use std::net::TcpListener;
use std::os::fd::AsFd as _;

use super::event_loop::Sockets;
use crate::config::Config;
use crate::config::model::ListenAddress;
use crate::kernel::{Listening, OpenSockets};
use crate::net::{self, Bound, ListenError};

/// Where the device listens.
#[derive(Debug, Clone, Default)]
pub(super) struct Doorways(Vec<Doorway>);

#[derive(Debug, Clone, Copy)]
struct Doorway {
    /// As the configuration has it.
    configured: ListenAddress,
    /// With its port also where the configuration left that to the kernel.
    bound: ListenAddress,
}

/// Addresses that are new, bound and not listening yet.
#[derive(Debug)]
pub(super) struct Fresh(Vec<(ListenAddress, String, Bound)>);

/// Sockets that listen, for no worker yet.
#[derive(Debug)]
pub(super) struct Listened(Vec<(Doorway, Vec<TcpListener>)>);

impl Doorways {
    /// Binds what `config` has beyond these.
    pub(super) fn bind(&self, config: &Config) -> Result<Fresh, ListenError> {
        let own: Vec<ListenAddress> = self.0.iter().map(|door| door.bound).collect();
        let mut fresh = Vec::new();
        for listener in &config.listeners {
            for &address in listener.address.iter().filter(|address| !self.has(**address)) {
                let bound = net::bind(&listener.name, address, config.daemon.workers, &own)?;
                fresh.push((address, listener.name.clone(), bound));
            }
        }
        Ok(Fresh(fresh))
    }

    /// These as they are with `config` and what is new in it.
    pub(super) fn with(&self, config: &Config, fresh: &Fresh) -> Self {
        let new =
            fresh.0.iter().map(|(configured, _, bound)| Doorway { configured: *configured, bound: bound.address() });
        let all = self.0.iter().copied().chain(new);
        let is_wanted =
            |door: &Doorway| config.listeners.iter().any(|listener| listener.address.contains(&door.configured));
        Self(all.filter(is_wanted).collect())
    }

    /// As the kernel part is told of them.
    pub(super) fn listenings(&self, config: &Config) -> Vec<Listening> {
        let of = |door: &Doorway| {
            let (id, listener) =
                (0..).zip(&config.listeners).find(|(_, listener)| listener.address.contains(&door.configured))?;
            Some(Listening { id, name: listener.name.clone(), address: door.bound })
        };
        self.0.iter().filter_map(of).collect()
    }

    fn has(&self, configured: ListenAddress) -> bool {
        self.0.iter().any(|door| door.configured == configured)
    }
}

impl Fresh {
    /// Opens the doors.
    pub(super) fn listen(self) -> Result<Listened, ListenError> {
        let mut listened = Vec::new();
        for (configured, name, bound) in self.0 {
            let door = Doorway { configured, bound: bound.address() };
            listened.push((door, bound.listen()?));
            tracing::info!(listener = %name, "listening on {}", door.bound);
        }
        Ok(Listened(listened))
    }
}

impl Listened {
    /// As the kernel part steers and spreads to them.
    pub(super) fn open_sockets(&self) -> Vec<OpenSockets<'_>> {
        let all = self.0.iter().map(|(door, sockets)| OpenSockets {
            address: door.bound,
            sockets: sockets.iter().map(|socket| socket.as_fd()).collect(),
        });
        all.collect()
    }

    /// Those of `all` that these sockets are for.
    pub(super) fn listenings(&self, all: &[Listening]) -> Vec<Listening> {
        let is_here = |listening: &&Listening| self.0.iter().any(|(door, _)| door.bound == listening.address);
        all.iter().filter(is_here).cloned().collect()
    }

    /// Gives each worker its sockets.
    pub(super) fn by_worker(self, workers: usize) -> Vec<Sockets> {
        let mut by_worker: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
        for (door, sockets) in self.0 {
            for (worker, socket) in (0..workers).cycle().zip(sockets) {
                if let Some(own) = by_worker.get_mut(worker) {
                    own.push((door.configured, socket));
                }
            }
        }
        by_worker
    }
}
