//! The guard on real interfaces: raw packets through it, and interfaces that come and go.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use cmim_common::names;

use super::host::{
    HERE_V4, HERE_V6, INTERFACE, PEER_INTERFACE, PEER_V4, PEER_V6, RawLink, become_nobody, in_namespaces, ip,
};
use super::segment::{FIN, PSH, SYN, Segment, URG};
use super::{listening, settings, skipped, started, wait_until};
use crate::config::model::{Kernel, KernelMode, XdpMode};
use crate::kernel::{KernelPart, start};

#[test]
fn impossible_flags_on_the_wire_are_dropped_in_either_mode() {
    in_namespaces("impossible_flags_on_the_wire_are_dropped_in_either_mode", |host| {
        for xdp_mode in [XdpMode::Native, XdpMode::Generic] {
            let v4 = TcpListener::bind((HERE_V4, 0)).expect("a free port").local_addr().expect("an address");
            let v6 = TcpListener::bind((HERE_V6, 0)).expect("a free port").local_addr().expect("an address");
            let kernel = Kernel { xdp_mode, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[INTERFACE]) };
            let part = start(&kernel, &listening(&[(1, v4), (2, v6)]), 1).expect("the kernel part starts here");
            host.in_peer(|| {
                let link = RawLink::open(PEER_INTERFACE);
                for flags in [0, FIN, FIN | PSH | URG, SYN | FIN] {
                    assert!(link.send(&Segment::new((PEER_V4, 5_000).into(), v4, flags).frame(&[])));
                    assert!(link.send(&Segment::new((PEER_V6, 5_000).into(), v6, flags).frame(&[])));
                }
            });
            wait_until("all are dropped", || part.counters().expect("readable").expect("loaded").dropped_flags == 8);
            let place = part.guard().expect("readable").interfaces[0].place.clone();
            assert_eq!(place, if xdp_mode == XdpMode::Native { "native" } else { "generic" });
        }
    });
}

/// Connections that pass the guard one by one, up to the rate.
#[test]
fn a_source_over_its_rate_cannot_connect_and_another_can() {
    in_namespaces("a_source_over_its_rate_cannot_connect_and_another_can", |host| {
        let listener = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let kernel = Kernel {
            syn_rate_per_source: 3,
            ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[INTERFACE])
        };
        let part = start(&kernel, &listening(&[(1, address)]), 1).expect("the kernel part starts here");
        host.in_peer(|| {
            ip(&["addr", "add", "198.51.100.9/24", "dev", PEER_INTERFACE]);
            let short = std::time::Duration::from_millis(150);
            let connected = (0..10).filter(|_| TcpStream::connect_timeout(&address, short).is_ok()).count();
            // Three at once, and some more while the others wait.
            assert!((3..=8).contains(&connected), "{connected} of 10 connected");
            let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            other.bind(&SocketAddr::from(([198, 51, 100, 9], 0)).into()).expect("its own address");
            other.connect_timeout(&address.into(), short).expect("another source has its own rate");
        });
        assert!(part.counters().expect("readable").expect("loaded").dropped_rate >= 2);
    });
}

fn interfaces(part: &KernelPart) -> Vec<String> {
    part.report().programs[0].attached_to.clone()
}

#[test]
fn an_interface_is_guarded_when_it_appears_and_again_when_it_comes_back() {
    in_namespaces("an_interface_is_guarded_when_it_appears_and_again_when_it_comes_back", |host| {
        let mut part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &["cmim7", INTERFACE], &[]);
        assert_eq!(interfaces(&part), [INTERFACE]);
        for _ in 0..2 {
            assert!(part.missing().iter().any(|clause| clause.contains("no interface cmim7")), "{:?}", part.missing());
            ip(&["link", "add", "cmim7", "type", "veth", "peer", "name", "cmim7-peer"]);
            part.look_for_interfaces();
            assert_eq!(interfaces(&part), ["cmim7", INTERFACE]);
            assert!(part.missing().is_empty(), "{:?}", part.missing());
            assert_eq!(part.report().mode, "on");
            ip(&["link", "delete", "cmim7"]);
            part.look_for_interfaces();
            assert_eq!(interfaces(&part), [INTERFACE]);
        }
        // Replaced between two looks.
        ip(&["link", "add", "cmim7", "type", "veth", "peer", "name", "cmim7-peer"]);
        part.look_for_interfaces();
        ip(&["link", "delete", "cmim7"]);
        ip(&["link", "add", "cmim7", "type", "veth", "peer", "name", "cmim7-peer"]);
        part.look_for_interfaces();
        let output = Command::new("ip").args(["link", "show", "cmim7"]).output().expect("ip from iproute2");
        assert!(String::from_utf8_lossy(&output.stdout).contains("xdp"), "the new one is guarded");
    });
}

#[test]
fn an_interface_that_appears_after_root_was_dropped_is_guarded_or_named() {
    in_namespaces("an_interface_that_appears_after_root_was_dropped_is_guarded_or_named", |host| {
        let mut part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &["cmim7"], &[]);
        ip(&["link", "add", "cmim7", "type", "veth", "peer", "name", "cmim7-peer"]);
        become_nobody();
        part.look_for_interfaces();
        let named = part.missing().iter().any(|clause| clause.contains("cmim7"));
        assert_ne!(interfaces(&part) == ["cmim7"], named, "{:?}", part.missing());
    });
}

#[test]
fn an_interface_that_a_foreign_program_leaves_is_guarded_without_a_reload() {
    in_namespaces("an_interface_that_a_foreign_program_leaves_is_guarded_without_a_reload", |host| {
        let foreign = started(KernelMode::Required, &host.bpffs().join("other"), &[INTERFACE], &[]);
        let mut part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &[INTERFACE], &[]);
        part.look_for_interfaces();
        assert_eq!(interfaces(&part), [""; 0]);
        drop(foreign);
        wait_until("it is guarded", || {
            part.look_for_interfaces();
            interfaces(&part) == [INTERFACE]
        });
        assert!(part.missing().is_empty(), "{:?}", part.missing());
    });
}

#[test]
fn an_interface_with_a_foreign_program_is_named_and_the_others_are_guarded() {
    in_namespaces("an_interface_with_a_foreign_program_is_named_and_the_others_are_guarded", |host| {
        ip(&["link", "add", "cmim7", "type", "veth", "peer", "name", "cmim7-peer"]);
        let foreign = started(KernelMode::Required, &host.bpffs().join("other"), &["cmim7"], &[]);
        let mut part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &["cmim7", INTERFACE], &[]);
        assert_eq!(interfaces(&part), [INTERFACE]);
        let clause = part.missing().join("; ");
        assert!(clause.contains(names::GUARD) && clause.contains("bpftool net"), "{clause}");
        drop(foreign);
        part.set_interfaces(&["cmim7".to_owned(), INTERFACE.to_owned()]);
        assert_eq!(interfaces(&part), ["cmim7", INTERFACE], "a reload tries it again");
        drop(part);
        let required = settings(KernelMode::Required, host.bpffs().join("third"), &["cmim7", "cmim8"]);
        let refused = start(&required, &[], 1).expect_err("one is not there").clause();
        assert!(refused.contains("no interface cmim8"), "{refused}");
    });
}

#[test]
fn an_interface_without_ethernet_headers_is_named_and_not_taken_for_guarded() {
    let name = "an_interface_without_ethernet_headers_is_named_and_not_taken_for_guarded";
    in_namespaces(name, move |host| {
        let made = Command::new("ip").args(["tuntap", "add", "cmim7", "mode", "tun"]).status();
        if !made.expect("ip from iproute2").success() {
            return skipped(name, "this kernel has no tun");
        }
        let part = started(KernelMode::Auto, &host.bpffs().join("cmim"), &["cmim7", "lo", INTERFACE], &[]);
        assert_eq!(interfaces(&part), ["lo", INTERFACE]);
        let clause = part.missing().join("; ");
        assert!(clause.contains("interface cmim7 has no Ethernet headers") && !clause.contains("bpftool"), "{clause}");
        drop(part);
        let required = settings(KernelMode::Required, host.bpffs().join("other"), &["cmim7"]);
        let refused = start(&required, &[], 1).expect_err("it is not guarded").clause();
        assert!(refused.contains("take it out of kernel.interfaces"), "{refused}");
    });
}
