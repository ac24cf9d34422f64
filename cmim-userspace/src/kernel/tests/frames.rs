//! Packets made by hand, and what the loaded guard says of each (`BPF_PROG_TEST_RUN`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use aya::programs::{Program, TestRun as _, Xdp};
use aya::{TestRunOptions, TestRunResult};
use cmim_common::counters::Counters;
use cmim_common::names;

use super::host::{HERE_MAC, HERE_V4, HERE_V6, INTERFACE, PEER_MAC, PEER_V4, PEER_V6, in_namespaces, ip, set_sysctl};
use super::{listening, settings};
use crate::config::model::{Kernel, KernelMode};
use crate::kernel::KernelPart;
use crate::kernel::start;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
/// MSS 1460, SACK permitted, timestamps, window scaling 7: as Linux sends it.
const LINUX_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// A TCP segment on its way to the guarded interface.
#[derive(Clone)]
pub(super) struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledged: u32,
    pub options: Vec<u8>,
}

impl Segment {
    pub(super) fn new(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self { source, destination, flags, sequence: 1_000, acknowledged: 0, options: LINUX_OPTIONS.to_vec() }
    }

    /// The TCP header with a right checksum.
    fn tcp(&self) -> Vec<u8> {
        let mut tcp = self.source.port().to_be_bytes().to_vec();
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        let words = u8::try_from((20 + self.options.len()) / 4).expect("at most 60 bytes");
        tcp.extend([words << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        let pseudo = [addresses(self.source.ip(), self.destination.ip()), vec![0, TCP, 0, words * 4]].concat();
        let checksum = checksum(&[pseudo, tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&checksum);
        tcp
    }

    /// As it goes over the wire, behind these VLAN tags.
    pub(super) fn frame(&self, tags: &[u16]) -> Vec<u8> {
        let (ethertype, ip) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (0x0800, v4(source, destination, TCP, [0, 0], &[])),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (0x86dd, v6(source, destination, TCP)),
            _ => panic!("addresses of one family"),
        };
        framed(tags, ethertype, &[ip, self.tcp()])
    }
}

fn framed(tags: &[u16], ethertype: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = [HERE_MAC, PEER_MAC].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    let parts = parts.concat();
    frame.extend(with_length(parts, ethertype));
    frame
}

/// Fills the IP header's length and checksum in.
fn with_length(mut packet: Vec<u8>, ethertype: u16) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("a small packet");
    if ethertype == 0x0800 {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let header = usize::from(packet[0] & 0x0f) * 4;
        let checksum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&checksum);
    } else if ethertype == 0x86dd {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    packet
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, fragment: [u8; 2], options: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("a small number of this test");
    let mut header = vec![0x40 | words, 0, 0, 0, 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(options);
    header
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn addresses(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    [source, destination]
        .iter()
        .flat_map(|ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        })
        .collect()
}

/// RFC 1071; of bytes that contain a right one it is zero.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}

/// A loaded guard on no interface.
struct Bench {
    part: KernelPart,
}

impl Bench {
    fn new(kernel: &Kernel, listeners: &[(u32, SocketAddr)]) -> Self {
        Self { part: start(kernel, &listening(listeners), 1).expect("the kernel part starts here") }
    }

    /// The guard's word on a frame, and the frame as it left it.
    fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
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

    fn says(&self, frame: &[u8]) -> u32 {
        self.run(frame).0
    }

    fn counters(&self) -> Counters {
        self.part.counters().expect("readable").expect("loaded")
    }
}

fn client(port: u16) -> SocketAddr {
    (PEER_V4, port).into()
}

fn client_v6(port: u16) -> SocketAddr {
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
        set_sysctl("net.ipv4.tcp_syncookies", 0);
        set_sysctl("net.ipv4.conf.all.forwarding", 1);
        set_sysctl("net.ipv6.conf.all.forwarding", 1);
        ip(&["route", "add", "192.0.2.0/24", "via", &PEER_V4.to_string()]);
        ip(&["-6", "route", "add", "2001:db8:9::/64", "via", &PEER_V6.to_string(), "dev", INTERFACE]);
        let kernel =
            Kernel { syn_rate_per_listener: 1, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) };
        let every = |id, ip: IpAddr| (id, SocketAddr::from((ip, 80)));
        let listeners = [every(1, Ipv4Addr::UNSPECIFIED.into()), every(2, Ipv6Addr::UNSPECIFIED.into())];
        let bench = Bench::new(&kernel, &listeners);
        let elsewhere_v6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
        for (source, here, elsewhere) in [
            (client(1), IpAddr::from(HERE_V4), IpAddr::from([192, 0, 2, 7])),
            (client_v6(1), HERE_V6.into(), elsewhere_v6.into()),
        ] {
            for flags in [0, SYN] {
                let says = |to| bench.says(&Segment::new(source, (to, 80).into(), flags).frame(&[]));
                says(here);
                assert_eq!(says(here), DROP, "flags {flags:#x} to {here}");
                assert_eq!(says(elsewhere), PASS, "flags {flags:#x} to {elsewhere}");
            }
        }
    });
}

#[test]
fn what_the_guard_cannot_read_passes() {
    in_namespaces("what_the_guard_cannot_read_passes", |host| {
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
        let three_tags = null_v4.frame(&[VLAN, VLAN, VLAN]);
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
            ("three tags", three_tags),
            ("extension headers without end", endless),
            ("a later fragment of IPv6", later_v6),
            ("a header shorter than a header", short_header),
            ("IPv4 that says it is IPv6", other_version),
        ] {
            assert_eq!(bench.says(&frame), PASS, "{what}");
        }
        assert_eq!(bench.counters().not_ip, 2, "ARP and three tags");
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
        let other = SocketAddr::from(([198, 51, 100, 4], 1));
        assert_eq!(bench.says(&Segment::new(other, to_v4, SYN).frame(&[])), PASS);
        assert_eq!(bench.counters().dropped_denied, 2);
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

/// Over its rate, on a host whose listeners make cookies always.
fn flooded(host: &super::host::Host, listeners: &[(u32, SocketAddr)]) -> Bench {
    set_sysctl("net.ipv4.tcp_syncookies", 2);
    let rates = Kernel { syn_rate_per_listener: 1, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) };
    let bench = Bench::new(&rates, listeners);
    for (_, to) in listeners {
        let source = if to.is_ipv4() { client(1) } else { client_v6(1) };
        assert_eq!(bench.says(&Segment::new(source, *to, SYN).frame(&[])), PASS, "the only one of this second");
    }
    bench
}

#[test]
fn a_syn_over_the_rate_becomes_its_own_reply_with_a_cookie_that_the_kernel_knows() {
    in_namespaces("a_syn_over_the_rate_becomes_its_own_reply", |host| {
        let v4 = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let v6 = TcpListener::bind((HERE_V6, 0)).expect("a free port");
        let [to_v4, to_v6] = [&v4, &v6].map(|listener| listener.local_addr().expect("an address"));
        let bench = flooded(host, &[(1, to_v4), (2, to_v6)]);
        let mut sent = 0;
        for (source, to, ip_header) in [(client(7_000), to_v4, 20), (client_v6(7_000), to_v6, 40)] {
            for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
                for options in [Vec::new(), vec![2, 4, 5, 180], LINUX_OPTIONS.to_vec(), vec![1; 40]] {
                    let syn = Segment { options, ..Segment::new(source, to, SYN) };
                    let (says, reply) = bench.run(&syn.frame(tags));
                    assert_eq!(says, TX, "{to}, tags {tags:x?}, {} bytes of options", syn.options.len());
                    sent += 1;
                    let at = 14 + 4 * tags.len();
                    assert_eq!(reply.len(), (at + ip_header + 24).max(60));
                    assert_eq!(reply[..12], [PEER_MAC, HERE_MAC].concat());
                    let (ip, tcp) = reply[at..at + ip_header + 24].split_at(ip_header);
                    let from_to = addresses(to.ip(), source.ip());
                    assert!(ip.ends_with(&from_to), "addresses change places");
                    if ip_header == 20 {
                        assert_eq!(checksum(ip), [0, 0]);
                    }
                    assert_eq!(checksum(&[&from_to[..], &[0, TCP, 0, 24], tcp].concat()), [0, 0]);
                    assert_eq!(tcp[..2], to.port().to_be_bytes());
                    assert_eq!(tcp[2..4], source.port().to_be_bytes());
                    assert_eq!(tcp[8..12], (syn.sequence + 1).to_be_bytes());
                    assert_eq!(tcp[13], SYN | ACK);

                    let cookie = u32::from_be_bytes(tcp[4..8].try_into().expect("four bytes"));
                    let ack = Segment {
                        sequence: 1_001,
                        acknowledged: cookie.wrapping_add(1),
                        ..Segment::new(source, to, ACK)
                    };
                    assert_eq!(bench.says(&ack.frame(tags)), PASS);
                    assert_eq!(bench.counters().cookies_returned, sent, "the kernel knows it again");
                    // Not the next number: a cookie holds a place in the kernel's table of segment sizes, so that some of
                    // its neighbours are cookies as well (`__cookie_v4_check`). The upper bits are its minute.
                    let forged = Segment { acknowledged: ack.acknowledged ^ 0x8080_0000, ..ack };
                    assert_eq!(bench.says(&forged.frame(tags)), PASS, "the kernel is to judge it");
                    assert_eq!(bench.counters().cookies_returned, sent, "but it is no cookie");
                }
            }
        }
        let counters = bench.counters();
        assert_eq!(counters.cookies_sent, sent);
        assert_eq!(counters.packets, counters.passed + counters.cookies_sent);
        let guard = bench.part.guard().expect("readable");
        assert_eq!(guard.listeners.iter().map(|listener| listener.cookies_sent).sum::<u64>(), sent);
    });
}

#[test]
fn a_syn_over_the_rate_that_no_cookie_can_answer_is_left_to_the_kernel() {
    in_namespaces("a_syn_over_the_rate_that_no_cookie_can_answer_is_left_to_the_kernel", |host| {
        let listener = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let to = listener.local_addr().expect("an address");
        let nobody = SocketAddr::from((HERE_V4, 9));
        let bench = flooded(host, &[(1, to), (2, nobody)]);
        let syn = Segment::new(client(7_000), to, SYN);
        let unplain = framed(&[], 0x0800, &[v4(PEER_V4, HERE_V4, TCP, [0, 0], &[1; 4]), syn.tcp()]);
        assert_eq!(bench.says(&unplain), PASS, "IP options");
        assert_eq!(bench.says(&Segment::new(client(7_000), nobody, SYN).frame(&[])), PASS, "nobody listens");
        let mut cut = syn.frame(&[]);
        cut.truncate(cut.len() - 4);
        assert_eq!(bench.says(&cut), PASS, "the options are cut");
        let mut long = syn.frame(&[]);
        long[14 + 20 + 12] = 0xf0;
        assert_eq!(bench.says(&long), PASS, "the header says that it is longer than the packet");
        long[14 + 20 + 12] = 0x40;
        assert_eq!(bench.says(&long), PASS, "the header says that it is shorter than a header");
        set_sysctl("net.ipv4.tcp_syncookies", 1);
        assert_eq!(bench.says(&syn.frame(&[])), PASS, "the kernel's queue has room");
        set_sysctl("net.ipv4.tcp_syncookies", 2);
        assert_eq!(bench.says(&syn.frame(&[])), TX);
        assert_eq!(bench.counters().cookies_sent, 1);
    });
}
