//! The local lane in a real kernel: what is sent arrives, in order, and nothing piles up.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use cmim_common::counters::Counters;
use cmim_common::local::WINDOW;
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{SpliceFlags, pipe, splice};
use socket2::{Domain, SockRef, Socket, Type};

use super::host::{Host, PEER_V4, PEER_V6, in_namespaces};
use super::{DEADLINE, settings, wait_until};
use crate::config::model::{Kernel, KernelMode, LocalBypass};
use crate::kernel::{KernelPart, LocalLane, start};

const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn lane_on(host: &Host) -> (KernelPart, LocalLane) {
    let wanted = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
    let kernel = Kernel { local_bypass: LocalBypass::On, ..wanted };
    let part = start(&kernel, &[], 1).expect("the lane passes its trial here");
    let lane = part.local_lane();
    (part, lane)
}

fn counters(part: &KernelPart) -> Counters {
    part.counters().expect("readable").expect("loaded")
}

/// The daemon's end and the server's of a connection that was marked.
fn connected(lane: &LocalLane, address: IpAddr) -> [TcpStream; 2] {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    let daemon = connect(lane, listener.local_addr().expect("an address"));
    let server = listener.accept().expect("it connected").0;
    for end in [&daemon, &server] {
        end.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        end.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        end.set_nodelay(true).expect("an option");
    }
    [daemon, server]
}

fn connect(lane: &LocalLane, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    lane.mark(socket.as_fd()).expect("the lane is on");
    socket.connect_timeout(&address.into(), DEADLINE).expect("it listens");
    socket.into()
}

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// The byte at each place of what one end sends.
fn bytes(seed: u64, from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|at| (at as u64).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9) as u8 ^ (at >> 8) as u8)
        .collect()
}

/// Sends messages of all sizes, with pauses, and ends the stream.
fn talk(mut to: &TcpStream, seed: u64, total: usize) {
    let mut dice = Dice(seed);
    let mut sent = 0;
    while sent < total {
        let most = [10, 1_000, 20_000, 70_000, 300_000][dice.roll(5)];
        let length = (1 + dice.roll(most)).min(total - sent);
        to.write_all(&bytes(seed, sent, length)).expect("connected");
        sent += length;
        if dice.roll(8) == 0 {
            thread::sleep(Duration::from_micros(dice.roll(2_000) as u64));
        }
    }
    to.shutdown(Shutdown::Write).expect("connected");
}

/// Reads to the stream's end in pieces of all sizes, with pauses, and compares.
fn listen(mut from: &TcpStream, seed: u64, total: usize) {
    let mut dice = Dice(!seed);
    let mut buffer = vec![0; 100_000];
    let mut read = 0;
    let end = Instant::now() + DEADLINE;
    loop {
        let most = [10, 5_000, 99_999][dice.roll(3)];
        let room = 1 + dice.roll(most);
        // The kernel wakes a waiting reader also when there is room to write, and lets it go without bytes
        // (`tcp_msg_wait_data` waits once).
        let count = loop {
            match from.read(&mut buffer[..room]) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
                Err(error) => panic!("after {read} bytes: {error}"),
            }
        };
        if count == 0 {
            break;
        }
        assert!(buffer[..count] == bytes(seed, read, count), "wrong bytes after {read}");
        read += count;
        if dice.roll(40) == 0 {
            thread::sleep(Duration::from_micros(dice.roll(3_000) as u64));
        }
    }
    assert_eq!(read, total);
}

#[test]
fn bytes_arrive_in_order_both_ways_at_once() {
    in_namespaces("bytes_arrive_in_order_both_ways_at_once", |host| {
        let (part, lane) = lane_on(host);
        for (round, address) in LOCALHOSTS.into_iter().cycle().take(6).enumerate() {
            let before = counters(&part);
            let [daemon, server] = connected(&lane, address);
            let seed = 7_919 * (round as u64 + 1);
            // One side ends much earlier: the other direction goes on.
            let (forth, back) = (200_000, 2_000_000);
            thread::scope(|scope| {
                scope.spawn(|| talk(&daemon, seed, forth));
                scope.spawn(|| talk(&server, !seed, back));
                scope.spawn(|| listen(&server, seed, forth));
                listen(&daemon, !seed, back);
            });
            let now = counters(&part);
            assert_eq!(now.local_connections, before.local_connections + 1);
            assert!(now.local_messages > before.local_messages, "seed {seed}: {now:?}");
            assert!(now.local_passed > before.local_passed, "seed {seed}: {now:?}");
        }
    });
}

#[test]
fn a_reader_that_stops_holds_no_more_than_a_window_past_tcp() {
    in_namespaces("a_reader_that_stops_holds_no_more_than_a_window_past_tcp", |host| {
        let (part, lane) = lane_on(host);
        for (address, message) in LOCALHOSTS.into_iter().zip([700, 30_000]) {
            let [daemon, mut server] = connected(&lane, address);
            let (before, free) = (counters(&part), available_memory());
            server.set_nonblocking(true).expect("an option");
            let mut sent = 0;
            let error = loop {
                match server.write(&bytes(1, sent, message)) {
                    Ok(count) => sent += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            let handed_over = counters(&part).local_bytes - before.local_bytes;
            let taken = free.saturating_sub(available_memory());
            println!("{address}: {sent} bytes sent, {handed_over} past TCP, {} KiB of memory", taken / 1_024);
            assert!((1..=u64::from(WINDOW)).contains(&handed_over), "{handed_over}");
            assert!(sent < 32 << 20, "TCP's own buffers hold the rest: {sent}");
            // All that came is there, whatever way it came.
            server.shutdown(Shutdown::Write).expect("connected");
            listen(&daemon, 1, sent);
        }
    });
}

/// Bytes that the host could still give out.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("procfs");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("it is told");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
}

#[test]
fn a_peer_in_another_namespace_is_reached_by_tcp() {
    in_namespaces("a_peer_in_another_namespace_is_reached_by_tcp", |host| {
        let (part, lane) = lane_on(host);
        let before = counters(&part);
        for address in [IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)] {
            let listener = host.in_peer(|| TcpListener::bind((address, 0))).expect("a free port");
            let daemon = connect(&lane, listener.local_addr().expect("an address"));
            let server = listener.accept().expect("it connected").0;
            let total = 1_000_000;
            thread::scope(|scope| {
                scope.spawn(|| talk(&server, 5, total));
                listen(&daemon, 5, total);
            });
        }
        let now = counters(&part);
        assert_eq!((now.local_connections, now.local_bytes), (before.local_connections, before.local_bytes));
    });
}

#[test]
fn a_connection_that_is_not_the_daemons_is_left_alone() {
    in_namespaces("a_connection_that_is_not_the_daemons_is_left_alone", |host| {
        let (part, _) = lane_on(host);
        let before = counters(&part);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let other = listener.accept().expect("it connected").0;
        thread::scope(|scope| {
            scope.spawn(|| talk(&one, 9, 500_000));
            listen(&other, 9, 500_000);
        });
        assert_eq!(counters(&part), before, "no program saw any of it");
    });
}

#[test]
fn only_servers_of_this_host_are_led_to_and_one_that_does_not_join_is_given_up() {
    let name = "only_servers_of_this_host_are_led_to_and_one_that_does_not_join_is_given_up";
    in_namespaces(name, |host| {
        let (_part, lane) = lane_on(host);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let here = listener.local_addr().expect("an address");
        let elsewhere = SocketAddr::from((PEER_V4, 80));
        lane.set_servers([here, elsewhere]);
        assert!(lane.leads_to(&here));
        assert!(!lane.leads_to(&elsewhere));

        let daemon = connect(&lane, here);
        let ends = |socket: &TcpStream| (socket.local_addr().expect("bound"), socket.peer_addr().expect("connected"));
        let (local, peer) = ends(&daemon);
        assert!(lane.has_joined(&here, local, peer));
        assert!(lane.leads_to(&here));
        // As a server behind an address of this host that is really in a container.
        let (local, peer) = ends(&TcpStream::connect(here).expect("it listens"));
        assert!(!lane.has_joined(&here, local, peer));
        assert!(!lane.leads_to(&here));
        lane.set_servers([here]);
        assert!(lane.leads_to(&here));
    });
}

#[test]
fn a_connection_that_leaves_the_lane_goes_on_by_tcp_and_can_be_spliced() {
    in_namespaces("a_connection_that_leaves_the_lane_goes_on_by_tcp_and_can_be_spliced", |host| {
        let (part, lane) = lane_on(host);
        let [mut daemon, mut server] = connected(&lane, LOCALHOSTS[0]);
        let mut read = [0; 5];
        daemon.write_all(b"1 ask").expect("connected");
        server.read_exact(&mut read).expect("it came");
        server.write_all(b"reply").expect("connected");
        daemon.read_exact(&mut read).expect("it came");
        let before = counters(&part);

        lane.leave(daemon.local_addr().expect("bound"), daemon.peer_addr().expect("connected")).expect("it is on it");
        daemon.write_all(b"2 ask").expect("connected");
        server.read_exact(&mut read).expect("it came");
        server.write_all(b"reply").expect("connected");
        let (_out, into) = pipe().expect("a pipe");
        assert_eq!(splice(&daemon, None, &into, None, 100, SpliceFlags::empty()), Ok(5));
        assert_eq!(counters(&part), before, "no program saw any of it");
    });
}

#[test]
fn a_reset_comes_behind_what_was_sent_and_a_closed_end_takes_nothing_more() {
    in_namespaces("a_reset_comes_behind_what_was_sent_and_a_closed_end_takes_nothing_more", |host| {
        let (part, lane) = lane_on(host);
        let [mut daemon, mut server] = connected(&lane, LOCALHOSTS[0]);
        server.write_all(b"the last words").expect("connected");
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(server);
        let mut read = [0; 14];
        daemon.read_exact(&mut read).expect("they were there before the reset");
        assert_eq!(&read, b"the last words");
        assert_eq!(daemon.read(&mut read).expect_err("a reset").kind(), ErrorKind::ConnectionReset);

        // Closed with bytes unread: what comes later is TCP's to refuse.
        let [mut daemon, server] = connected(&lane, LOCALHOSTS[0]);
        daemon.write_all(b"unread").expect("connected");
        drop(server);
        let handed_over = counters(&part).local_bytes;
        let refused = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            daemon.write_all(b"into the void").err()
        });
        assert!(refused.is_some(), "a closed end refuses");
        assert_eq!(counters(&part).local_bytes, handed_over, "nothing was handed to it");
    });
}

#[test]
fn connections_are_counted_while_they_are_open() {
    in_namespaces("connections_are_counted_while_they_are_open", |host| {
        let (part, lane) = lane_on(host);
        wait_until("the trial's connections are closed", || part.local_figures().active == 0);
        let ends: Vec<_> = (0..5).map(|_| connected(&lane, LOCALHOSTS[0])).collect();
        assert_eq!(part.local_figures().active, 5);
        drop(ends);
        wait_until("they are closed", || part.local_figures().active == 0);
    });
}

/// What docs and ARCHITECTURE.md say of these calls; the lanes of contents stand on it.
#[test]
fn splice_knows_one_queue_only_and_sendfile_sends_messages() {
    in_namespaces("splice_knows_one_queue_only_and_sendfile_sends_messages", |host| {
        let (part, lane) = lane_on(host);
        let [daemon, mut server] = connected(&lane, LOCALHOSTS[0]);
        let (out, into) = pipe().expect("a pipe");
        let receive =
            |flags| recv(&daemon, &mut vec![0; 100_000][..], RecvFlags::DONTWAIT | flags).map(|(_, count)| count);
        let take = || splice(&daemon, None, &into, None, 1_000, SpliceFlags::NONBLOCK);

        server.write_all(b"handed over").expect("connected");
        assert_eq!(ioctl_fionread(&daemon), Ok(11));
        assert_eq!(take(), Err(Errno::AGAIN), "there are bytes, but splice does not see them");
        // TCP takes what it has room for.
        server.set_nonblocking(true).expect("an option");
        assert!(server.write(&vec![1; WINDOW as usize]).expect("connected") >= 1_000);
        wait_until("TCP has brought its part", || matches!(take(), Ok(1_000)));
        assert_eq!(receive(RecvFlags::PEEK), Ok(11), "splice has overtaken them");
        assert_eq!(ioctl_fionread(&daemon), Ok(11), "what TCP brought is not counted");
        assert_eq!(receive(RecvFlags::empty()), Ok(11), "a read ends with its queue");

        wait_until("all is read", || {
            while receive(RecvFlags::empty()).is_ok() {}
            let before = counters(&part).local_bytes;
            // Full is as good as passed: it is tried again.
            let _: Result<usize, Errno> = rustix::io::write(&server, b"!");
            counters(&part).local_bytes > before
        });
        let before = counters(&part).local_bytes;
        let sent = splice(&out, None, &server, None, 500, SpliceFlags::NONBLOCK);
        assert_eq!(sent, Ok(500));
        let file = std::fs::File::open("/proc/self/exe").expect("this binary");
        assert_eq!(rustix::fs::sendfile(&server, &file, None, 700), Ok(700));
        assert_eq!(counters(&part).local_bytes - before, 1_200);
        assert_eq!(receive(RecvFlags::empty()), Ok(1_201));
    });
}

#[test]
fn nothing_is_left_of_the_lane() {
    in_namespaces("nothing_is_left_of_the_lane", |host| {
        let (part, lane) = lane_on(host);
        drop(part);
        // Workers may hold their part a little longer.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let daemon = connect(&lane, listener.local_addr().expect("an address"));
        let server = listener.accept().expect("it connected").0;
        thread::scope(|scope| {
            scope.spawn(|| talk(&server, 3, 300_000));
            listen(&daemon, 3, 300_000);
        });
        let (local, peer) = (daemon.local_addr().expect("bound"), daemon.peer_addr().expect("connected"));
        assert!(!lane.has_joined(&peer, local, peer), "no program has seen the connection");
    });
}
