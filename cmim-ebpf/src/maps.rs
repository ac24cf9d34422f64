//! All maps of the kernel part. Their key and value types are cmim-common's; nothing is declared twice.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{HashMap, LpmTrie, PerCpuArray, SockHash};
use aya_ebpf::macros::btf_map;
use cmim_common::connection::{Connection, ConnectionKey, MAX_CONNECTIONS};
use cmim_common::counters::Counters;
use cmim_common::deny::{Denial, MAX_DENIED};
use cmim_common::listener::{Listener, ListenerKey, MAX_LISTENERS};

/// Memory is taken only for the connections that the kernel carries at the time.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static CMIM_CONNECTIONS: HashMap<ConnectionKey, Connection, MAX_CONNECTIONS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static CMIM_LISTENERS: HashMap<ListenerKey, Listener, MAX_LISTENERS> = HashMap::new();

#[btf_map]
pub(crate) static CMIM_DENY_V4: LpmTrie<[u8; 4], Denial, MAX_DENIED> = LpmTrie::new();

#[btf_map]
pub(crate) static CMIM_DENY_V6: LpmTrie<[u8; 16], Denial, MAX_DENIED> = LpmTrie::new();

#[btf_map]
pub(crate) static CMIM_COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static CMIM_SOCKETS: SockHash<ConnectionKey, MAX_CONNECTIONS> = SockHash::new();
