//! Splices between real sockets: what the kernel carries, what it leaves, and that none of it is lost or out of order.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use cmim_common::connection::MAX_CONNECTIONS;

use super::host::in_namespaces;
use super::{DEADLINE, settings, wait_until};
use crate::config::model::{Kernel, KernelMode, SpliceMode};
use crate::kernel::part::start_without;
use crate::kernel::piece::Piece;
use crate::kernel::{KernelError, KernelPart, Splice, SpliceError, Splicer, Way, start};

/// Small enough that a test meets it.
const WINDOW: u64 = 64 * 1024;

pub(crate) fn part(host: &super::host::Host) -> KernelPart {
    let kernel = Kernel { splice_window: WINDOW, ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[]) };
    start(&kernel, &[], 1).expect("the kernel part starts here")
}

/// Two connections with the device in the middle.
pub(crate) struct Middle {
    pub(crate) client: TcpStream,
    pub(crate) first: TcpStream,
    pub(crate) second: TcpStream,
    pub(crate) server: TcpStream,
}

impl Middle {
    pub(crate) fn at(address: &str) -> Self {
        let pair = || {
            let listener = TcpListener::bind((address, 0)).expect("a free port");
            let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
            let near = listener.accept().expect("it connected").0;
            for socket in [&far, &near] {
                socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                socket.set_nodelay(true).expect("of TCP");
            }
            (far, near)
        };
        let ((client, first), (server, second)) = (pair(), pair());
        Self { client, first, second, server }
    }

    fn splice(&self, splicer: &Splicer) -> Splice<'_> {
        splicer.begin(&self.first, &self.second).expect("both are of TCP")
    }

    /// What the client sends arrives at the server.
    fn carries(&self, bytes: &[u8]) {
        (&self.client).write_all(bytes).expect("connected");
        let mut got = vec![0; bytes.len()];
        (&self.server).read_exact(&mut got).expect("the kernel carries it");
        assert!(got == bytes, "other bytes arrived");
    }
}

#[test]
fn the_lane_is_there_whatever_is_wanted_at_the_start_and_starts_quickly() {
    in_namespaces("the_lane_is_there_whatever_is_wanted_at_the_start_and_starts_quickly", |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        for splice in [SpliceMode::Auto, SpliceMode::Sockmap, SpliceMode::Pipe, SpliceMode::Off] {
            let part = start(&Kernel { splice, ..kernel.clone() }, &[], 1).expect("it starts");
            let splicer = part.splicer().unwrap_or_else(|| panic!("a reload may want it, {splice:?}"));
            let start = Instant::now();
            crate::kernel::self_test::run(&splicer).expect("it passed once");
            println!("the self-test took {:?}", start.elapsed());
            assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
            assert!(splicer.list().expect("readable").is_empty(), "the self-test leaves nothing");
        }
    });
}

#[test]
fn without_the_kernels_types_the_lane_is_missing_and_says_so() {
    in_namespaces("without_the_kernels_types_the_lane_is_missing_and_says_so", |host| {
        let kernel = settings(KernelMode::Auto, host.bpffs().join("cmim"), &[]);
        let part = start_without(&kernel, &[], 1, &[Piece::SocketTypes]).expect("auto goes on");
        assert!(part.splicer().is_none());
        assert!(part.missing().join("; ").contains("/sys/kernel/btf/vmlinux"), "{:?}", part.missing());
        // Nor does it pass its own test: that is what keeps it from being offered with a wrong layout.
        let refused = crate::kernel::self_test::run(&part.loaded().expect("loaded").splicer);
        assert!(matches!(refused, Err(KernelError::SelfTest { lane: "sockmap", .. })), "{refused:?}");
        drop(part);
        let unwanted = Kernel { splice: SpliceMode::Pipe, ..kernel };
        let part = start_without(&unwanted, &[], 1, &[Piece::SocketTypes]).expect("auto goes on");
        assert!(part.splicer().is_none() && part.missing().is_empty(), "{:?}", part.missing());
    });
}

#[test]
fn the_kernel_carries_both_ways_in_both_families() {
    in_namespaces("the_kernel_carries_both_ways_in_both_families", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        for address in ["127.0.0.1", "::1"] {
            let middle = Middle::at(address);
            let mut splice = middle.splice(&splicer);
            splice.install(Way::Forth, None).expect("room");
            splice.install(Way::Back, None).expect("room");
            middle.carries(b"forth");
            (&middle.server).write_all(b"and back").expect("connected");
            let mut got = [0; 8];
            (&middle.client).read_exact(&mut got).expect("the kernel carries it");
            assert_eq!(&got, b"and back", "{address}");
            let progress = splice.progress(Way::Back).expect("installed");
            assert_eq!((progress.spliced, progress.passed, progress.remaining), (8, 0, None));
            assert!(splice.is_level(Way::Back, &progress));
            wait_until("all is accepted", || splice.is_drained(Way::Back, &progress).expect("connected"));
            assert_eq!(splicer.list().expect("readable").len(), 2);
            drop(splice);
            assert!(splicer.list().expect("readable").is_empty());
            (&middle.client).write_all(b"later").expect("connected");
            let mut got = [0; 5];
            (&middle.first).read_exact(&mut got).expect("the daemon's again");
            assert_eq!(&got, b"later");
        }
    });
}

#[test]
fn bytes_that_came_before_are_carried_in_front_of_those_that_come_later() {
    in_namespaces("bytes_that_came_before_are_carried_in_front_of_those_that_come_later", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        (&middle.client).write_all(b"early, ").expect("connected");
        let mut peeked = [0; 7];
        while middle.first.peek(&mut peeked).expect("connected") < peeked.len() {}
        splice.install(Way::Forth, None).expect("room");
        middle.first.set_nonblocking(true).expect("a socket");
        let read = (&middle.first).read(&mut peeked).expect_err("the kernel took them");
        assert_eq!(read.kind(), io::ErrorKind::WouldBlock);
        (&middle.client).write_all(b"late").expect("connected");
        let mut got = [0; 11];
        (&middle.server).read_exact(&mut got).expect("the kernel carries it");
        assert_eq!(&got, b"early, late");
    });
}

/// Sends until nothing is taken for a while.
pub(crate) fn flood(mut socket: &TcpStream) -> u64 {
    socket.set_nonblocking(true).expect("a socket");
    let (bytes, mut sent, mut last) = ([7; 64 * 1024], 0, Instant::now());
    while last.elapsed().as_millis() < 100 {
        match socket.write(&bytes) {
            Ok(count) => {
                sent += count as u64;
                last = Instant::now();
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    sent
}

/// Kilobytes of memory that are free or could be.
fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").expect("procfs");
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("Linux since 3.14");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_reader_that_stops_stops_its_sender_at_the_sockets_buffers() {
    in_namespaces("a_reader_that_stops_stops_its_sender_at_the_sockets_buffers", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, None).expect("room");
        let before = available();
        let sent = flood(&middle.client);
        let fell = before.saturating_sub(available());
        let progress = splice.progress(Way::Forth).expect("installed");
        println!("the sender could send {sent} bytes; {progress:?}; available memory fell by {fell} kB");
        // Twice tcp_wmem's and tcp_rcv's largest on two connections, and the window.
        assert!(sent < WINDOW + (32 << 20), "{sent}");
        assert!(progress.passed > 0, "{progress:?}");
        wait_until("nothing is kept in between", || splice.is_drained(Way::Forth, &progress).expect("connected"));
        let listed = splicer.list().expect("readable");
        assert_eq!(listed.first().expect("one direction").backlog, progress.passed);
    });
}

#[test]
fn a_content_ends_at_its_last_byte_and_what_follows_is_the_daemons() {
    in_namespaces("a_content_ends_at_its_last_byte_and_what_follows_is_the_daemons", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, Some(10)).expect("room");
        middle.carries(b"0123456");
        assert_eq!(splice.progress(Way::Forth).expect("installed").remaining, Some(3));
        middle.carries(b"789");
        (&middle.client).write_all(b"next").expect("connected");
        let mut got = [0; 4];
        (&middle.first).read_exact(&mut got).expect("not the content's");
        assert_eq!(&got, b"next");
        let end = splice.remove(Way::Forth).expect("installed");
        assert_eq!((end.progress.spliced, end.progress.passed, end.progress.remaining), (10, 4, Some(0)));
        assert!(!end.lossless, "nobody said that the four were read for good");
        // Both connections are as before.
        (&middle.client).write_all(b"more").expect("connected");
        (&middle.first).read_exact(&mut got).expect("connected");
        (&middle.second).write_all(&got).expect("connected");
        (&middle.server).read_exact(&mut got).expect("connected");
        assert_eq!(&got, b"more");
    });
}

#[test]
fn a_burst_past_the_end_is_left_to_the_daemon_whole() {
    in_namespaces("a_burst_past_the_end_is_left_to_the_daemon_whole", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, Some(10)).expect("room");
        (&middle.client).write_all(b"0123456789abc").expect("connected");
        let mut got = [0; 13];
        (&middle.first).read_exact(&mut got).expect("the daemon's to judge");
        assert_eq!(&got, b"0123456789abc");
        middle.server.set_nonblocking(true).expect("a socket");
        assert_eq!((&middle.server).read(&mut got).expect_err("no byte").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(splice.progress(Way::Forth).expect("installed").spliced, 0);
    });
}

#[test]
fn a_client_that_takes_a_content_can_ask_again_before_it_ends() {
    in_namespaces("a_client_that_takes_a_content_can_ask_again_before_it_ends", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        // From server to client, and what the client sends meanwhile waits where any other bytes wait.
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Back, Some(4)).expect("room");
        (&middle.client).write_all(b"GET").expect("connected");
        (&middle.server).write_all(b"page").expect("connected");
        let mut page = [0; 4];
        (&middle.client).read_exact(&mut page).expect("the kernel carries it");
        let progress = splice.progress(Way::Back).expect("installed");
        wait_until("it is accepted", || splice.is_drained(Way::Back, &progress).expect("connected"));
        splice.remove(Way::Back).expect("installed");
        drop(splice);
        let mut asked = [0; 3];
        (&middle.first).read_exact(&mut asked).expect("nothing of it is lost");
        assert_eq!((&page, &asked), (b"page", b"GET"));
    });
}

#[test]
fn the_end_of_a_source_is_seen_behind_all_its_bytes_and_not_passed_on() {
    in_namespaces("the_end_of_a_source_is_seen_behind_all_its_bytes_and_not_passed_on", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, None).expect("room");
        (&middle.client).write_all(b"the last").expect("connected");
        middle.client.shutdown(Shutdown::Write).expect("connected");
        assert_eq!((&middle.first).read(&mut [0; 8]).expect("the end"), 0);
        let progress = splice.progress(Way::Forth).expect("installed");
        assert_eq!((progress.spliced, progress.passed), (8, 0));
        wait_until("it is accepted", || splice.is_drained(Way::Forth, &progress).expect("connected"));
        let mut got = [0; 9];
        assert_eq!((&middle.server).read(&mut got).expect("connected"), 8);
        middle.server.set_nonblocking(true).expect("a socket");
        let read = (&middle.server).read(&mut got).expect_err("the end is the daemon's to pass on");
        assert_eq!(read.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_target_that_is_gone_leaves_the_bytes_to_the_daemon() {
    in_namespaces("a_target_that_is_gone_leaves_the_bytes_to_the_daemon", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, None).expect("room");
        middle.carries(b"there");
        splicer.lose_targets();
        (&middle.client).write_all(b"kept").expect("connected");
        let mut got = [0; 4];
        (&middle.first).read_exact(&mut got).expect("not lost in the kernel");
        assert_eq!(&got, b"kept");
        let progress = splice.progress(Way::Forth).expect("installed");
        assert_eq!((progress.spliced, progress.passed), (5, 4));
    });
}

#[test]
fn what_goes_to_a_socket_that_was_reset_is_lost_with_it_and_the_reset_is_seen() {
    in_namespaces("what_goes_to_a_socket_that_was_reset_is_lost_with_it_and_the_reset_is_seen", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let Middle { client, first, second, server } = Middle::at("127.0.0.1");
        let mut splice = splicer.begin(&first, &second).expect("both are of TCP");
        splice.install(Way::Forth, None).expect("room");
        splice.install(Way::Back, None).expect("room");
        // Closed with a byte unread, which is a reset.
        (&second).write_all(b"?").expect("connected");
        server.peek(&mut [0]).expect("connected");
        drop(server);
        let error = (&second).read(&mut [0]).expect_err("it was reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        (&client).write_all(b"to nobody").expect("connected");
        drop(splice);
        assert!(splicer.list().expect("readable").is_empty());
    });
}

#[test]
fn sockets_that_are_no_tcp_or_have_ended_are_refused_and_nothing_is_left() {
    in_namespaces("sockets_that_are_no_tcp_or_have_ended_are_refused_and_nothing_is_left", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let middle = Middle::at("127.0.0.1");
        assert!(matches!(splicer.begin(&one, &other), Err(SpliceError::NotTcp)));
        assert!(matches!(splicer.begin(&middle.first, &other), Err(SpliceError::NotTcp)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        assert!(matches!(splicer.begin(&listener, &middle.first), Err(SpliceError::NotTcp)));

        middle.client.shutdown(Shutdown::Write).expect("connected");
        wait_until("the end is there", || matches!((&middle.first).read(&mut [0]), Ok(0)));
        let mut splice = middle.splice(&splicer);
        splice.install(Way::Forth, None).expect_err("its peer has ended its side");
        assert!(splicer.list().expect("readable").is_empty());
    });
}

#[test]
fn a_full_map_refuses_and_has_room_again_later() {
    in_namespaces("a_full_map_refuses_and_has_room_again_later", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let middle = Middle::at("127.0.0.1");
        let mut splice = middle.splice(&splicer);
        splicer.fill(MAX_CONNECTIONS);
        assert!(matches!(
            splice.install(Way::Forth, None),
            Err(SpliceError::Kernel(KernelError::Full { name: "CMIM_CONNECTIONS" }))
        ));
        assert_eq!(splicer.list().expect("readable").len(), MAX_CONNECTIONS);
        splicer.clear();
        splice.install(Way::Forth, None).expect("room again");
        middle.carries(b"again");
    });
}

#[test]
fn the_target_of_one_splice_is_not_taken_by_another() {
    in_namespaces("the_target_of_one_splice_is_not_taken_by_another", |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        let (one, other) = (Middle::at("127.0.0.1"), Middle::at("127.0.0.1"));
        let mut splice = one.splice(&splicer);
        splice.install(Way::Forth, None).expect("room");
        let mut second = splicer.begin(&other.first, &one.second).expect("both are of TCP");
        second.install(Way::Forth, None).expect_err("somebody hands bytes to it");
        drop(second);
        one.carries(b"still");
        assert_eq!(splice.progress(Way::Forth).expect("installed").spliced, 5);
    });
}
