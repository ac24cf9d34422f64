//! What the loaded guard says of single packets (`BPF_PROG_TEST_RUN`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::programs::{Program, TestRun as _, Xdp};
use aya::{TestRunOptions, TestRunResult};
use cmim_common::counters::Counters;
use cmim_common::names;

use super::host::{HERE_V4, HERE_V6, Host, INTERFACE, PEER_V4, PEER_V6, in_namespaces, ip, set_sysctl};
use super::segment::{ACK, FIN, PSH, RST, SERVICE_VLAN, SYN, Segment, TCP, UDP, URG, VLAN, framed, v4, v6};
use super::{listening, settings};
use crate::config::model::{Kernel, KernelMode};
use crate::kernel::{KernelPart, Listening, start};

const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;
pub(super) const TX: u32 = 3;

/// A loaded guard on no interface.
pub(super) struct Bench {
    pub part: KernelPart,
}

impl Bench {
    pub(super) fn new(kernel: &Kernel, listeners: &[(u32, SocketAddr)]) -> Self {
        Self { part: start(kernel, &listening(listeners), 1).expect("the kernel part starts here") }
    }

    /// The guard's word on a frame, and the frame as it left it.
    pub(super) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let ebpf = self.part.loaded().expect("loaded").ebpf();
        let Some(Program::Xdp(guard)) = ebpf.program(names::GUARD) else {
            panic!("the guard is an XDP program");
        };
        let guard: &Xdp = guard;
        let mut out = vec![0; 2_048];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let TestRunResult { return_value, data_size_out, .. } = guard.test_run(options).expect("a frame of Ethernet");
        out.truncate(usize::try_from(data_size_out).expect("a small frame"));
        (return_value, out)
    }

    pub(super) fn says(&self, frame: &[u8]) -> u32 {
        self.run(frame).0
    }

    pub(super) fn counters(&self) -> Counters {
        self.part.counters().expect("readable").expect("loaded")
    }
}

pub(super) fn client(port: u16) -> SocketAddr {
    (PEER_V4, port).into()
}

pub(super) fn client_v6(port: u16) -> SocketAddr {
    (PEER_V6, port).into()
}

#[test]
fn impossible_flags_are_dropped_to_a_listener_only_behind_tags_options_and_extension_headers() {
    in_namespaces("impossible_flags_are_dropped_to_a_listener_only", |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let (to_v4, to_v6) = (SocketAddr::from((HERE_V4, 80)), SocketAddr::from((HERE_V6, 80)));
        let bench = Bench::new(&kernel, &[(1, ([0, 0, 0, 0], 80).into()), (2, to_v6)]);
        let mut dropped = 0;
        for (flags, expected) in [
            (0, DROP),
            (FIN, DROP),
            (FIN | PSH | URG, DROP),
            (SYN | FIN, DROP),
            (SYN | RST, DROP),
            (FIN | RST | ACK, DROP),
            (0xff, DROP),
            (SYN, PASS),
            (SYN | ACK, PASS),
            (ACK, PASS),
            (FIN | ACK, PASS),
            (RST, PASS),
            (ACK | PSH | URG, PASS),
        ] {
            for segment in [Segment::new(client(5_000), to_v4, flags), Segment::new(client_v6(5_000), to_v6, flags)] {
                for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
                    assert_eq!(bench.says(&segment.frame(tags)), expected, "flags {flags:#x}, tags {tags:x?}");
                    dropped += u64::from(expected == DROP);
                }
                let elsewhere = Segment { destination: (segment.destination.ip(), 81).into(), ..segment.clone() };
                assert_eq!(bench.says(&elsewhere.frame(&[])), PASS, "flags {flags:#x} to no listener");
            }
        }
        let null = Segment::new(client(5_000), to_v4, 0).tcp();
        let options = framed(&[], 0x0800, &[v4(PEER_V4, HERE_V4, TCP, [0, 0], &[1; 12]), null.clone()]);
        let first_fragment = framed(&[], 0x0800, &[v4(PEER_V4, HERE_V4, TCP, [0x20, 0], &[]), null]);
        let null = Segment::new(client_v6(5_000), to_v6, 0).tcp();
        let extensions = vec![60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 1];
        let extended = framed(&[], 0x86dd, &[v6(PEER_V6, HERE_V6, 0), extensions, null]);
        for frame in [&options, &first_fragment, &extended] {
            assert_eq!(bench.says(frame), DROP);
            dropped += 1;
        }
        let counters = bench.counters();
        assert_eq!(counters.dropped_flags, dropped);
        assert_eq!(counters.packets, counters.passed + dropped);
        let per_listener: u64 = bench.part.guard().expect("readable").listeners.iter().map(|it| it.dropped_flags).sum();
        assert_eq!(per_listener, dropped);
    });
}

#[test]
fn a_listener_on_every_address_is_not_on_those_that_the_host_forwards_to() {
    in_namespaces("a_listener_on_every_address_is_not_on_those_that_the_host_forwards_to", |host| {
        let kernel = forwarding(host);
        let every = |id, ip: IpAddr| (id, SocketAddr::from((ip, 80)));
        let listeners = [every(1, Ipv4Addr::UNSPECIFIED.into()), every(2, Ipv6Addr::UNSPECIFIED.into())];
        let bench = Bench::new(&kernel, &listeners);
        drops_here_and_not_elsewhere(&bench, HERE_V4.into(), HERE_V6.into());
    });
}

#[test]
fn a_listener_on_a_network_is_not_on_its_addresses_that_the_host_forwards_to() {
    in_namespaces("a_listener_on_a_network_is_not_on_its_addresses_that_the_host_forwards_to", |host| {
        let kernel = forwarding(host);
        ip(&["route", "add", "local", "192.0.2.128/25", "dev", "lo"]);
        ip(&["-6", "route", "add", "local", "2001:db8:9:0:8000::/65", "dev", "lo"]);
        let listening = ["192.0.2.0/24:80", "[2001:db8:9::/64]:80"].map(|address| Listening {
            id: 1,
            name: "web".to_owned(),
            address: address.parse().expect("a literal of this test"),
        });
        let bench = Bench { part: start(&kernel, &listening, 1).expect("the kernel part starts here") };
        let here_v6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0x8000, 0, 0, 7);
        drops_here_and_not_elsewhere(&bench, [192, 0, 2, 200].into(), here_v6.into());
    });
}

/// Makes this host forward to some addresses of others; SYNs over a rate are dropped.
fn forwarding(host: &Host) -> Kernel {
    set_sysctl("net.ipv4.tcp_syncookies", 0);
    set_sysctl("net.ipv4.conf.all.forwarding", 1);
    set_sysctl("net.ipv6.conf.all.forwarding", 1);
    ip(&["route", "add", "192.0.2.0/24", "via", &PEER_V4.to_string()]);
    ip(&["-6", "route", "add", "2001:db8:9::/64", "via", &PEER_V6.to_string(), "dev", INTERFACE]);
    Kernel { syn_rate_per_listener: 1, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) }
}

fn drops_here_and_not_elsewhere(bench: &Bench, here_v4: IpAddr, here_v6: IpAddr) {
    let elsewhere_v6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
    for (source, here, elsewhere) in
        [(client(1), here_v4, IpAddr::from([192, 0, 2, 7])), (client_v6(1), here_v6, elsewhere_v6.into())]
    {
        for flags in [0, SYN] {
            let says = |to| bench.says(&Segment::new(source, (to, 80).into(), flags).frame(&[]));
            says(here);
            assert_eq!(says(here), DROP, "flags {flags:#x} to {here}");
            assert_eq!(says(elsewhere), PASS, "flags {flags:#x} to {elsewhere}");
        }
    }
}

#[test]
fn what_the_kernel_delivers_to_no_listener_passes() {
    in_namespaces("what_the_kernel_delivers_to_no_listener_passes", |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let (to_v4, to_v6) = (SocketAddr::from((HERE_V4, 80)), SocketAddr::from((HERE_V6, 80)));
        let bench = Bench::new(&kernel, &[(1, to_v4), (2, to_v6)]);
        let null_v4 = Segment::new(client(5_000), to_v4, 0);
        let null_v6 = Segment::new(client_v6(5_000), to_v6, 0);

        // Cut at every byte; the kernel takes no frame that is shorter than its link header.
        for whole in [null_v4.frame(&[VLAN]), null_v6.frame(&[])] {
            let flags_at = whole.len() - 40 + 13;
            for length in 14..whole.len() {
                let expected = if length > flags_at { DROP } else { PASS };
                assert_eq!(bench.says(&whole[..length]), expected, "cut at {length}");
            }
        }
        let cut = bench.counters().truncated;
        assert!(cut > 50, "{cut}");

        let later_fragment = framed(&[], 0x0800, &[v4(PEER_V4, HERE_V4, TCP, [0, 2], &[]), null_v4.tcp()]);
        let udp = framed(&[], 0x0800, &[v4(PEER_V4, HERE_V4, UDP, [0, 0], &[]), null_v4.tcp()]);
        let arp = framed(&[], 0x0806, &[vec![0; 28]]);
        let endless =
            framed(&[], 0x86dd, &[v6(PEER_V6, HERE_V6, 0), [0, 0, 1, 4, 0, 0, 0, 0].repeat(50), null_v6.tcp()]);
        let later_v6 = framed(&[], 0x86dd, &[v6(PEER_V6, HERE_V6, 44), vec![6, 0, 0, 8, 0, 0, 0, 1], null_v6.tcp()]);
        let mut short_header = null_v4.frame(&[]);
        short_header[14] = 0x44;
        let mut other_version = null_v4.frame(&[]);
        other_version[14] = 0x65;
        for (what, frame) in [
            ("a later fragment", later_fragment),
            ("UDP", udp),
            ("ARP", arp),
            ("extension headers without end", endless),
            ("a later fragment of IPv6", later_v6),
            ("a header shorter than a header", short_header),
            ("IPv4 that says it is IPv6", other_version),
        ] {
            assert_eq!(bench.says(&frame), PASS, "{what}");
        }
        assert_eq!(bench.counters().not_ip, 1, "ARP");
    });
}

#[test]
fn what_cannot_be_read_is_dropped_here_and_passes_to_those_that_the_host_forwards_to() {
    in_namespaces("what_cannot_be_read_is_dropped_here", |host| {
        let bench = Bench::new(&forwarding(host), &[(1, ([0, 0, 0, 0], 80).into())]);
        let syn = Segment::new(client(1), (HERE_V4, 80).into(), SYN).tcp();
        let elsewhere_v6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
        let in_v4 = |to, options: &[u8], payload: &[u8], fragment| {
            framed(&[], 0x0800, &[v4(PEER_V4, to, TCP, fragment, options), payload.to_vec()])
        };
        let in_v6 = |to, next, headers: Vec<u8>| framed(&[], 0x86dd, &[v6(PEER_V6, to, next), headers, syn.clone()]);
        let mut dropped = 0;
        for (to_v4, to_v6, expected) in [(HERE_V4, HERE_V6, DROP), (Ipv4Addr::new(192, 0, 2, 7), elsewhere_v6, PASS)] {
            for (what, frame) in [
                ("a first fragment without flags", in_v4(to_v4, &[], &syn[..8], [0x20, 0])),
                ("a fragment that begins with the flags", in_v4(to_v4, &[], &syn[8..], [0, 1])),
                ("a source route", in_v4(to_v4, &[131, 7, 4, 198, 51, 100, 2, 0], &syn, [0, 0])),
                ("a routing header with a hop left", in_v6(to_v6, 43, vec![6, 0, 0, 1, 0, 0, 0, 0])),
                ("a segment routing header", in_v6(to_v6, 43, vec![41, 0, 4, 0, 0, 0, 0, 0])),
                ("more extension headers than are walked", in_v6(to_v6, 60, [60, 0, 1, 4, 0, 0, 0, 0].repeat(185))),
            ] {
                assert_eq!(bench.says(&frame), expected, "{what} to {to_v4} or {to_v6}");
                dropped += u64::from(expected == DROP);
            }
        }
        let tags = framed(&[VLAN; 400], 0x0800, &[v4(PEER_V4, HERE_V4, TCP, [0, 0], &[]), syn]);
        assert_eq!(bench.says(&tags), DROP, "more tags than are read");
        let counters = bench.counters();
        assert_eq!(counters.dropped_wrapped, dropped + 1);
        assert_eq!(counters.packets, counters.passed + counters.dropped_wrapped);
    });
}

#[test]
fn a_denied_source_is_dropped_whatever_it_sends() {
    in_namespaces("a_denied_source_is_dropped_whatever_it_sends", |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let mut bench = Bench::new(&kernel, &[]);
        for sources in ["198.51.100.0/30", "2001:db8:5::/64"] {
            bench.part.deny(sources.parse().expect("a literal of this test")).expect("room in the list");
        }
        let to_v4 = SocketAddr::from((HERE_V4, 80));
        assert_eq!(bench.says(&Segment::new(client(1), to_v4, SYN).frame(&[])), DROP);
        assert_eq!(bench.says(&Segment::new(client_v6(1), (HERE_V6, 80).into(), ACK).frame(&[VLAN])), DROP);
        let mapped = framed(&[], 0x86dd, &[v6(PEER_V4.to_ipv6_mapped(), HERE_V6, TCP), vec![0; 20]]);
        assert_eq!(bench.says(&mapped), DROP, "an address of IPv4 in IPv6's form");
        let other = SocketAddr::from(([198, 51, 100, 4], 1));
        assert_eq!(bench.says(&Segment::new(other, to_v4, SYN).frame(&[])), PASS);
        assert_eq!(bench.counters().dropped_denied, 3);
    });
}

#[test]
fn a_full_deny_list_says_so_and_keeps_what_it_has() {
    in_namespaces("a_full_deny_list_says_so_and_keeps_what_it_has", |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let mut bench = Bench::new(&kernel, &[]);
        let most = u32::try_from(cmim_common::deny::MAX_DENIED).expect("it fits");
        let source = |number: u32| Ipv4Addr::from(0x0a00_0000 + number);
        for number in 0..most {
            bench.part.deny(IpAddr::from(source(number)).into()).expect("room in the list");
        }
        let error = bench.part.deny(IpAddr::from(source(most)).into()).expect_err("no room").clause();
        assert_eq!(error, "map CMIM_DENY_V4 is full (deny larger networks instead of single addresses)");
        let syn = |number| Segment::new((source(number), 1).into(), (HERE_V4, 80).into(), SYN).frame(&[]);
        assert_eq!(bench.says(&syn(most - 1)), DROP);
        assert_eq!(bench.says(&syn(most)), PASS);
        bench.part.allow(IpAddr::from(source(7)).into()).expect("it is there");
        bench.part.deny(IpAddr::from(source(most)).into()).expect("there is room again");
    });
}

#[test]
fn a_source_over_its_rate_is_dropped_and_others_are_not() {
    in_namespaces("a_source_over_its_rate_is_dropped_and_others_are_not", |host| {
        let rates = Kernel { syn_rate_per_source: 5, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) };
        let (to_v4, to_v6) = (SocketAddr::from((HERE_V4, 80)), SocketAddr::from((HERE_V6, 80)));
        let mut bench = Bench::new(&rates, &[(1, to_v4), (2, to_v6)]);
        let passed = |bench: &Bench, source: SocketAddr, to: SocketAddr, flags| {
            let frame = Segment::new(source, to, flags).frame(&[]);
            (0..50).filter(|_| bench.says(&frame) == PASS).count()
        };
        assert_eq!(passed(&bench, client(1), to_v4, SYN), 5);
        assert_eq!(passed(&bench, client(2), to_v4, SYN), 0, "a port is no other source");
        assert_eq!(passed(&bench, ([198, 51, 100, 9], 1).into(), to_v4, SYN), 5);
        assert_eq!(passed(&bench, client(1), to_v4, ACK), 50, "only SYNs are counted");
        assert_eq!(passed(&bench, client(1), (HERE_V4, 81).into(), SYN), 50, "only to listeners");
        assert_eq!(passed(&bench, client_v6(1), to_v6, SYN), 5);
        let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x99);
        assert_eq!(passed(&bench, (neighbour, 1).into(), to_v6, SYN), 0, "a network of 64 bits is one source");
        assert_eq!(bench.counters().dropped_rate, 3 * 45 + 2 * 50);

        bench.part.set_limits(&Kernel { syn_rate_per_source: 0, ..rates }).expect("writable");
        assert_eq!(passed(&bench, client(1), to_v4, SYN), 50, "at once, and without a start");
    });
}

#[test]
fn a_listener_over_its_rate_is_closed_where_the_host_takes_no_cookies() {
    in_namespaces("a_listener_over_its_rate_is_closed_where_the_host_takes_no_cookies", |host| {
        set_sysctl("net.ipv4.tcp_syncookies", 0);
        let rates =
            Kernel { syn_rate_per_listener: 20, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) };
        let (to, other) = (SocketAddr::from((HERE_V4, 80)), SocketAddr::from((HERE_V4, 81)));
        let bench = Bench::new(&rates, &[(1, to), (2, other)]);
        let passed =
            |to| (0..100).filter(|port| bench.says(&Segment::new(client(*port), to, SYN).frame(&[])) == PASS).count();
        assert_eq!(passed(to), 20);
        assert_eq!(passed(other), 20, "each listener has its own");
        let guard = bench.part.guard().expect("readable");
        assert!(!guard.cookies);
        assert!(guard.why_no_cookies.expect("why not").contains("tcp_syncookies is 0"));
        assert_eq!(guard.listeners[0].dropped_rate, 80);
        assert_eq!(guard.listeners[0].syns_passed, 20);
    });
}
