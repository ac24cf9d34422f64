//! The guard's own replies to SYNs over a rate: each with a cookie that the kernel knows.

use std::net::{SocketAddr, TcpListener};

use super::frames::{Bench, PASS, TX, client, client_v6};
use super::host::{HERE_MAC, HERE_V4, HERE_V6, Host, PEER_MAC, PEER_V4, in_namespaces, set_sysctl};
use super::segment::{ACK, LINUX_OPTIONS, SERVICE_VLAN, SYN, Segment, TCP, VLAN, addresses, checksum, framed, v4};
use super::settings;
use crate::config::model::{Kernel, KernelMode};

/// Over its rate, on a host whose listeners make cookies always.
fn flooded(host: &Host, listeners: &[(u32, SocketAddr)]) -> Bench {
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
fn a_syn_that_may_have_lost_a_tag_to_the_driver_is_left_to_the_kernel() {
    // `BPF_PROG_TEST_RUN` has its frames come in by the loopback interface, which is the first of every namespace.
    const LOOPBACK: u32 = 1;
    in_namespaces("a_syn_that_may_have_lost_a_tag_to_the_driver_is_left_to_the_kernel", |host| {
        let listener = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let to = listener.local_addr().expect("an address");
        let mut bench = flooded(host, &[(1, to)]);
        let syn = Segment::new(client(7_000), to, SYN);
        for (deepest, answered) in [(0, [TX, TX, TX]), (1, [PASS, TX, TX]), (2, [PASS, PASS, TX]), (0, [TX, TX, TX])] {
            let links = &mut bench.part.loaded_mut().expect("loaded").links;
            links.tell([(LOOPBACK, deepest)].into_iter().filter(|(_, deepest)| *deepest > 0));
            for (tags, expected) in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]].into_iter().zip(answered) {
                assert_eq!(bench.says(&syn.frame(tags)), expected, "{deepest} devices, tags {tags:x?}");
            }
        }
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
