//! A kernel without one of the pieces: that one is named, and the rest works.

use std::net::{SocketAddr, TcpListener, TcpStream};

use cmim_common::names;

use super::host::{HERE_V4, INTERFACE, in_namespaces, set_sysctl};
use super::{listening, settings};
use crate::config::model::{Kernel, KernelMode, LocalBypass};
use crate::kernel::Listening;
use crate::kernel::part::start_without;
use crate::kernel::piece::Piece;

const ALL: [(Piece, &str); 7] = [
    (Piece::Guard, names::GUARD),
    (Piece::Cookies, ""),
    (Piece::Steer, names::STEER),
    (Piece::Spread, names::SPREAD),
    (Piece::Verdict, names::VERDICT),
    (Piece::SocketTypes, ""),
    (Piece::Local, names::LOCAL_OPS),
];

#[test]
fn each_piece_can_be_missing_and_the_others_run() {
    in_namespaces("each_piece_can_be_missing_and_the_others_run", |host| {
        let sockets = crate::net::bind("web", SocketAddr::from((HERE_V4, 0)).into(), 2, &[]).expect("a free port");
        let one = Listening { id: 1, name: "one".to_owned(), address: sockets.address() };
        let address = sockets.address().bind_address();
        let sockets = sockets.listen().expect("bound before");
        let many = Listening {
            id: 2,
            name: "many".to_owned(),
            address: "203.0.113.0/24:80-89".parse().expect("a literal of this test"),
        };
        for (piece, name) in ALL {
            let kernel = Kernel {
                syn_rate_per_listener: 1_000,
                local_bypass: LocalBypass::On,
                ..settings(KernelMode::Auto, host.bpffs().join("cmim"), &[INTERFACE])
            };
            let both = [one.clone(), many.clone()];
            let mut part = start_without(&kernel, &both, 2, &[piece]).expect("auto goes on");
            let fds = sockets.iter().map(std::os::fd::AsFd::as_fd).collect();
            let opened = part.open(&[crate::kernel::OpenSockets { address: one.address, sockets: fds }], &both[..1]);
            opened.unwrap_or_else(|error| panic!("without {piece:?}: {error}"));
            let report = part.report();
            assert_eq!(report.mode, "partial");
            assert_eq!(report.missing.len(), 1, "{:?}", report.missing);
            assert!(report.missing[0].contains(&format!("no {}", piece.what())), "{:?}", report.missing);
            let running: Vec<_> = report.programs.iter().map(|program| program.name.as_str()).collect();
            let both_of_local = [names::LOCAL_OPS, names::LOCAL_MSG];
            // The local lane's programs read the same of a socket as the verdict.
            let without_local = matches!(piece, Piece::Local | Piece::SocketTypes);
            let is_there = |it: &&str| *it != name && !(without_local && both_of_local.contains(it));
            let expected: Vec<_> =
                [names::GUARD, names::VERDICT, names::LOCAL_OPS, names::LOCAL_MSG, names::STEER, names::SPREAD]
                    .into_iter()
                    .filter(is_there)
                    .collect();
            assert_eq!(running, expected, "without {piece:?}");
            assert_eq!(part.splicer().is_none(), matches!(piece, Piece::Verdict | Piece::SocketTypes), "{piece:?}");
            host.in_peer(|| TcpStream::connect(address)).unwrap_or_else(|error| panic!("without {piece:?}: {error}"));

            let required = Kernel { mode: KernelMode::Required, ..kernel };
            drop(part);
            let refused = start_without(&required, &both, 2, &[piece]).expect_err("one piece is missing").clause();
            assert!(refused.contains(piece.what()), "{refused}");
        }
    });
}

#[test]
fn without_cookies_a_listener_has_a_hard_limit_and_the_reason_is_told() {
    in_namespaces("without_cookies_a_listener_has_a_hard_limit_and_the_reason_is_told", |host| {
        set_sysctl("net.ipv4.tcp_syncookies", 2);
        let listener = TcpListener::bind((HERE_V4, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let kernel =
            Kernel { syn_rate_per_listener: 2, ..settings(KernelMode::Auto, host.bpffs().join("cmim"), &[INTERFACE]) };
        let part = start_without(&kernel, &listening(&[(1, address)]), 1, &[Piece::Cookies]).expect("auto goes on");
        let short = std::time::Duration::from_millis(100);
        let connected =
            host.in_peer(|| (0..10).filter(|_| TcpStream::connect_timeout(&address, short).is_ok()).count());
        assert!((2..=5).contains(&connected), "{connected}");
        let guard = part.guard().expect("readable");
        assert!(!guard.cookies);
        assert!(guard.why_no_cookies.expect("why not").contains("no helpers for SYN cookies"));
        assert_eq!(guard.counters.cookies_sent, 0);
        assert!(guard.counters.dropped_rate > 0);
    });
}
