//! All maps of the kernel part. Their key and value types are cmim-common's; nothing is declared twice.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash, SockMap};
use aya_ebpf::macros::btf_map;
use cmim_common::connection::{Connection, ConnectionKey, MAX_CONNECTIONS};
use cmim_common::cookie::{MAX_LINKS, Scratch};
use cmim_common::counters::Counters;
use cmim_common::deny::{Denial, MAX_DENIED};
use cmim_common::listener::{Listener, ListenerKey, MAX_LISTENERS};
use cmim_common::local::{End, MAX_ENDS, Pair};
use cmim_common::rate::{Bucket, MAX_SOURCES};
use cmim_common::settings::Settings;
use cmim_common::splice::{EVENTS_SIZE, Event};
use cmim_common::spread::{MAX_LISTENING, MAX_WORKERS, Worker};
use cmim_common::steer::{Destination, MAX_STEERED};

/// Memory is taken only for the connections that the kernel carries at the time.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// The workers write into it as into their own memory.
const SHARED: usize = BPF_F_MMAPABLE as usize;

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

#[btf_map]
pub(crate) static CMIM_TARGETS: SockHash<ConnectionKey, MAX_CONNECTIONS> = SockHash::new();

#[btf_map]
pub(crate) static CMIM_TAKEN: Array<u64, MAX_CONNECTIONS, SHARED> = Array::new();

#[btf_map]
pub(crate) static CMIM_EVENTS: RingBuf<Event, EVENTS_SIZE> = RingBuf::new();

#[btf_map]
pub(crate) static CMIM_SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
pub(crate) static CMIM_SOURCES: LruHashMap<[u8; 16], Bucket, MAX_SOURCES> = LruHashMap::new();

#[btf_map]
pub(crate) static CMIM_STEERING: LpmTrie<Destination, ListenerKey, MAX_STEERED> = LpmTrie::new();

#[btf_map]
pub(crate) static CMIM_LISTENING: SockMap<MAX_LISTENING> = SockMap::new();

#[btf_map]
pub(crate) static CMIM_WORKERS: Array<Worker, MAX_WORKERS, SHARED> = Array::new();

#[btf_map]
pub(crate) static CMIM_LOCAL: SockHash<u64, MAX_ENDS> = SockHash::new();

#[btf_map]
pub(crate) static CMIM_PAIRS: HashMap<ConnectionKey, Pair, { MAX_ENDS / 2 }, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static CMIM_ENDS: SkStorage<End> = SkStorage::new();

/// Memory that a stack of 512 bytes has no room for. Not pinned: it means nothing to anybody.
#[btf_map]
pub(crate) static CMIM_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// By the number of an interface. Not pinned, either.
#[btf_map]
pub(crate) static CMIM_LINKS: HashMap<u32, u32, MAX_LINKS, ON_DEMAND> = HashMap::new();
