//! A segment that begins with bytes that have come before and ends with new ones: a splice carries the new ones.
//!
//! Such a segment is made by a second socket in the place of the sender's (`TCP_REPAIR`), which thinks that the last bytes
//! have not been sent yet.

use std::io::{self, Read as _, Write as _};
use std::mem::size_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

use socket2::{Domain, Socket, Type};

use super::host::{in_namespaces, ip};
use super::splicing::{Middle, part};
use crate::kernel::Way;

const RECEIVING: i32 = 1;
const SENDING: i32 = 2;
/// `TCP_REPAIR` without a probe of the other end.
const OFF_AND_SILENT: i32 = -1;
const OPTION_SEGMENT_SIZE: u32 = 2;
/// Longer than anything that is sent here.
const SEGMENT_SIZE: u32 = 60_000;

/// `struct tcp_repair_window` (linux/tcp.h)
type Window = [u32; 5];

#[expect(unsafe_code, reason = "neither std nor rustix knows these options")]
fn set<T: Copy>(socket: &impl AsFd, option: i32, value: T) {
    // SAFETY: the value is of the length that is told, and plain.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "option {option}: {}", io::Error::last_os_error());
}

#[expect(unsafe_code, reason = "neither std nor rustix knows these options")]
fn get<T: Default>(socket: &impl AsFd, option: i32) -> T {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: there is room for as much as is told, and every bit pattern of it is a value.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(done, 0, "option {option}: {}", io::Error::last_os_error());
    value
}

fn sequence(socket: &impl AsFd, queue: i32) -> u32 {
    set(socket, libc::TCP_REPAIR_QUEUE, queue);
    get(socket, libc::TCP_QUEUE_SEQ)
}

/// The same connection, whose sender is `back` bytes behind what it has sent.
fn set_back(sender: TcpStream, back: u32) -> TcpStream {
    let (own, peer): (SocketAddr, SocketAddr) = (sender.local_addr().unwrap(), sender.peer_addr().unwrap());
    set(&sender, libc::TCP_REPAIR, 1_i32);
    let window: Window = get(&sender, libc::TCP_REPAIR_WINDOW);
    let (sent, received) = (sequence(&sender, SENDING), sequence(&sender, RECEIVING));
    // Under repair, nobody is told of the end.
    drop(sender);
    let again = Socket::new(Domain::for_address(own), Type::STREAM, None).expect("a socket");
    again.set_reuse_address(true).expect("an option");
    set(&again, libc::TCP_REPAIR, 1_i32);
    again.bind(&own.into()).expect("its address is free");
    for (queue, sequence) in [(SENDING, sent.wrapping_sub(back)), (RECEIVING, received)] {
        set(&again, libc::TCP_REPAIR_QUEUE, queue);
        set(&again, libc::TCP_QUEUE_SEQ, sequence);
    }
    ip(&["link", "set", "lo", "mtu", "65536"]);
    again.connect(&peer.into()).expect("under repair it is connected at once");
    set(&again, libc::TCP_REPAIR_OPTIONS, [OPTION_SEGMENT_SIZE, SEGMENT_SIZE]);
    let [_, granted, largest, ours, updated] = window;
    set(&again, libc::TCP_REPAIR_WINDOW, [received, granted, largest, ours, updated] as Window);
    set(&again, libc::TCP_REPAIR, OFF_AND_SILENT);
    // Only a change lets it use the segment size that it was told.
    ip(&["link", "set", "lo", "mtu", "65000"]);
    let again = TcpStream::from(again);
    again.set_nodelay(true).expect("of TCP");
    again
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31) ^ (at >> 8)) as u8).collect()
}

#[track_caller]
fn assert_comes(mut from: &TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    from.read_exact(&mut got).expect("it comes");
    assert!(got == expected, "other bytes came");
    from.set_nonblocking(true).expect("an option");
    let more = from.read(&mut [0]);
    assert!(more.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "nothing else: {more:?}");
    from.set_nonblocking(false).expect("an option");
}

/// How much is sent again, and how much that is new behind it: less than the helper takes at a time, as much, and more.
const SIZES: [(usize, usize); 5] = [(1, 1), (40, 100), (4_095, 10), (4_096, 5_000), (30_000, 20_000)];

/// Before the splice is installed or while it carries, a sender says `back` bytes; then it says them again with `new` ones
/// behind them.
fn says_again(test: &'static str, when_installed: bool, content: Option<u64>, carried_by: Carrier) {
    in_namespaces(test, move |host| {
        let part = part(host);
        let splicer = part.splicer().expect("the lane");
        for (back, new) in SIZES {
            for address in ["127.0.0.1", "::1"] {
                let Middle { client, first, second, server } = Middle::at(address);
                let all = bytes(back + new);
                let mut splice = splicer.begin(&first, &second).expect("both are of TCP");
                if when_installed {
                    splice.install(Way::Forth, content.map(|beyond| back as u64 + beyond)).expect("room");
                }
                (&client).write_all(&all[..back]).expect("connected");
                assert_comes(if when_installed { &server } else { &first }, &all[..back]);
                if !when_installed {
                    splice.install(Way::Forth, content).expect("room");
                }
                let before = part.counters().expect("readable").expect("loaded").splice_repeated_bytes;
                let mut again = set_back(client, u32::try_from(back).expect("few"));
                again.write_all(&all).expect("connected");
                assert_comes(if carried_by == Carrier::Kernel { &server } else { &first }, &all[back..]);
                let repeated = part.counters().expect("readable").expect("loaded").splice_repeated_bytes - before;
                assert_eq!(repeated, back as u64, "in one segment, of which so much is old");
                // The socket's own account is right: what comes next is new from its first byte on.
                drop(splice);
                again.write_all(b"later").expect("connected");
                assert_comes(&first, b"later");
            }
        }
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Kernel,
    Userspace,
}

#[test]
fn what_is_sent_again_is_carried_once() {
    says_again("what_is_sent_again_is_carried_once", true, None, Carrier::Kernel);
}

#[test]
fn what_was_read_before_the_splice_and_is_sent_again_is_not_carried() {
    says_again("what_was_read_before_the_splice_and_is_sent_again_is_not_carried", false, None, Carrier::Kernel);
}

#[test]
fn what_is_sent_again_is_left_to_userspace_once() {
    // The content's end is within the new bytes, or before them.
    says_again("what_is_sent_again_is_left_to_userspace_once", true, Some(0), Carrier::Userspace);
}
