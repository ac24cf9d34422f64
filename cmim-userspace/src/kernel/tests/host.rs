//! A host for one test: a thread with its own network and mount namespaces, a BPF file system, and a veth pair into a
//! second network namespace from where packets come. All of it ends with the thread.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Gid, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::geteuid;
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use crate::kernel::load;

/// Addresses of the guarded interface (documentation ranges).
pub(super) const HERE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 2);
pub(super) const HERE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub(super) const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(super) const PEER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// The interface to guard.
pub(super) const INTERFACE: &str = "cmim0";
pub(super) const PEER_INTERFACE: &str = "peer0";

pub(crate) struct Host {
    here: OwnedFd,
    peer: OwnedFd,
    bpffs: PathBuf,
}

/// Runs a test in a new host, or says why not.
pub(crate) fn in_namespaces(name: &'static str, test: impl FnOnce(&Host) + Send + 'static) {
    if !geteuid().is_root() {
        return skipped(name, "needs root");
    }
    if !load::is_built_in() {
        return skipped(name, "built without the BPF object");
    }
    let thread = std::thread::Builder::new().name(name.to_owned());
    let top = std::env::temp_dir().join(format!("cmim-{}-{name}", std::process::id()));
    let bpffs = top.join("bpf");
    let running = thread.spawn(move || test(&Host::new(bpffs))).expect("a thread");
    let ended = running.join();
    // The file system was mounted in the thread's namespace and went with it; here is only the empty mount point.
    fs::remove_dir_all(&top).unwrap_or_else(|error| eprintln!("left {}: {error}", top.display()));
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Straight to stderr: the harness would keep a passing test's `eprintln!` to itself.
pub(in crate::kernel) fn skipped(name: &str, why: &str) {
    let line = format!("SKIPPED: {name}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
}

impl Host {
    fn new(bpffs: PathBuf) -> Self {
        unshare(UnshareFlags::NEWNS);
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("root may");
        fs::create_dir_all(&bpffs).expect("a writable temporary directory");
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("a kernel with a BPF file system");

        unshare(UnshareFlags::NEWNET);
        let peer = own_net();
        ip(&["link", "set", "lo", "up"]);
        unshare(UnshareFlags::NEWNET);
        let here = own_net();
        ip(&["link", "set", "lo", "up"]);
        let peer_path = format!("/proc/{}/fd/{}", std::process::id(), peer.as_raw_fd());
        ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", PEER_INTERFACE, "netns", &peer_path]);
        let host = Self { here, peer, bpffs };
        set_up(INTERFACE, HERE_MAC, HERE_V4, HERE_V6);
        host.in_peer(|| set_up(PEER_INTERFACE, PEER_MAC, PEER_V4, PEER_V6));
        host
    }

    pub(crate) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// What `ip` says of the guarded interface.
    pub(super) fn link(&self) -> String {
        let output = Command::new("ip").args(["link", "show", INTERFACE]).output().expect("ip from iproute2");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The namespace of the other end, for a thread that is to live there.
    pub(super) fn peer(&self) -> OwnedFd {
        self.peer.try_clone().expect("a descriptor")
    }

    /// Runs something on the other end of the veth pair.
    pub(super) fn in_peer<T>(&self, run: impl FnOnce() -> T) -> T {
        enter(&self.peer);
        let result = run();
        enter(&self.here);
        result
    }
}

fn set_up(interface: &str, mac: [u8; 6], v4: Ipv4Addr, v6: Ipv6Addr) {
    let mac: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    ip(&["link", "set", interface, "address", &mac.join(":")]);
    ip(&["addr", "add", &format!("{v4}/24"), "dev", interface]);
    ip(&["addr", "add", &format!("{v6}/64"), "dev", interface, "nodad"]);
    ip(&["link", "set", interface, "up"]);
}

/// Runs `ip` in the thread's namespaces.
pub(super) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("ip from iproute2");
    assert!(status.success(), "ip {arguments:?}");
}

/// The calling thread's network namespace.
fn own_net() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").expect("procfs").into()
}

/// Moves the calling thread into a network namespace.
pub(super) fn enter(net: &OwnedFd) {
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
}

#[expect(unsafe_code, reason = "unshare is unsafe for what it can do to descriptors")]
fn unshare(flags: UnshareFlags) {
    // SAFETY: the descriptor table stays shared: only namespaces are parted with.
    unsafe { unshare_unsafe(flags) }.expect("root may");
}

/// Gives up root on this thread.
pub(super) fn become_nobody() {
    const NOBODY: u32 = 65_534;
    set_thread_res_gid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).expect("root may");
    set_thread_res_uid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).expect("root may");
}

/// Sets a number of this thread's network namespace.
pub(super) fn set_sysctl(name: &str, value: u32) {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Sends frames as they are out of an interface of the thread's namespace.
pub(super) struct RawLink {
    socket: OwnedFd,
    target: libc::sockaddr_ll,
}

impl RawLink {
    pub(super) fn open(interface: &str) -> Self {
        // Protocol 0: it receives nothing.
        let socket = packet_socket();
        let target = link_address(&socket, interface, 0);
        Self { socket, target }
    }

    /// Sends one frame; false: the interface had no room.
    #[expect(unsafe_code, reason = "neither std nor rustix has packet sockets")]
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small number");
        // SAFETY: frame and address are as long as said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.target).cast(),
                length,
            )
        };
        usize::try_from(sent).is_ok_and(|sent| sent == frame.len())
    }
}

/// What goes by an interface of the thread's namespace, in both directions.
pub(super) struct Capture {
    socket: OwnedFd,
}

impl Capture {
    #[expect(unsafe_code, reason = "neither std nor rustix has packet sockets")]
    pub(super) fn open(interface: &str) -> Self {
        let socket = packet_socket();
        let all = u16::try_from(libc::ETH_P_ALL).expect("a small number").to_be();
        let address = link_address(&socket, interface, all);
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small number");
        // SAFETY: the address is as long as said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        Self { socket }
    }

    /// Each frame that has come since the last time.
    pub(super) fn waiting(&self, mut each: impl FnMut(&[u8])) {
        let mut buffer = [0; 2_048];
        while let Ok((length, _)) = rustix::net::recv(&self.socket, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
            each(&buffer[..length]);
        }
    }
}

#[expect(unsafe_code, reason = "neither std nor rustix has packet sockets")]
fn packet_socket() -> OwnedFd {
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "root may: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

#[expect(unsafe_code, reason = "libc's types have no constructors")]
fn link_address(socket: &OwnedFd, interface: &str, protocol: u16) -> libc::sockaddr_ll {
    let index = rustix::net::netdevice::name_to_index(socket, interface).expect("the interface is there");
    // SAFETY: all zeros is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
    address.sll_ifindex = i32::try_from(index).expect("a small number");
    address.sll_protocol = protocol;
    address
}
