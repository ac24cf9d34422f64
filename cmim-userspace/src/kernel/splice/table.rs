//! The maps of the splices, and what stands in them for one direction.

use std::fmt;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, SockHash};
use cmim_common::connection::{Connection, ConnectionKey, ENDLESS, Lane, MAX_CONNECTIONS, State};
use cmim_common::names;

use crate::kernel::error::KernelError;
use crate::kernel::maps::{ANY, is_absent, map_failed, take};

/// Refuses a key that is there already (`BPF_NOEXIST`).
pub(super) const IF_ABSENT: u64 = 1;

pub(super) struct Table {
    pub(super) connections: HashMap<MapData, ConnectionKey, Connection>,
    pub(super) sockets: SockHash<MapData, ConnectionKey>,
    pub(super) targets: SockHash<MapData, ConnectionKey>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Places in `CMIM_TAKEN`.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Given back.
    pub(super) free: Vec<u32>,
    /// All from here on were never used.
    next: u32,
}

impl Slots {
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            ((slot as usize) < MAX_CONNECTIONS).then(|| {
                self.next += 1;
                slot
            })
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) key: ConnectionKey,
}

impl Table {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            connections: take(ebpf, names::CONNECTIONS)?,
            sockets: take(ebpf, names::SOCKETS)?,
            targets: take(ebpf, names::TARGETS)?,
        })
    }

    /// The target before the source, and the entry between them: the first burst finds everything in its place.
    pub(super) fn put(&mut self, source: Side<'_>, target: Side<'_>, entry: Connection) -> Result<(), KernelError> {
        // A socket that another splice hands bytes to keeps its place, should both have the same addresses.
        let place = self.targets.insert(target.key, target.socket.as_raw_fd(), IF_ABSENT);
        place.map_err(|source| map_failed(names::TARGETS, source))?;
        let entered = self.connections.insert(source.key, entry, IF_ABSENT);
        if let Err(error) = entered.map_err(|source| map_failed(names::CONNECTIONS, source)) {
            gone(self.targets.remove(&target.key));
            return Err(error);
        }
        let watched = self.sockets.insert(source.key, source.socket.as_raw_fd(), ANY);
        watched.map_err(|error| {
            self.forget(source, target);
            map_failed(names::SOCKETS, error)
        })
    }

    /// No verdict is given on the source from now on.
    pub(super) fn stop(&mut self, source: Side<'_>) {
        gone(self.sockets.remove(&source.key));
    }

    pub(super) fn forget(&mut self, source: Side<'_>, target: Side<'_>) {
        gone(self.targets.remove(&target.key));
        gone(self.connections.remove(&source.key));
    }
}

/// The entry of a direction that has carried nothing yet.
pub(super) fn entry(
    target: ConnectionKey,
    generation: u64,
    slot: u32,
    window: u64,
    content: Option<u64>,
) -> Connection {
    Connection {
        generation,
        remaining: content.unwrap_or(ENDLESS),
        spliced: 0,
        accepted: 0,
        passed: 0,
        window,
        target,
        slot,
        base: 0,
        next: 0,
        lane: Lane::Sockmap as u8,
        state: State::Splicing as u8,
        has_base: 0,
        has_next: 0,
        reserved: 0,
    }
}

/// The kernel removes sockets that were closed by itself.
fn gone(removed: Result<(), MapError>) {
    if let Err(error) = removed
        && !is_absent(&error)
    {
        tracing::warn!("a splice could not be taken out of its map: {error}");
    }
}
