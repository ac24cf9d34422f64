//! What the kernel delivers, however it is wrapped, the guard has judged: one SYN in many wrappings, with and without
//! the guard.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Instant;

use super::host::{Capture, HERE_V4, HERE_V6, Host, INTERFACE, PEER_INTERFACE, RawLink, in_namespaces, ip};
use super::segment::{SYN, Segment};
use super::wrapping::{self, Random, Wrapped, wrapped};
use super::{DEADLINE, listening, settings};
use crate::config::model::{Kernel, KernelMode, XdpMode};
use crate::kernel::{KernelPart, start};

/// Of each family.
const SHAPES: u16 = 250;
/// At least so many of each family must be such that the kernel takes them, or the test would show nothing.
const ENOUGH: usize = 120;
/// Another one gives other wrappings.
const SEED: &str = "CMIM_TEST_SEED";

/// Addresses that nobody has: nothing resets what the listener answers them.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x77);

/// One family's listener and those who want to connect to it.
struct Family {
    _listener: TcpListener,
    to: SocketAddr,
    source: IpAddr,
    seed: u64,
    witnesses: Cell<u8>,
}

impl Family {
    fn new(here: IpAddr, source: IpAddr, seed: u64) -> Self {
        make_known(source);
        let listener = TcpListener::bind((here, 0)).expect("a free port");
        let to = listener.local_addr().expect("an address");
        Self { _listener: listener, to, source, seed, witnesses: Cell::new(0) }
    }

    /// A source that has not been seen, and so is within any rate.
    fn witness(&self) -> SocketAddr {
        let number = self.witnesses.get() + 1;
        self.witnesses.set(number);
        let address = match self.source {
            IpAddr::V4(_) => IpAddr::from([198, 51, 100, 100 + number]),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 6, number.into(), 0, 0, 0, 0x99).into(),
        };
        make_known(address);
        (address, 9_999).into()
    }

    /// The same wrappings each time, from ports that nothing was sent from yet.
    fn shapes(&self, first_port: u16) -> Vec<Wrapped> {
        let mut random = Random(self.seed);
        let ports = first_port..first_port + SHAPES;
        ports.map(|port| wrapped(&mut random, (self.source, port).into(), self.to)).collect()
    }

    /// Which of the shapes the listener answers. What is expected is waited for; for what is not, a SYN that comes behind
    /// all of them and is answered says that they were looked at.
    fn answered(&self, host: &Host, shapes: &[Wrapped], first_port: u16, expected: &BTreeSet<u16>) -> BTreeSet<u16> {
        // Two, as two CPUs may have their queues.
        let witnesses = [self.witness(), self.witness()];
        host.in_peer(|| {
            let (link, capture) = (RawLink::open(PEER_INTERFACE), Capture::open(PEER_INTERFACE));
            let mut answered = BTreeSet::new();
            let mut note = |frame: &[u8]| {
                let port = wrapping::answered(frame, self.to, self.source);
                answered.extend(port.and_then(|port| port.checked_sub(first_port)));
                expected.is_subset(&answered)
            };
            for shape in shapes {
                for frame in &shape.frames {
                    let end = Instant::now() + DEADLINE;
                    while !link.send(frame) {
                        assert!(Instant::now() < end, "no room for {} bytes", frame.len());
                        std::thread::yield_now();
                    }
                }
                capture.waiting(|frame| {
                    note(frame);
                });
            }
            let end = Instant::now() + DEADLINE;
            for witness in witnesses {
                let mut is_there = false;
                let mut are_all_there = false;
                link.send(&Segment::new(witness, self.to, SYN).frame(&[]));
                while !(is_there && are_all_there) && Instant::now() < end {
                    capture.waiting(|frame| {
                        are_all_there = note(frame);
                        is_there |= wrapping::answered(frame, self.to, witness.ip()).is_some();
                    });
                    std::thread::yield_now();
                }
                assert!(is_there, "the witness is answered");
            }
            answered
        })
    }

    fn describe(&self, shapes: &[Wrapped], numbers: impl Iterator<Item = u16>) -> String {
        let lines = numbers.map(|number| format!("  {number}: {}\n", shapes[usize::from(number)].shape));
        format!("seed {}, to {}:\n{}", self.seed, self.to, lines.collect::<String>())
    }
}

/// Where the answers to this address go.
fn make_known(address: IpAddr) {
    ip(&["neigh", "add", &address.to_string(), "lladdr", "02:00:00:00:00:01", "dev", INTERFACE]);
}

fn guarded(host: &Host, xdp_mode: XdpMode, families: &[Family], syn_rate_per_source: u64) -> KernelPart {
    let kernel = Kernel {
        xdp_mode,
        syn_rate_per_source,
        ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[INTERFACE])
    };
    let listeners: Vec<_> = (1..).zip(families).map(|(id, family)| (id, family.to)).collect();
    start(&kernel, &listening(&listeners), 1).expect("the kernel part starts here")
}

fn families() -> [Family; 2] {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(14);
    ip(&["route", "add", "2001:db8:6::/48", "dev", INTERFACE]);
    [Family::new(HERE_V4.into(), SOURCE_V4.into(), seed), Family::new(HERE_V6.into(), SOURCE_V6.into(), seed + 1)]
}

#[test]
fn a_denied_source_connects_in_no_wrapping_and_another_in_each_that_can_be_read() {
    in_namespaces("a_denied_source_connects_in_no_wrapping", |host| {
        let families = families();
        let mut first_port = 10_000;
        let delivered = families.each_ref().map(|family| {
            let shapes = family.shapes(first_port);
            // Nothing is known yet of which there will be.
            let delivered = family.answered(host, &shapes, first_port, &BTreeSet::new());
            assert!(delivered.len() >= ENOUGH, "the kernel takes only {} of {SHAPES}", delivered.len());
            delivered
        });
        for xdp_mode in [XdpMode::Native, XdpMode::Generic] {
            let mut part = guarded(host, xdp_mode, &families, 0);
            for (family, delivered) in families.iter().zip(&delivered) {
                first_port += SHAPES;
                let shapes = family.shapes(first_port);
                let is_legible = |number: &u16| shapes[usize::from(*number)].is_legible;
                let expected: BTreeSet<_> = delivered.iter().copied().filter(is_legible).collect();
                let passed = family.answered(host, &shapes, first_port, &expected);
                let wrong = family.describe(&shapes, passed.symmetric_difference(&expected).copied());
                assert_eq!(passed, expected, "{xdp_mode:?}, {wrong}");
                assert!(passed.len() < delivered.len(), "some have their flags in a later fragment");

                part.deny(family.source.into()).expect("room in the list");
                first_port += SHAPES;
                let shapes = family.shapes(first_port);
                let passed = family.answered(host, &shapes, first_port, &BTreeSet::new());
                assert!(passed.is_empty(), "{xdp_mode:?}, {}", family.describe(&shapes, passed.iter().copied()));
                println!(
                    "{xdp_mode:?}, {}: {} wrappings, the kernel takes {}, of which the guard passes {}; denied: 0",
                    family.source,
                    SHAPES,
                    delivered.len(),
                    expected.len()
                );
            }
            let counters = part.counters().expect("readable").expect("loaded");
            assert!(counters.dropped_wrapped > 0, "{counters:?}");
        }
    });
}

#[test]
fn a_source_is_held_to_its_rate_in_any_wrapping() {
    in_namespaces("a_source_is_held_to_its_rate_in_any_wrapping", |host| {
        let families = families();
        let mut first_port = 10_000;
        for xdp_mode in [XdpMode::Native, XdpMode::Generic] {
            let _part = guarded(host, xdp_mode, &families, 1);
            for family in &families {
                first_port += SHAPES;
                let (shapes, began) = (family.shapes(first_port), Instant::now());
                let passed = family.answered(host, &shapes, first_port, &BTreeSet::new());
                // One at once and one a second; the witness has a rate of its own.
                let most = 2 + usize::try_from(began.elapsed().as_secs()).expect("a short test");
                assert!(passed.len() <= most, "{xdp_mode:?}, {}", family.describe(&shapes, passed.iter().copied()));
            }
        }
    });
}
