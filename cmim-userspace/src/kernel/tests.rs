//! The kernel part in a real kernel, each test in namespaces of its own.
//!
//! They need root, BPF and an embedded object; without one of them a test says `SKIPPED` and why.

mod answers;
mod flood;
mod frames;
mod guarding;
pub(crate) mod host;
mod local;
mod pieces;
mod repeated;
mod segment;
mod splicing;
mod steering;
mod wrapped;
mod wrapping;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use cmim_common::names;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

pub(super) use self::host::skipped;
use self::host::{HERE_V4, HERE_V6, INTERFACE, become_nobody, in_namespaces};
pub(crate) use self::splicing::flood;
use super::{KernelError, KernelPart, Listening, OpenSockets, start};
use crate::config::model::{Kernel, KernelMode, LocalBypass, SpliceMode, XdpMode};
use crate::net;

const DEADLINE: Duration = Duration::from_secs(10);
/// Set in the process that is to be killed; holds the pin directory.
const HOLD: &str = "CMIM_TEST_HOLD_PINS";
/// Its listeners' addresses, between spaces.
const HOLD_ADDRESSES: &str = "CMIM_TEST_HOLD_ADDRESSES";
const NOBODY: u32 = 65_534;

pub(crate) fn settings(mode: KernelMode, pin_dir: PathBuf, interfaces: &[&str]) -> Kernel {
    Kernel {
        mode,
        pin_dir,
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        xdp_mode: XdpMode::Auto,
        splice: SpliceMode::Auto,
        splice_min: 65_536,
        splice_window: 1 << 20,
        local_bypass: LocalBypass::Off,
        syn_rate_per_source: 0,
        syn_rate_per_listener: 0,
    }
}

fn started(mode: KernelMode, pin_dir: &Path, interfaces: &[&str], listeners: &[(u32, SocketAddr)]) -> KernelPart {
    start(&settings(mode, pin_dir.to_owned(), interfaces), &listening(listeners), 1)
        .expect("the kernel part starts here")
}

fn listening(listeners: &[(u32, SocketAddr)]) -> Vec<Listening> {
    let each = listeners.iter().map(|(id, address)| Listening {
        id: *id,
        name: format!("listener {id}"),
        address: (*address).into(),
    });
    each.collect()
}

fn map_id(pin_dir: &Path, name: &str) -> u32 {
    MapInfo::from_pin(pin_dir.join(name)).expect("a pinned map").id()
}

/// The kernel frees a map a little after its last holder is gone.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn packets_are_counted_and_nothing_is_left() {
    in_namespaces("packets_are_counted_and_nothing_is_left", |host| {
        let pin_dir = host.bpffs().join("cmim");
        let v4 = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let v4 = (&v4, v4.local_addr().expect("an address"));
        let v6 = TcpListener::bind((HERE_V6, 0)).expect("a free port");
        let v6 = (&v6, v6.local_addr().expect("an address"));
        let wildcard = SocketAddr::from(([0, 0, 0, 0], v4.1.port()));
        let part = started(KernelMode::Required, &pin_dir, &[INTERFACE], &[(1, wildcard), (2, v6.1)]);

        let report = part.report();
        assert_eq!(report.mode, "on");
        assert_eq!(report.maps, names::MAPS);
        assert_eq!(report.programs[0].attached_to, [INTERFACE]);
        assert_eq!(report.programs[1].attached_to, [names::SOCKETS]);

        for address in [v4.1, v4.1, v4.1, v6.1] {
            host.in_peer(|| TcpStream::connect(address)).expect("the guard passes what it does not know");
        }
        let counters = part.counters().expect("readable").expect("loaded");
        assert_eq!(counters.tcp_syn, 4);
        assert!(counters.to_listener >= 8, "a SYN and an ACK each: {counters:?}");
        assert_eq!(counters.packets, counters.passed);
        let guard = part.guard().expect("readable");
        let syns: Vec<_> = guard.listeners.iter().map(|listener| listener.syns_passed).collect();
        assert_eq!(syns, [3, 1]);

        let ids = names::MAPS.map(|name| map_id(&pin_dir, name));
        drop(part);
        assert!(!pin_dir.exists(), "the directory goes with its pins");
        assert!(!host.link().contains("xdp"), "the guard is detached");
        wait_until("all maps are gone", || ids.iter().all(|id| MapInfo::from_id(*id).is_err()));
    });
}

#[test]
fn a_denied_source_cannot_connect_until_it_is_allowed_again() {
    in_namespaces("a_denied_source_cannot_connect_until_it_is_allowed_again", |host| {
        let mut part = started(KernelMode::Required, &host.bpffs().join("cmim"), &[INTERFACE], &[]);
        for (listener, net) in
            [(TcpListener::bind((HERE_V4, 0)), "198.51.100.0/25"), (TcpListener::bind((HERE_V6, 0)), "2001:db8:5::/64")]
        {
            let address = listener.as_ref().expect("a free port").local_addr().expect("an address");
            let net = net.parse().expect("a literal of this test");
            let connect = |timeout| host.in_peer(|| TcpStream::connect_timeout(&address, timeout));

            part.deny(net).expect("room in the list");
            assert_eq!(part.denied().expect("readable"), [net]);
            connect(Duration::from_millis(300)).expect_err("the SYN is dropped");
            assert!(part.counters().expect("readable").expect("loaded").dropped_denied > 0);

            assert!(part.allow(net).expect("writable"));
            assert!(!part.allow(net).expect("writable"), "it is gone already");
            // Neighbour discovery was dropped as well, and is tried again after a second.
            connect(DEADLINE).expect("nothing is denied now");
        }
    });
}

#[test]
fn bpftool_prints_fields_by_name_with_true_values() {
    let name = "bpftool_prints_fields_by_name_with_true_values";
    in_namespaces(name, move |host| {
        let pin_dir = host.bpffs().join("cmim");
        let listener = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let part = started(KernelMode::Required, &pin_dir, &[INTERFACE], &[(7, address)]);
        host.in_peer(|| TcpStream::connect(address)).expect("the guard passes it");

        let dump = |map: &str| {
            Command::new("bpftool").args(["map", "dump", "pinned"]).arg(pin_dir.join(map)).output().map(|output| {
                let words: Vec<_> =
                    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
                words.join(" ")
            })
        };
        let Ok(listeners) = dump(names::LISTENERS) else {
            return skipped(name, "there is no bpftool");
        };
        assert!(listeners.contains("\"id\": 7, \"row\": 1, \"syns\": 1"), "{listeners}");
        let counters = dump(names::COUNTERS).expect("bpftool is there");
        for (field, value) in part.counters().expect("readable").expect("loaded").named() {
            let label = format!("\"{field}\": ");
            let values = counters.split(&label).skip(1);
            let sum: u64 = values.map(|rest| rest.split([',', ' ']).next().map_or(0, |n| n.parse().unwrap_or(0))).sum();
            assert_eq!(sum, value, "{field} in {counters}");
        }
    });
}

#[test]
fn a_second_daemon_does_without_while_the_first_lives() {
    in_namespaces("a_second_daemon_does_without_while_the_first_lives", |host| {
        let pin_dir = host.bpffs().join("cmim");
        let first = started(KernelMode::Required, &pin_dir, &[], &[]);
        let second = started(KernelMode::Auto, &pin_dir, &[], &[]);
        assert_eq!(second.report().mode, "off");
        let clause = second.missing().join("; ");
        assert!(clause.contains(&format!("a living cmim (process {})", std::process::id())), "{clause}");
        let required = start(&settings(KernelMode::Required, pin_dir.clone(), &[]), &[], 1);
        assert!(matches!(required, Err(KernelError::Incomplete { .. })));
        drop(second);
        assert_eq!(first.report().mode, "on");
        assert!(pin_dir.join(names::LISTENERS).exists(), "the first one's pins are untouched");
    });
}

/// Not a test of its own: the process that the tests of a daemon's death kill. It greets who connects.
#[test]
fn held_until_killed() {
    let (Some(pin_dir), Ok(addresses)) = (std::env::var_os(HOLD), std::env::var(HOLD_ADDRESSES)) else {
        return;
    };
    let doors: Vec<_> = addresses
        .split_whitespace()
        .map(|address| net::bind("web", address.parse().expect("of the test"), 1, &[]).expect("a free port"))
        .collect();
    let listening: Vec<_> = (1..)
        .zip(&doors)
        .map(|(id, door)| Listening { id, name: format!("listener {id}"), address: door.address() })
        .collect();
    let kernel = settings(KernelMode::Required, PathBuf::from(pin_dir), &[INTERFACE]);
    let mut part = start(&kernel, &listening, 1).expect("the kernel part starts here");
    let addresses: Vec<_> = doors.iter().map(net::Bound::address).collect();
    let sockets: Vec<_> = doors.into_iter().flat_map(|door| door.listen().expect("bound")).collect();
    let opened: Vec<_> = addresses
        .iter()
        .zip(&sockets)
        .map(|(address, socket)| OpenSockets { address: *address, sockets: vec![socket.as_fd()] })
        .collect();
    part.open(&opened, &listening).expect("they listen");
    println!("\nready");
    loop {
        for socket in &sockets {
            if let Ok((mut stream, _)) = socket.accept() {
                stream.write_all(b"!").expect("connected");
                std::mem::forget(stream);
            }
        }
        std::thread::yield_now();
    }
}

/// Starts that process, with listeners at these addresses.
fn hold(pin_dir: &Path, addresses: &[&str]) -> Child {
    let module = module_path!().split_once("::").expect("a module of a crate").1;
    // Not by its path, which the test's own mount namespace need not have.
    let mut held = Command::new("/proc/self/exe")
        .args(["--exact", &format!("{module}::held_until_killed"), "--nocapture"])
        .env(HOLD, pin_dir)
        .env(HOLD_ADDRESSES, addresses.join(" "))
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary starts again");
    let lines = BufReader::new(held.stdout.take().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "it came up");
    held
}

#[test]
fn a_start_after_kill_9_cleans_up() {
    in_namespaces("a_start_after_kill_9_cleans_up", |host| {
        let pin_dir = host.bpffs().join("cmim");
        let mut killed = hold(&pin_dir, &[]);
        killed.kill().expect("it is ours");
        killed.wait().expect("it is ours");
        let old = map_id(&pin_dir, names::COUNTERS);
        wait_until("the guard is gone with its daemon", || !host.link().contains("xdp"));

        let part = started(KernelMode::Required, &pin_dir, &[INTERFACE], &[]);
        assert_ne!(map_id(&pin_dir, names::COUNTERS), old);
        wait_until("the dead daemon's map is gone", || MapInfo::from_id(old).is_err());
        drop(part);
        assert!(!pin_dir.exists());
    });
}

#[test]
fn a_daemon_that_dropped_root_still_removes_its_pins() {
    in_namespaces("a_daemon_that_dropped_root_still_removes_its_pins", |host| {
        let pin_dir = host.bpffs().join("cmim");
        let part = started(KernelMode::Required, &pin_dir, &[INTERFACE], &[]);
        part.hand_to(NOBODY).expect("root gives files away");
        become_nobody();
        assert!(part.counters().expect("readable by descriptor").is_some());
        drop(part);
        let left: Vec<_> = std::fs::read_dir(&pin_dir).expect("root's, as the next start needs it").collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!host.link().contains("xdp"), "the guard is detached");
    });
}

#[test]
fn without_rights_auto_says_so_and_required_refuses() {
    in_namespaces("without_rights_auto_says_so_and_required_refuses", |host| {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).expect("anyone may give rights up");
        let part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &[], &[]);
        assert_eq!(part.report().mode, "off");
        assert_eq!(part.missing().len(), 1);
        assert!(part.missing()[0].contains("lacks CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN"), "{:?}", part.missing());
        let required = start(&settings(KernelMode::Required, host.bpffs().join("cmim"), &[]), &[], 1);
        assert!(required.expect_err("not permitted").clause().contains("start as root"));
    });
}

#[test]
fn what_cannot_be_had_is_named_and_the_rest_runs() {
    in_namespaces("what_cannot_be_had_is_named_and_the_rest_runs", |host| {
        let no_bpffs = host.bpffs().parent().expect("it is mounted below a directory").join("plain");
        let part = started(KernelMode::Auto, &no_bpffs, &["cmim-none", INTERFACE], &[]);
        let report = part.report();
        assert_eq!(report.mode, "partial");
        assert_eq!(report.programs[0].attached_to, [INTERFACE]);
        assert!(report.maps.is_empty());
        assert_eq!(report.missing.len(), 2, "{:?}", report.missing);
        assert!(report.missing[0].contains("mount -t bpf bpf"), "{:?}", report.missing);
        assert!(report.missing[1].contains("no interface cmim-none"), "{:?}", report.missing);
        let required = start(&settings(KernelMode::Required, no_bpffs, &["cmim-none"]), &[], 1);
        let clause = required.expect_err("two things are missing").clause();
        assert!(clause.contains("mount -t bpf bpf") && clause.contains("cmim-none"), "{clause}");
    });
}

#[test]
fn off_is_off() {
    let part = started(KernelMode::Off, Path::new("/nowhere"), &["cmim-none"], &[]);
    assert_eq!(part.report().mode, "off");
    assert!(part.missing().is_empty());
    assert_eq!(part.counters().expect("nothing to read"), None);
}
