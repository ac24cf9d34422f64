//! The names under which `bpftool` shows the kernel part. They are a contract with operators' scripts.

/// One entry per connection that the kernel carries: [`crate::connection::ConnectionKey`] to
/// [`crate::connection::Connection`].
pub const CONNECTIONS: &str = "CMIM_CONNECTIONS";
/// [`crate::listener::ListenerKey`] to [`crate::listener::Listener`].
pub const LISTENERS: &str = "CMIM_LISTENERS";
/// IPv4 prefixes to [`crate::deny::Denial`].
pub const DENY_V4: &str = "CMIM_DENY_V4";
/// IPv6 prefixes to [`crate::deny::Denial`].
pub const DENY_V6: &str = "CMIM_DENY_V6";
/// One [`crate::counters::Counters`] per CPU.
pub const COUNTERS: &str = "CMIM_COUNTERS";
/// The sockhash: the sockets of all [`CONNECTIONS`], by the same key. What arrives on them goes through the verdict.
pub const SOCKETS: &str = "CMIM_SOCKETS";
/// The sockhash of those that the verdict hands bytes to. What arrives on them is nobody's but the daemon's.
pub const TARGETS: &str = "CMIM_TARGETS";
/// Bytes of each splice's direction that the daemon passed on itself, by [`crate::connection::Connection::slot`].
pub const TAKEN: &str = "CMIM_TAKEN";
/// The ring through which the verdict tells the daemon of [`crate::splice::Event`]s. It cannot be read by a second
/// reader, so it is not pinned.
pub const EVENTS: &str = "CMIM_EVENTS";

/// One [`crate::settings::Settings`].
pub const SETTINGS: &str = "CMIM_SETTINGS";
/// SYN buckets by source: an address to a [`crate::rate::Bucket`].
pub const SOURCES: &str = "CMIM_SOURCES";
/// How many VLAN tags a SYN must show to be answered, by interface: see [`crate::cookie::keeps_its_tags`]. Not pinned: a
/// note between daemon and guard.
pub const LINKS: &str = "CMIM_LINKS";
/// Destinations to listeners: [`crate::steer::Destination`] to [`crate::listener::ListenerKey`].
pub const STEERING: &str = "CMIM_STEERING";
/// The sockmap of the workers' listening sockets, by [`crate::spread::place`].
pub const LISTENING: &str = "CMIM_LISTENING";
/// One [`crate::spread::Worker`] per worker.
pub const WORKERS: &str = "CMIM_WORKERS";

/// The sockhash of the local lane: both ends of each connection, by their sockets' cookies.
pub const LOCAL: &str = "CMIM_LOCAL";
/// The connections of the local lane: [`crate::connection::ConnectionKey`] to [`crate::local::Pair`].
pub const PAIRS: &str = "CMIM_PAIRS";
/// What the local lane keeps at each socket: [`crate::local::End`].
pub const ENDS: &str = "CMIM_ENDS";

/// Every map that is pinned, in the order in which they are listed.
pub const MAPS: [&str; 16] = [
    CONNECTIONS,
    LISTENERS,
    DENY_V4,
    DENY_V6,
    COUNTERS,
    SOCKETS,
    TARGETS,
    TAKEN,
    SETTINGS,
    SOURCES,
    STEERING,
    LISTENING,
    WORKERS,
    LOCAL,
    PAIRS,
    ENDS,
];

/// The name under which the steering program's attachment is pinned.
pub const STEER_LINK: &str = "CMIM_STEER_LINK";

/// The XDP program.
pub const GUARD: &str = "cmim_guard";
/// The sk_skb stream verdict.
pub const VERDICT: &str = "cmim_verdict";

/// The sk_lookup program.
pub const STEER: &str = "cmim_steer";
/// The sk_reuseport program.
pub const SPREAD: &str = "cmim_spread";

/// The sock_ops program of the local lane.
pub const LOCAL_OPS: &str = "cmim_local_ops";
/// The sk_msg program of the local lane.
pub const LOCAL_MSG: &str = "cmim_local_msg";

/// A constant of the object: 0 leaves the guard's SYN cookies out of the program.
pub const HAS_COOKIES: &str = "CMIM_HAS_COOKIES";

/// A constant of the object: a [`crate::splice::SocketLayout`].
pub const SOCKET_LAYOUT: &str = "CMIM_SOCKET_LAYOUT";

/// The kernel keeps 15 bytes of a program's name (`BPF_OBJ_NAME_LEN` less the NUL); a longer one would be shown cut.
const OBJECT_NAME_MAX: usize = 15;

const _: () = {
    assert!(GUARD.len() <= OBJECT_NAME_MAX);
    assert!(VERDICT.len() <= OBJECT_NAME_MAX);
    assert!(STEER.len() <= OBJECT_NAME_MAX);
    assert!(SPREAD.len() <= OBJECT_NAME_MAX);
    assert!(LOCAL_OPS.len() <= OBJECT_NAME_MAX);
    assert!(LOCAL_MSG.len() <= OBJECT_NAME_MAX);
};
