//! The local lane: what the daemon and servers on this host send each other goes from socket to socket, past TCP.
//!
//! Owns the sock_ops program's attachment to the root of the cgroups and the sk_msg program's to the sockhash; both end
//! with this, also after `kill -9`. [`LocalLane`] is the part of it that workers use: a socket that they mark before it
//! connects takes the lane if the other end is on this host as well. Everything else is decided in the kernel, message by
//! message (`cmim_common::local`).

mod room;
mod trial;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, SkStorage, SockHash};
use aya::programs::sk_msg::SkMsgLink;
use aya::programs::sock_ops::SockOpsLink;
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};
use cmim_common::connection::ConnectionKey;
use cmim_common::local::{End, Pair};
use cmim_common::names;
use parking_lot::{Mutex, RwLock};

use self::room::Room;
use super::error::KernelError;
use super::load;
use super::maps::{ANY, Maps, map_failed, take};
use crate::config::model::LocalBypass;

/// The lane as workers use it; cheap to clone, and without effect where the lane is not on.
#[derive(Debug, Clone, Default)]
pub struct LocalLane {
    shared: Option<Arc<Shared>>,
}

/// The lane's hold on the kernel.
pub(super) struct Local {
    lane: LocalLane,
    shared: Arc<Shared>,
    message: Option<SkMsgLink>,
    /// With the root of the cgroups.
    events: Option<(PathBuf, SockOpsLink)>,
}

struct Shared {
    sockets: Mutex<SockHash<MapData, u64>>,
    ends: Mutex<SkStorage<MapData, End>>,
    pairs: HashMap<MapData, ConnectionKey, Pair>,
    /// Servers whose addresses are this host's.
    servers: RwLock<HashSet<SocketAddr>>,
    room: Room,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("cgroup", &self.cgroup()).finish_non_exhaustive()
    }
}

impl Local {
    /// Takes the handles out of a loaded object. Pin the maps before: the object forgets them.
    ///
    /// # Errors
    ///
    /// When the object and this binary do not belong together.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let shared = Arc::new(Shared {
            sockets: Mutex::new(take(ebpf, names::LOCAL)?),
            ends: Mutex::new(take(ebpf, names::ENDS)?),
            pairs: take(ebpf, names::PAIRS)?,
            servers: RwLock::default(),
            room: Room::new(Instant::now()),
        });
        Ok(Self { lane: LocalLane { shared: Some(Arc::clone(&shared)) }, shared, message: None, events: None })
    }

    /// Puts the lane in force if it passes its trial. With `auto` it also has to be worth its while; where it is not,
    /// that is no error.
    ///
    /// # Errors
    ///
    /// What keeps it from that; it is not in force then.
    pub(super) fn turn_on(&mut self, ebpf: &mut Ebpf, maps: &Maps, wanted: LocalBypass) -> Result<(), KernelError> {
        let tried = self.attach(ebpf).and_then(|()| trial::run(&self.lane, maps));
        if matches!(tried, Ok(true)) || (matches!(tried, Ok(false)) && wanted == LocalBypass::On) {
            return Ok(());
        }
        self.detach(ebpf);
        tried.map(|_| tracing::info!("no local lane: connections on this host are as fast without it"))
    }

    fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        self.attach_message(ebpf)?;
        self.attach_events(ebpf)
    }
    fn attach_message(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        let name = names::LOCAL_MSG;
        let program = ebpf.program_mut(name).ok_or(KernelError::Absent { name })?;
        let message: &mut SkMsg = program.try_into().map_err(|source| load::refused(name, source))?;
        load::verified(name, || message.load())?;
        let attached = message.attach(self.shared.sockets.lock().fd()).and_then(|link| message.take_link(link));
        let link = attached.map_err(|source| KernelError::Attach {
            name,
            target: names::LOCAL.to_owned(),
            source: Box::new(source),
        })?;
        self.message = Some(link);
        Ok(())
    }

    fn attach_events(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        let name = names::LOCAL_OPS;
        let root = cgroup_root().ok_or(KernelError::NoCgroup)?;
        let cgroup = File::open(&root).map_err(|_| KernelError::NoCgroup)?;
        let program = ebpf.program_mut(name).ok_or(KernelError::Absent { name })?;
        let events: &mut SockOps = program.try_into().map_err(|source| load::refused(name, source))?;
        load::verified(name, || events.load())?;
        // A link stands beside others without being told to; with the flag for that the kernel refuses it.
        let attached = events.attach(cgroup, CgroupAttachMode::Single).and_then(|link| events.take_link(link));
        let link = attached.map_err(|source| KernelError::Attach {
            name,
            target: root.display().to_string(),
            source: Box::new(source),
        })?;
        self.events = Some((root, link));
        Ok(())
    }

    /// Takes what is in force back, and the programs out of the kernel.
    fn detach(&mut self, ebpf: &mut Ebpf) {
        self.events = None;
        self.message = None;
        let events = ebpf.program_mut(names::LOCAL_OPS).and_then(|program| <&mut SockOps>::try_from(program).ok());
        let unloaded = events.map_or(Ok(()), SockOps::unload);
        let message = ebpf.program_mut(names::LOCAL_MSG).and_then(|program| <&mut SkMsg>::try_from(program).ok());
        if let Err(error) = message.map_or(Ok(()), SkMsg::unload).and(unloaded) {
            tracing::debug!("the local lane's programs stay in the kernel, attached to nothing: {error}");
        }
    }

    /// The root of the cgroups where the lane is on.
    pub(super) fn cgroup(&self) -> Option<&Path> {
        self.events.as_ref().map(|(root, _)| root.as_path())
    }

    /// The part for workers.
    pub(super) fn lane(&self) -> LocalLane {
        if self.events.is_some() { self.lane.clone() } else { LocalLane::default() }
    }
}

impl LocalLane {
    /// Makes these the servers whose connections may take the lane. Those on other hosts are left out.
    pub fn set_servers(&self, servers: impl IntoIterator<Item = SocketAddr>) {
        if let Some(shared) = &self.shared {
            *shared.servers.write() = servers.into_iter().filter(is_here).collect();
        }
    }

    /// Whether a connection to this server may take the lane.
    #[must_use]
    pub fn leads_to(&self, server: &SocketAddr) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.servers.read().contains(server))
    }

    /// Whether connections may take the lane now, as far as the host's memory goes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.room.is_open(self))
    }

    /// Whether the host has been without memory for the lane since a message was sent. That message, or what answers it,
    /// may never go on. Asks the kernel: for those who have waited a while.
    #[must_use]
    pub fn was_full_since(&self, since: Instant) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.room.was_full_since(self, since))
    }

    /// Marks a socket that is about to connect.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the connection is a plain one then.
    pub fn mark(&self, socket: BorrowedFd<'_>) -> Result<(), KernelError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let put = shared.ends.lock().insert(&socket.as_raw_fd(), End::default(), ANY);
        put.map_err(|source| map_failed(names::ENDS, source))
    }

    /// Whether the other end of a new connection to this server has joined; ask before anything is sent. Where it has
    /// not, as with a server in a container behind an address of this host, no later one takes the trouble, until the
    /// servers are set again. Do not use the connection then: should the other end still join, it would not know how
    /// much there is to read (its SIOCINQ counts what is handed over, and not what TCP brings).
    #[must_use]
    pub fn has_joined(&self, server: &SocketAddr, local: SocketAddr, peer: SocketAddr) -> bool {
        let Some(shared) = &self.shared else { return false };
        let pair = shared.pairs.get(&ConnectionKey::new(local, peer), 0);
        let joined = pair.is_ok_and(|pair| pair.server_cookie != 0);
        if !joined && shared.servers.write().remove(server) {
            tracing::info!(%server, "the local lane does not lead to this server");
        }
        joined
    }

    /// Makes a connection plain TCP at both its ends, for good. Only between two requests: what was handed over must be
    /// read, as it would be lost.
    ///
    /// # Errors
    ///
    /// When it is not on the lane, or the kernel refuses.
    pub fn leave(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), KernelError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let pair = shared.pairs.get(&ConnectionKey::new(local, peer), 0);
        let pair = pair.map_err(|source| map_failed(names::PAIRS, source))?;
        let mut sockets = shared.sockets.lock();
        for end in [pair.server_cookie, pair.daemon_cookie] {
            sockets.remove(&end).map_err(|source| map_failed(names::LOCAL, source))?;
        }
        Ok(())
    }
}

/// Whether an address is this host's: nothing else can be bound to.
fn is_here(server: &SocketAddr) -> bool {
    UdpSocket::bind((server.ip(), 0)).is_ok()
}

/// Where the second version of cgroups is mounted, which need not be the usual place.
pub(super) fn cgroup_root() -> Option<PathBuf> {
    find_cgroup_root(&std::fs::read_to_string("/proc/self/mounts").ok()?)
}

/// Finds it in the text of /proc/self/mounts: `cgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0`.
fn find_cgroup_root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        // The kernel writes an odd character as three octal digits; nobody has one in the name of this place.
        (kind == "cgroup2" && !place.contains('\\')).then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::{LocalLane, find_cgroup_root, is_here};
    use std::path::Path;

    #[test]
    fn the_cgroups_are_found_wherever_they_are_mounted() {
        let usual = "tmpfs /sys tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0\n";
        assert_eq!(find_cgroup_root(usual).as_deref(), Some(Path::new("/sys/fs/cgroup")));
        let mixed = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup_root(mixed).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup_root("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
        assert_eq!(find_cgroup_root(""), None);
    }

    #[test]
    fn only_addresses_of_this_host_are_here() {
        assert!(is_here(&"127.0.0.1:80".parse().expect("a literal of this test")));
        assert!(!is_here(&"203.0.113.7:80".parse().expect("a literal of this test")));
    }

    #[test]
    fn without_a_lane_nothing_leads_anywhere() {
        let lane = LocalLane::default();
        let server = "127.0.0.1:80".parse().expect("a literal of this test");
        lane.set_servers([server]);
        assert!(!lane.leads_to(&server));
    }
}
