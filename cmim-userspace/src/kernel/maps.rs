//! Typed handles of the maps: what the daemon writes for the programs and reads back from them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, SockHash};
use cmim_common::connection::{Connection, ConnectionKey};
use cmim_common::counters::Counters;
use cmim_common::deny::{BY_OPERATOR, Denial};
use cmim_common::listener::{Listener, ListenerKey};
use cmim_common::names;
use ipnet::IpNet;
use serde::Serialize;

use super::error::KernelError;

/// The sockhash, by the key of its connections.
pub type Sockets = SockHash<MapData, ConnectionKey>;

/// All maps of the kernel part. The maps live at least as long as this does.
pub struct Maps {
    pub connections: HashMap<MapData, ConnectionKey, Connection>,
    listeners: HashMap<MapData, ListenerKey, Listener>,
    deny_v4: LpmTrie<MapData, [u8; 4], Denial>,
    deny_v6: LpmTrie<MapData, [u8; 16], Denial>,
    counters: PerCpuArray<MapData, Counters>,
    pub sockets: Sockets,
}

/// What the guard counted for one listener's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ListenerCount {
    pub id: u32,
    pub address: SocketAddr,
    pub syns: u64,
}

/// Replaces the value, whether there is one or not (`BPF_ANY`).
const ANY: u64 = 0;
/// The one entry of the counters.
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
            connections: take(ebpf, names::CONNECTIONS)?,
            listeners: take(ebpf, names::LISTENERS)?,
            deny_v4: take(ebpf, names::DENY_V4)?,
            deny_v6: take(ebpf, names::DENY_V6)?,
            counters: take(ebpf, names::COUNTERS)?,
            sockets: take(ebpf, names::SOCKETS)?,
        })
    }

    /// Makes the kernel know exactly these listeners. One that stays keeps its count.
    ///
    /// # Errors
    ///
    /// When the map refuses one; those before it are in place.
    pub fn set_listeners(&mut self, listeners: &[(u32, SocketAddr)]) -> Result<(), KernelError> {
        let failed = |source| map_failed(names::LISTENERS, source);
        let known: Vec<ListenerKey> = self.listeners.keys().collect::<Result<_, _>>().map_err(failed)?;
        for (id, address) in listeners {
            let key = ListenerKey::new(*address);
            let syns = match self.listeners.get(&key, 0) {
                Ok(listener) => listener.syns,
                Err(MapError::KeyNotFound) => 0,
                Err(source) => return Err(failed(source)),
            };
            self.listeners.insert(key, Listener { id: *id, flags: 0, syns }, ANY).map_err(failed)?;
        }
        for key in known {
            if !listeners.iter().any(|(_, address)| ListenerKey::new(*address) == key) {
                self.listeners.remove(&key).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// What the guard counted for each listener, in the map's order.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn listeners(&self) -> Result<Vec<ListenerCount>, KernelError> {
        let count = |(key, listener): (ListenerKey, Listener)| ListenerCount {
            id: listener.id,
            address: key.address(),
            syns: listener.syns,
        };
        let counts: Result<Vec<_>, _> = self.listeners.iter().map(|entry| entry.map(count)).collect();
        counts.map_err(|source| map_failed(names::LISTENERS, source))
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
    /// When the list is full.
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
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
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

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Absent { name })?;
    map.try_into().map_err(|source| map_failed(name, source))
}

fn map_failed(name: &'static str, source: MapError) -> KernelError {
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
