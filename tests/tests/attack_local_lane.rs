//! A host whose TCP memory is full: the kernel gives the local lane none, and requests go by TCP.
//!
//! The limit (`net.ipv4.tcp_mem`) is the whole host's. It is lowered for as long as it takes, and what fills the memory
//! stays small. TCP itself goes on beyond it: each socket may have one segment under way.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cmim_tests::attack::scale;
use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::with_length;
use cmim_tests::{Device, ScriptedServer, Setup, skip};

const LIMIT: &str = "/proc/sys/net/ipv4/tcp_mem";
/// By default a server may take this long for its first byte; who waits on a stuck lane took all of it.
const PROMPTLY: Duration = Duration::from_secs(15);

/// The host's TCP memory, full until this is dropped.
struct Full {
    before: String,
    _held: Vec<(TcpStream, TcpStream)>,
}

impl Full {
    fn fill() -> Self {
        let before = fs::read_to_string(LIMIT).expect("checked before");
        let held = (0..8).map(|_| unread()).collect();
        let full = Self { before, _held: held };
        fs::write(LIMIT, "8 8 8").expect("root may");
        full
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        fs::write(LIMIT, &self.before).expect("root may");
    }
}

/// A connection with as much on its way as the kernel takes, which nobody reads.
fn unread() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let sender = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
    let (reader, _) = listener.accept().expect("it connected");
    sender.set_nonblocking(true).expect("a socket");
    loop {
        match (&sender).write(&[0; 65_536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (sender, reader),
            Err(error) => panic!("{error}"),
        }
    }
}

/// `None`: this host cannot run the test, which is said.
fn start(test: &str) -> Option<(ScriptedServer, Device)> {
    if skip::without_root(test) {
        return None;
    }
    if fs::metadata(LIMIT).is_err() {
        skip::skipped(test, "the host's TCP memory is not to be seen from this network namespace");
        return None;
    }
    // Answers of several pages: a socket may have a page left from before.
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            side.send(with_length(&[b'a'; 20_000]));
            if request.target == "/last" {
                return;
            }
        }
    });
    let device = Setup::before(&[server.address()]).kernel("auto", "local_bypass = \"on\"").start();
    if !device.has_program("cmim_local_msg") {
        skip::skipped(test, &format!("no local lane here: {}", device.status()["kernel"]["missing"]));
        return None;
    }
    Some((server, device))
}

#[test]
fn with_the_hosts_tcp_memory_full_requests_go_by_tcp_and_later_by_the_lane_again() {
    let test = "with_the_hosts_tcp_memory_full_requests_go_by_tcp_and_later_by_the_lane_again";
    let Some((_server, device)) = start(test) else { return };
    let handed_over = || device.figure("/lanes/local/bytes_total");
    let get_at = |target: &str| {
        let mut client = device.client();
        client.wire().set_patience(PROMPTLY);
        client.get(target).assert_whole(&[b'a'; 20_000]);
    };
    let get = || get_at("/");
    // On the lane, and idle in the pool when the memory ends.
    let before = handed_over();
    get();
    assert!(handed_over() > before);

    let full = Full::fill();
    let began = Instant::now();
    get();
    skip::measured(test, &format!("the first request after {:?}", began.elapsed()));
    let filled = handed_over();
    let began = Instant::now();
    let count = scale(15, 500);
    for _ in 0..count {
        get();
    }
    skip::measured(test, &format!("{count} further ones in {:?}", began.elapsed()));
    let mut client = device.client();
    client.wire().set_patience(PROMPTLY);
    client.send(request("POST", "/", "", &[b'b'; 12_000]));
    client.reply_to("POST").assert_whole(&[b'a'; 20_000]);
    assert!(handed_over() - filled < 20_000, "nothing whole goes by the lane");
    drop(full);

    until_true("new connections take the lane again", PATIENCE, || {
        let before = handed_over();
        // The server closes the connection behind it, so that the next one is new.
        get_at("/last");
        get();
        handed_over() - before > 20_000
    });
}
