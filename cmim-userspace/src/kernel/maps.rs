//! Typed handles of the maps: what the daemon writes for the programs and reads back from them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use cmim_common::counters::Counters;
use cmim_common::deny::{BY_OPERATOR, Denial};
use cmim_common::listener::{Listener, ListenerKey};
use cmim_common::names;
use cmim_common::settings::Settings;
use cmim_common::spread::MAX_ROWS;
use ipnet::IpNet;

use super::error::KernelError;
use super::listening::{self, Listening};

/// The maps that say what is guarded, denied and counted. They live at least as long as this does.
pub struct Maps {
    listeners: HashMap<MapData, ListenerKey, Listener>,
    deny_v4: LpmTrie<MapData, [u8; 4], Denial>,
    deny_v6: LpmTrie<MapData, [u8; 16], Denial>,
    counters: PerCpuArray<MapData, Counters>,
    settings: Array<MapData, Settings>,
}

/// Replaces the value, whether there is one or not (`BPF_ANY`).
pub(super) const ANY: u64 = 0;
/// The one entry of the counters and of the settings.
const ONLY: u32 = 0;

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Maps {
    /// Takes the handles out of a loaded object. Pin the maps before: the object forgets them.
    ///
    /// # Errors
    ///
    /// When the object and this binary do not belong together.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            listeners: take(ebpf, names::LISTENERS)?,
            deny_v4: take(ebpf, names::DENY_V4)?,
            deny_v6: take(ebpf, names::DENY_V6)?,
            counters: take(ebpf, names::COUNTERS)?,
            settings: take(ebpf, names::SETTINGS)?,
        })
    }

    /// Makes the kernel know exactly these listeners. One that stays keeps its counts, its bucket and its row.
    ///
    /// # Errors
    ///
    /// When the map refuses one; those before it are in place.
    pub fn set_listeners(&mut self, listeners: &[Listening]) -> Result<(), KernelError> {
        let known = self.listeners()?;
        let wanted: HashSet<ListenerKey> = listeners.iter().map(|listener| listening::key(&listener.address)).collect();
        for (key, _) in known.iter().filter(|(key, _)| !wanted.contains(key)) {
            self.listeners.remove(key).map_err(|source| map_failed(names::LISTENERS, source))?;
        }
        let staying = known.iter().filter(|(key, _)| wanted.contains(key));
        let mut rows: HashSet<u32> = staying.map(|(_, listener)| listener.row).collect();
        // Rows are few: first to those whom no connection reaches without one.
        let needs_row = |listener: &&Listening| listener.address.needs_steering();
        let (first, then): (Vec<_>, Vec<_>) = listeners.iter().partition(needs_row);
        for listener in first.into_iter().chain(then) {
            let key = listening::key(&listener.address);
            let before = known.iter().find(|(known, _)| *known == key).map(|(_, listener)| *listener);
            // Left alone where nothing changes: writing would take back what was counted since the reading.
            if before.is_some_and(|before| before.id == listener.id) {
                continue;
            }
            let row = before.map_or_else(|| free_row(&mut rows), |before| before.row);
            let entry = Listener { id: listener.id, row, ..before.unwrap_or_default() };
            self.listeners.insert(key, entry, ANY).map_err(|source| map_failed(names::LISTENERS, source))?;
        }
        Ok(())
    }

    /// Every listener's address with what the guard counted for it, in the map's order.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn listeners(&self) -> Result<Vec<(ListenerKey, Listener)>, KernelError> {
        let entries: Result<Vec<_>, _> = self.listeners.iter().collect();
        entries.map_err(|source| map_failed(names::LISTENERS, source))
    }

    /// The row of a listener's sockets, counted from 0; `None`: it has none.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn row(&self, key: &ListenerKey) -> Result<Option<u32>, KernelError> {
        match self.listeners.get(key, 0) {
            Ok(listener) => Ok(listener.row.checked_sub(1)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(map_failed(names::LISTENERS, source)),
        }
    }

    /// Puts new settings in the place of the old ones.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(ONLY, settings, ANY).map_err(|source| map_failed(names::SETTINGS, source))
    }

    /// The counters of all CPUs together.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let per_cpu = self.counters.get(&ONLY, 0).map_err(|source| map_failed(names::COUNTERS, source))?;
        let mut sum = Counters::default();
        for counters in per_cpu.iter() {
            sum.add(counters);
        }
        Ok(sum)
    }

    /// Drops what comes from these addresses from now on.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`] when the list is.
    pub fn deny(&mut self, sources: IpNet) -> Result<(), KernelError> {
        let denial = Denial { origin: BY_OPERATOR };
        match sources.trunc() {
            IpNet::V4(net) => self.deny_v4.insert(&key_v4(net.addr(), net.prefix_len()), denial, ANY),
            IpNet::V6(net) => self.deny_v6.insert(&key_v6(net.addr(), net.prefix_len()), denial, ANY),
        }
        .map_err(|source| map_failed(deny_map(sources), source))
    }

    /// Takes exactly this prefix off the list; `false`: it was not there.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn allow(&mut self, sources: IpNet) -> Result<bool, KernelError> {
        let removed = match sources.trunc() {
            IpNet::V4(net) => self.deny_v4.remove(&key_v4(net.addr(), net.prefix_len())),
            IpNet::V6(net) => self.deny_v6.remove(&key_v6(net.addr(), net.prefix_len())),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(source) => Err(map_failed(deny_map(sources), source)),
        }
    }

    /// Every denied prefix, IPv4 first.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn denied(&self) -> Result<Vec<IpNet>, KernelError> {
        let mut denied = Vec::new();
        for key in self.deny_v4.keys() {
            let key = key.map_err(|source| map_failed(names::DENY_V4, source))?;
            denied.extend(net(Ipv4Addr::from(key.data()).into(), key.prefix_len()));
        }
        for key in self.deny_v6.keys() {
            let key = key.map_err(|source| map_failed(names::DENY_V6, source))?;
            denied.extend(net(Ipv6Addr::from(key.data()).into(), key.prefix_len()));
        }
        Ok(denied)
    }
}

/// The lowest row that nobody has, counted from 1; 0: all are taken.
fn free_row(rows: &mut HashSet<u32>) -> u32 {
    let most = u32::try_from(MAX_ROWS).unwrap_or(0);
    (1..=most).find(|row| rows.insert(*row)).unwrap_or(0)
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Absent { name })?;
    map.try_into().map_err(|source| map_failed(name, source))
}

/// Whether a call failed because the map has no such entry, which is told in two ways.
pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(call) => call.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

pub(super) fn map_failed(name: &'static str, source: MapError) -> KernelError {
    // The kernel's two words for a map without room: of hashes, and of tries.
    if let MapError::SyscallError(error) = &source
        && matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
    {
        return KernelError::Full { name };
    }
    KernelError::Map { name, source: Box::new(source) }
}

const fn deny_map(sources: IpNet) -> &'static str {
    match sources {
        IpNet::V4(_) => names::DENY_V4,
        IpNet::V6(_) => names::DENY_V6,
    }
}

fn key_v4(address: Ipv4Addr, prefix: u8) -> Key<[u8; 4]> {
    Key::new(u32::from(prefix), address.octets())
}

fn key_v6(address: Ipv6Addr, prefix: u8) -> Key<[u8; 16]> {
    Key::new(u32::from(prefix), address.octets())
}

/// `None`: a prefix that no one of this program put there.
fn net(address: IpAddr, prefix: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(prefix).ok()?).ok()
}
