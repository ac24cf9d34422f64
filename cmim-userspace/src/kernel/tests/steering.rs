//! Connections for networks and ranges of ports, and the choice among workers, between namespaces.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use cmim_common::names;
use cmim_common::spread::MAX_ROWS;

use super::host::{HERE_V4, HERE_V6, Host, INTERFACE, PEER_INTERFACE, in_namespaces, ip};
use super::{DEADLINE, settings, wait_until};
use crate::config::model::{KernelMode, ListenAddress};
use crate::kernel::{KernelPart, Listening, OpenSockets, start};
use crate::net;

/// A listener with its sockets, as the daemon has it.
struct Door {
    listening: Listening,
    sockets: Vec<TcpListener>,
}

impl Door {
    fn open(id: u32, address: &str, workers: usize) -> Self {
        let address: ListenAddress = address.parse().expect("a literal of this test");
        let bound = net::bind("web", address, workers, &[]).expect("a free port");
        let listening = Listening { id, name: format!("listener {id}"), address: bound.address() };
        let sockets = bound.listen().expect("bound before");
        Self { listening, sockets }
    }

    fn open_sockets(&self) -> OpenSockets<'_> {
        let sockets = self.sockets.iter().map(|socket| socket.as_fd()).collect();
        OpenSockets { address: self.listening.address, sockets }
    }

    /// The end of the device of the next connection; `None`: none comes.
    fn accept(&self) -> Option<SocketAddr> {
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            if let Some((stream, _)) = self.sockets.iter().find_map(|socket| socket.accept().ok()) {
                return Some(stream.local_addr().expect("connected"));
            }
            std::thread::yield_now();
        }
        None
    }

    /// Connections that wait at each worker's socket, taken in.
    fn accept_all(&self, streams: &mut [Vec<TcpStream>]) -> Vec<usize> {
        let each = self.sockets.iter().zip(streams).map(|(socket, streams)| {
            let before = streams.len();
            streams.extend(std::iter::from_fn(|| socket.accept().ok().map(|(stream, _)| stream)));
            streams.len() - before
        });
        each.collect()
    }
}

fn listen(host: &Host, doors: &[&Door], interfaces: &[&str]) -> KernelPart {
    let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), interfaces);
    let listening: Vec<_> = doors.iter().map(|door| door.listening.clone()).collect();
    let workers = doors.first().map_or(1, |door| door.sockets.len());
    let mut part = start(&kernel, &listening, workers).expect("the kernel part starts here");
    let sockets: Vec<_> = doors.iter().map(|door| door.open_sockets()).collect();
    part.open(&sockets, &listening).expect("they listen");
    part
}

/// Addresses of a network that no interface has, but that are this host's.
fn route_networks(host: &Host) {
    ip(&["route", "add", "local", "203.0.113.0/24", "dev", "lo"]);
    ip(&["-6", "route", "add", "local", "2001:db8:77::/64", "dev", "lo"]);
    host.in_peer(|| {
        ip(&["route", "add", "203.0.113.0/24", "via", &HERE_V4.to_string()]);
        ip(&["-6", "route", "add", "2001:db8:77::/64", "via", &HERE_V6.to_string(), "dev", PEER_INTERFACE]);
    });
}

fn connect(host: &Host, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("a literal of this test");
    host.in_peer(|| TcpStream::connect_timeout(&address, DEADLINE))
}

#[test]
fn networks_and_ranges_of_ports_lead_to_their_listener_and_nothing_else_does() {
    in_namespaces("networks_and_ranges_of_ports_lead_to_their_listener_and_nothing_else_does", |host| {
        route_networks(host);
        let v4 = Door::open(1, "203.0.113.0/24:80-89", 2);
        let v6 = Door::open(2, "[2001:db8:77::/64]:80", 2);
        let exact = Door::open(3, "203.0.113.99:81", 2);
        let part = listen(host, &[&v4, &v6, &exact], &[INTERFACE]);
        assert!(host.bpffs().join("cmim").join(names::STEER_LINK).exists());
        for (door, address) in [
            (&v4, "203.0.113.0:80"),
            (&v4, "203.0.113.7:80"),
            (&v4, "203.0.113.255:89"),
            (&v6, "[2001:db8:77::1234]:80"),
            (&v6, "[2001:db8:77:0:ffff::1]:80"),
            (&exact, "203.0.113.99:81"),
            (&v4, "203.0.113.99:82"),
        ] {
            let _stream = connect(host, address).unwrap_or_else(|error| panic!("{address}: {error}"));
            let local = door.accept().unwrap_or_else(|| panic!("{address} leads elsewhere"));
            assert_eq!(local.to_string(), address, "the connection keeps the address that was asked for");
        }
        for address in ["203.0.113.7:90", "[2001:db8:77::1]:81", "198.51.100.2:80"] {
            let error = connect(host, address).expect_err("nobody listens there");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
        }
        let guard = part.guard().expect("readable");
        let syns: Vec<_> = guard.listeners.iter().map(|listener| listener.syns_passed).collect();
        assert_eq!(syns, [4, 2, 1], "the guard knows them as well");
        let programs = part.report().programs;
        let steer = programs.iter().find(|program| program.name == names::STEER).expect("it is there");
        assert_eq!(steer.attached_to, ["203.0.113.0/24:80-89", "[2001:db8:77::/64]:80"]);

        drop(part);
        let error = connect(host, "203.0.113.7:81").expect_err("it is steered no longer");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(!host.bpffs().join("cmim").exists());
    });
}

#[test]
fn networks_that_begin_alike_lead_each_to_its_own_listener() {
    in_namespaces("networks_that_begin_alike_lead_each_to_its_own_listener", |host| {
        route_networks(host);
        let wide = Door::open(1, "203.0.113.0/24:80-81", 2);
        let narrow = Door::open(2, "203.0.113.0/25:80", 2);
        let upper = Door::open(3, "203.0.113.128/25:80", 2);
        let exact = Door::open(4, "203.0.113.0:80", 2);
        let wide_v6 = Door::open(5, "[2001:db8:77::/64]:80", 2);
        let narrow_v6 = Door::open(6, "[2001:db8:77::/96]:80", 2);
        let doors = [&wide, &narrow, &upper, &exact, &wide_v6, &narrow_v6];
        let part = listen(host, &doors, &[INTERFACE]);
        for (door, address) in [
            (&exact, "203.0.113.0:80"),
            (&narrow, "203.0.113.7:80"),
            (&upper, "203.0.113.128:80"),
            (&upper, "203.0.113.200:80"),
            (&wide, "203.0.113.0:81"),
            (&wide, "203.0.113.200:81"),
            (&narrow_v6, "[2001:db8:77::7]:80"),
            (&wide_v6, "[2001:db8:77:0:7::]:80"),
        ] {
            let _stream = connect(host, address).unwrap_or_else(|error| panic!("{address}: {error}"));
            let local = door.accept().unwrap_or_else(|| panic!("{address} leads elsewhere"));
            assert_eq!(local.to_string(), address);
        }
        let guard = part.guard().expect("readable");
        let syns: Vec<_> = guard.listeners.iter().map(|listener| listener.syns_passed).collect();
        assert_eq!(syns, [2, 1, 2, 1, 1, 1], "the guard knows them by the same rule");
    });
}

#[test]
fn a_reload_changes_what_is_steered_and_leaves_the_rest() {
    in_namespaces("a_reload_changes_what_is_steered_and_leaves_the_rest", |host| {
        route_networks(host);
        let staying = Door::open(1, "203.0.113.0/24:80", 1);
        let going = Door::open(2, "203.0.113.0/24:81", 1);
        let mut part = listen(host, &[&staying, &going], &[]);
        connect(host, "203.0.113.5:81").expect("steered");
        let coming = Door::open(3, "203.0.113.128/25:82", 1);
        let now = [staying.listening, coming.listening.clone()];
        part.set_listeners(&now).expect("room in the maps");
        part.open(&[coming.open_sockets()], &now).expect("it listens");
        connect(host, "203.0.113.5:80").expect("as before");
        connect(host, "203.0.113.200:82").expect("newly steered");
        connect(host, "203.0.113.5:82").expect_err("not of its network");
        connect(host, "203.0.113.5:81").expect_err("steered no longer");
    });
}

#[test]
fn one_large_range_takes_the_place_of_another() {
    in_namespaces("one_large_range_takes_the_place_of_another", |host| {
        ip(&["route", "add", "local", "10.2.0.0/16", "dev", "lo"]);
        let old = Door::open(1, "10.1.0.0/16:1-40000", 1);
        let new = Door::open(2, "10.2.0.0/16:1-40000", 1);
        let mut part = listen(host, &[&old], &[]);
        let now = [new.listening.clone()];
        part.set_listeners(&now).expect("room, once the old ones are out");
        part.open(&[new.open_sockets()], &now).expect("it listens");
        TcpStream::connect_timeout(&"10.2.3.4:40000".parse().expect("a literal"), DEADLINE).expect("steered");
        assert!(new.accept().is_some(), "to its own listener");
    });
}

#[test]
fn more_ports_than_the_map_has_room_for_are_named() {
    in_namespaces("more_ports_than_the_map_has_room_for_are_named", |host| {
        let kernel = settings(KernelMode::Auto, host.bpffs().join("cmim"), &[]);
        let listening = ["10.1.0.0/16:1-65535", "10.2.0.0/16:1-65535"].map(|address| Listening {
            id: 1,
            name: "web".to_owned(),
            address: address.parse().expect("a literal of this test"),
        });
        let mut part = start(&kernel, &listening, 1).expect("auto goes on");
        assert!(part.missing().iter().any(|clause| clause.contains("CMIM_STEERING is full")), "{:?}", part.missing());
        let clause = part.set_listeners(&listening).expect_err("nor at a reload").clause();
        assert!(clause.starts_with("map CMIM_STEERING is full (listen on fewer ports"), "{clause}");
    });
}

#[test]
fn rows_go_to_networks_first_and_one_without_is_refused() {
    in_namespaces("rows_go_to_networks_first_and_one_without_is_refused", |host| {
        let kernel = settings(KernelMode::Auto, host.bpffs().join("cmim"), &[]);
        let on = |id: u32, address: &str| Listening {
            id,
            name: format!("listener {id}"),
            address: address.parse().expect("a literal of this test"),
        };
        let most = u32::try_from(MAX_ROWS).expect("it fits");
        let mut listening: Vec<_> = (1..=most).map(|id| on(id, &format!("127.0.0.1:{id}"))).collect();
        listening.push(on(most + 1, "203.0.113.0/24:80"));
        let mut part = start(&kernel, &listening, 1).expect("auto goes on");
        part.open(&[], &listening).expect("the network has a row");

        let networks: Vec<_> = (1..=most + 1).map(|port| on(port, &format!("203.0.113.0/24:{port}"))).collect();
        part.set_listeners(&networks).expect("room in the maps");
        let last = OpenSockets { address: networks[MAX_ROWS].address, sockets: Vec::new() };
        let clause = part.open(&[last], &networks).expect_err("one row too few").clause();
        assert!(clause.contains("listener 129") && clause.contains("CMIM_LISTENING is full"), "{clause}");
    });
}

#[test]
fn without_steering_a_network_is_refused_and_the_reason_given() {
    in_namespaces("without_steering_a_network_is_refused_and_the_reason_given", |host| {
        let door = Door::open(1, "203.0.113.0/24:80", 1);
        let mut kernel = settings(KernelMode::Off, host.bpffs().join("cmim"), &[]);
        let listening = [door.listening.clone()];
        let mut part = start(&kernel, &listening, 1).expect("off");
        let clause = part.open(&[door.open_sockets()], &listening).expect_err("nothing steers").clause();
        assert!(clause.contains("203.0.113.0/24:80") && clause.contains("kernel.mode is \"off\""), "{clause}");
        kernel.mode = KernelMode::Auto;
        let pieces = [crate::kernel::piece::Piece::Steer];
        let mut part = crate::kernel::part::start_without(&kernel, &listening, 1, &pieces).expect("auto goes on");
        let clause = part.open(&[door.open_sockets()], &listening).expect_err("nothing steers").clause();
        assert!(clause.contains("no sk_lookup programs"), "{clause}");
    });
}

/// Both ways of spreading the same skewed load: one worker holds many connections already.
#[test]
fn new_connections_go_to_the_worker_with_the_fewest() {
    in_namespaces("new_connections_go_to_the_worker_with_the_fewest", |host| {
        const WORKERS: usize = 4;
        const OLD: u64 = 40;
        const NEW: usize = 120;
        let mut spread = BTreeMap::new();
        for (how, steered) in [("by hash", false), ("by cmim_spread", true)] {
            let door = Door::open(1, &format!("{HERE_V4}:0"), WORKERS);
            let address = door.listening.address.bind_address();
            let part = steered.then(|| listen(host, &[&door], &[]));
            let loads: Vec<_> =
                (0..WORKERS).map(|worker| part.as_ref().map(|part| part.load_of(worker)).unwrap_or_default()).collect();
            (0..OLD).for_each(|_| loads[0].opened());
            let mut streams: Vec<Vec<TcpStream>> = (0..WORKERS).map(|_| Vec::new()).collect();
            let mut clients = Vec::new();
            // In bursts: within one nobody accepts, and the program knows only whom it has chosen.
            for _ in 0..NEW / 10 {
                let burst: Vec<_> =
                    (0..10).map(|_| host.in_peer(|| TcpStream::connect(address)).expect("it listens")).collect();
                clients.extend(burst);
                let mut got = 0;
                let end = Instant::now() + DEADLINE;
                while got < 10 {
                    assert!(Instant::now() < end, "{got} of a burst were accepted");
                    for (load, accepted) in loads.iter().zip(door.accept_all(&mut streams)) {
                        (0..accepted).for_each(|_| load.opened());
                        got += accepted;
                    }
                }
            }
            let counts: Vec<usize> = streams.iter().map(Vec::len).collect();
            println!("{NEW} connections beside {OLD} old ones of the first worker, {how}: {counts:?}");
            spread.insert(how, counts);
        }
        // 160 connections over 4 workers: each ends with 40.
        assert_eq!(spread["by cmim_spread"], [0, 40, 40, 40]);
        assert_ne!(spread["by hash"][0], 0);
    });
}

#[test]
fn a_daemon_that_takes_its_place_back_spreads_by_its_own_numbers_again() {
    in_namespaces("a_daemon_that_takes_its_place_back_spreads_by_its_own_numbers_again", |host| {
        let door = Door::open(1, &format!("{HERE_V4}:0"), 2);
        let address = door.listening.address.bind_address().to_string();
        let mut part = listen(host, &[&door], &[]);
        (0..40).for_each(|_| part.load_of(0).opened());
        part.lend();
        // The other daemon knows nothing of those forty, and its program stays with the sockets when it ends.
        drop(listen(host, &[&door], &[]));
        part.take_back(&[door.open_sockets()]).expect("the pins are made again");
        let _clients: Vec<_> = (0..10).map(|_| connect(host, &address).expect("it listens")).collect();
        let mut streams = [Vec::new(), Vec::new()];
        wait_until("all are there", || {
            door.accept_all(&mut streams);
            streams.iter().map(Vec::len).sum::<usize>() == 10
        });
        assert_eq!(streams.map(|streams| streams.len()), [0, 10]);
        let programs = part.report().programs;
        let spread = programs.iter().find(|program| program.name == names::SPREAD).expect("it is there");
        assert_eq!(spread.attached_to, [address], "named once");
    });
}

#[test]
fn a_worker_whose_socket_is_gone_is_passed_over() {
    in_namespaces("a_worker_whose_socket_is_gone_is_passed_over", |host| {
        route_networks(host);
        let mut one = Door::open(1, &format!("{HERE_V4}:0"), 3);
        let mut many = Door::open(2, "203.0.113.0/24:80-81", 3);
        let part = listen(host, &[&one, &many], &[]);
        for worker in [1, 2] {
            (0..100).for_each(|_| part.load_of(worker).opened());
        }
        // The least busy worker's, which is also the one that steering looks at first.
        drop(one.sockets.remove(0));
        drop(many.sockets.remove(0));
        for _ in 0..10 {
            let address = one.listening.address.bind_address().to_string();
            connect(host, &address).expect("the others listen");
            one.accept().expect("one of the others");
            connect(host, "203.0.113.3:81").expect("the others listen");
            many.accept().expect("one of the others");
        }
    });
}

#[test]
fn what_a_killed_daemon_steered_harms_nobody_and_the_next_start_takes_over() {
    let name = "what_a_killed_daemon_steered_harms_nobody_and_the_next_start_takes_over";
    in_namespaces(name, |host| {
        route_networks(host);
        let pin_dir = host.bpffs().join("cmim");
        let mut killed = super::hold(&pin_dir, &["203.0.113.0/24:80-81"]);
        let mut served = connect(host, "203.0.113.9:81").expect("the other process steers");
        let mut byte = [0];
        served.read_exact(&mut byte).expect("it greets");
        killed.kill().expect("it is ours");
        killed.wait().expect("it is ours");

        assert!(pin_dir.join(names::STEER_LINK).exists(), "the attachment outlives its daemon");
        let old = MapInfo::from_pin(pin_dir.join(names::STEERING)).expect("a pinned map").id();
        let error = connect(host, "203.0.113.9:81").expect_err("the sockets died with it");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        // Another program on that port is not kept from it.
        ip(&["addr", "add", "203.0.113.9/32", "dev", "lo"]);
        let other = TcpListener::bind(("203.0.113.9", 81)).expect("a free port");
        connect(host, "203.0.113.9:81").expect("passed on");
        drop(other);

        let door = Door::open(1, "203.0.113.0/24:80-81", 1);
        let part = listen(host, &[&door], &[]);
        connect(host, "203.0.113.9:81").expect("steered again");
        wait_until("the dead daemon's map is gone", || MapInfo::from_id(old).is_err());
        drop(part);
        assert!(!pin_dir.exists());
    });
}
