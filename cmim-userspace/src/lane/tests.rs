//! The sockmap lane between real sockets: random traffic, compared byte by byte.

use std::future::{Future, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::pin;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::sockmap::{Content, Fault, Left, Splicer, Tunnel};
use super::tunnel::{Carried, End};
use crate::buffer::BufferPool;
use crate::config::model::{Kernel, KernelMode};
use crate::kernel::tests::host::in_namespaces;
use crate::kernel::tests::settings;
use crate::kernel::{SpliceEvents, start};
use crate::net::Stream;

const DEADLINE: Duration = Duration::from_secs(20);
/// Small enough that traffic meets it.
const WINDOW: u64 = 64 * 1024;

/// The lane in namespaces of the test's own.
fn with_lane(name: &'static str, test: impl FnOnce(Lane) + Send + 'static) {
    in_namespaces(name, move |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let mut part = start(&Kernel { splice_window: WINDOW, ..kernel }, &[], 1).expect("the kernel part starts here");
        let events = part.take_events().expect("once");
        test(Lane { splicer: part.splicer().expect("the lane"), events: Some(events) });
    });
}

struct Lane {
    splicer: Splicer,
    events: Option<SpliceEvents>,
}

impl Lane {
    /// Runs something on an event loop, with the news on their way, within the deadline.
    fn run<T>(&mut self, work: impl AsyncFnOnce(&Splicer) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let news = self.events.take();
        let ended = runtime.block_on(async {
            let forwarding = news.expect("one run a test").forward();
            tokio::select! {
                ended = tokio::time::timeout(DEADLINE, work(&self.splicer)) => ended,
                _ = forwarding => panic!("the news ended"),
            }
        });
        ended.expect("within the deadline")
    }

    fn is_empty(&self) -> bool {
        self.splicer.list().expect("readable").is_empty()
    }
}

/// A far end, and the device's own of the same connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
    let near = listener.accept().expect("it connected").0;
    for socket in [&far, &near] {
        socket.set_nodelay(true).expect("of TCP");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        socket.set_write_timeout(Some(DEADLINE)).expect("a timeout");
    }
    (far, near)
}

/// On the event loop that runs now.
fn stream(near: TcpStream) -> Stream {
    near.set_nonblocking(true).expect("a socket");
    Stream::Tcp(tokio::net::TcpStream::from_std(near).expect("an event loop").into())
}

fn end(stream: &Stream) -> End<'_> {
    End { stream, read: BytesMut::new() }
}

async fn tunnel(splicer: &Splicer, first: &Stream, second: &Stream) -> (Carried, io::Result<()>) {
    let tunnel = Tunnel::between(splicer, end(first), end(second)).await.expect("both are of TCP");
    tunnel.run(&BufferPool::default()).await
}

/// Numbers that a seed determines (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// FNV-1a of everything that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    hash: u64,
    bytes: u64,
}

impl Sum {
    const NOTHING: Self = Self { hash: 0xcbf2_9ce4_8422_2325, bytes: 0 };

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.bytes += bytes.len() as u64;
    }
}

fn rest(dice: &mut Dice) {
    if dice.below(20) == 0 {
        thread::sleep(Duration::from_micros(dice.below(3_000)));
    }
}

/// Sends random bytes in random pieces with random pauses, then ends its side.
fn send(socket: &TcpStream, seed: u64, total: u64) -> JoinHandle<Sum> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut sum = Sum::NOTHING;
        while sum.bytes < total {
            let most = if dice.below(3) == 0 { 100_000 } else { 2_000 };
            let length = (1 + dice.below(most)).min(total - sum.bytes);
            let bytes: Vec<u8> = (0..length).map(|_| (dice.below(256)) as u8).collect();
            socket.write_all(&bytes).expect("connected");
            sum.add(&bytes);
            rest(&mut dice);
        }
        socket.shutdown(Shutdown::Write).expect("connected");
        sum
    })
}

/// Reads to the end, with random pauses.
fn receive(socket: &TcpStream, seed: u64) -> JoinHandle<Sum> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut sum = Sum::NOTHING;
        let mut buffer = vec![0; 100_000];
        loop {
            let most = 1 + dice.below(buffer.len() as u64) as usize;
            let count = socket.read(buffer.get_mut(..most).expect("within")).expect("connected");
            if count == 0 {
                return sum;
            }
            sum.add(buffer.get(..count).expect("within"));
            rest(&mut dice);
        }
    })
}

#[test]
fn random_traffic_both_ways_arrives_whole_and_in_order() {
    with_lane("random_traffic_both_ways_arrives_whole_and_in_order", |mut lane| {
        let (mut spliced, mut relayed) = (0, 0);
        lane.run(async |splicer| {
            for seed in 1..=12 {
                let ((client, first), (server, second)) = (pair(), pair());
                let (first, second) = (stream(first), stream(second));
                let mut dice = Dice(seed * 7_919);
                let lengths = [dice.below(3_000_000), dice.below(3_000_000)];
                let sending = [send(&client, seed + 100, lengths[0]), send(&server, seed + 200, lengths[1])];
                let receiving = [receive(&server, seed + 300), receive(&client, seed + 400)];
                let ((carried, result), figures) = watched(splicer, tunnel(splicer, &first, &second)).await;
                result.expect("nobody broke it");
                let sent = sending.map(|thread| thread.join().expect("sent"));
                let got = receiving.map(|thread| thread.join().expect("received"));
                assert_eq!(sent, got, "seed {seed}");
                assert_eq!([carried.forth, carried.back], lengths, "seed {seed}");
                spliced += figures.0;
                relayed += figures.1;
            }
        });
        println!("at least {spliced} bytes by the kernel, {relayed} by userspace");
        assert!(spliced > 0 && relayed > 0, "both ways of carrying were tried");
        assert!(lane.is_empty());
    });
}

/// Drives a tunnel; with the largest figures of its directions that were seen meanwhile.
async fn watched<T>(splicer: &Splicer, work: impl Future<Output = T>) -> (T, (u64, u64)) {
    let mut work = pin!(work);
    let mut seen = (0, 0);
    let result = poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        for listed in splicer.list().expect("readable") {
            seen = (seen.0.max(listed.connection.spliced), seen.1.max(listed.connection.passed));
        }
        polled
    })
    .await;
    (result, seen)
}

#[test]
fn each_side_can_end_first_and_both_at_once() {
    with_lane("each_side_can_end_first_and_both_at_once", |mut lane| {
        lane.run(async |splicer| {
            for (forth, back) in [(0, 0), (1, 0), (0, 1), (70_000, 70_000), (1, 1_000_000), (1_000_000, 1)] {
                let ((client, first), (server, second)) = (pair(), pair());
                let (first, second) = (stream(first), stream(second));
                let sending = [send(&client, 1, forth), send(&server, 2, back)];
                let receiving = [receive(&server, 3), receive(&client, 4)];
                let (carried, result) = tunnel(splicer, &first, &second).await;
                result.expect("nobody broke it");
                assert_eq!(carried, Carried { forth, back });
                let sent = sending.map(|thread| thread.join().expect("sent"));
                assert_eq!(sent, receiving.map(|thread| thread.join().expect("received")));
            }
        });
        assert!(lane.is_empty());
    });
}

#[test]
fn a_reset_of_either_side_breaks_the_tunnel_also_while_the_other_does_not_read() {
    with_lane("a_reset_of_either_side_breaks_the_tunnel_also_while_the_other_does_not_read", |mut lane| {
        lane.run(async |splicer| {
            for (resets_client, full) in [(true, false), (false, false), (true, true), (false, true)] {
                let ((client, first), (server, second)) = (pair(), pair());
                let (first, second) = (stream(first), stream(second));
                let (one, other) = if resets_client { (client, server) } else { (server, client) };
                let breaking = thread::spawn(move || {
                    let mut other = other;
                    if full {
                        flood(&one);
                    }
                    // Closed with a byte unread, which is a reset.
                    other.write_all(b"?").expect("connected");
                    one.set_nonblocking(false).expect("a socket");
                    one.peek(&mut [0]).expect("connected");
                    drop(one);
                    other
                });
                let (_, result) = tunnel(splicer, &first, &second).await;
                result.expect_err("it was reset");
                breaking.join().expect("it ended");
            }
        });
        assert!(lane.is_empty());
    });
}

/// Sends until nothing is taken for a while.
fn flood(mut socket: &TcpStream) -> u64 {
    socket.set_nonblocking(true).expect("a socket");
    let (bytes, mut sent, mut last) = ([7; 64 * 1024], 0, Instant::now());
    while last.elapsed() < Duration::from_millis(100) {
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

#[test]
fn a_side_that_stops_reading_stops_the_other_and_the_way_back_goes_on() {
    with_lane("a_side_that_stops_reading_stops_the_other_and_the_way_back_goes_on", |mut lane| {
        lane.run(async |splicer| {
            let ((mut client, first), (server, second)) = (pair(), pair());
            let (first, second) = (stream(first), stream(second));
            let peers = thread::spawn(move || {
                let sent = flood(&server);
                // The client, which reads nothing, is heard all the same, whatever it says.
                for size in [1, 1_000, 1_000_000] {
                    let reading = thread::spawn({
                        let mut server = server.try_clone().expect("a descriptor");
                        server.set_nonblocking(false).expect("a socket");
                        move || {
                            let mut got = vec![0; size];
                            server.read_exact(&mut got).expect("the client is heard");
                        }
                    });
                    client.write_all(&vec![1; size]).expect("connected");
                    reading.join().expect("heard");
                }
                server.shutdown(Shutdown::Write).expect("connected");
                client.shutdown(Shutdown::Write).expect("connected");
                let got = receive(&client, 5).join().expect("received");
                (sent, got.bytes)
            });
            let (carried, result) = tunnel(splicer, &first, &second).await;
            result.expect("nobody broke it");
            let (sent, got) = peers.join().expect("they ended");
            println!("a server before a client that stopped reading could send {sent} bytes");
            assert_eq!((sent, carried), (got, Carried { forth: 1_001_001, back: sent }));
            assert!(sent < WINDOW + (32 << 20), "{sent}");
        });
    });
}

#[test]
fn bytes_that_were_read_before_go_first() {
    with_lane("bytes_that_were_read_before_go_first", |mut lane| {
        lane.run(async |splicer| {
            let ((mut client, first), (mut server, second)) = (pair(), pair());
            let (first, second) = (stream(first), stream(second));
            client.write_all(b"second").expect("connected");
            client.shutdown(Shutdown::Write).expect("connected");
            server.shutdown(Shutdown::Write).expect("connected");
            let read = BytesMut::from(&b"first, "[..]);
            let tunnel = Tunnel::between(splicer, End { stream: &first, read }, end(&second)).await.expect("of TCP");
            tunnel.run(&BufferPool::default()).await.1.expect("nobody broke it");
            let mut got = Vec::new();
            server.read_to_end(&mut got).expect("connected");
            assert_eq!(got, b"first, second");
        });
    });
}

#[test]
fn messages_do_not_wake_the_daemon() {
    with_lane("messages_do_not_wake_the_daemon", |mut lane| {
        const MESSAGES: usize = 2_000;
        lane.run(async |splicer| {
            let ((mut client, first), (mut server, second)) = (pair(), pair());
            let (first, second) = (stream(first), stream(second));
            let talking = thread::spawn(move || {
                let mut got = [0; 100];
                for _ in 0..MESSAGES {
                    client.write_all(&[1; 100]).expect("connected");
                    server.read_exact(&mut got).expect("connected");
                    server.write_all(&[2; 100]).expect("connected");
                    client.read_exact(&mut got).expect("connected");
                }
            });
            let mut polls = 0;
            let mut tunnel = pin!(tunnel(splicer, &first, &second));
            let (carried, result) = poll_fn(|cx| {
                polls += 1;
                tunnel.as_mut().poll(cx)
            })
            .await;
            result.expect("nobody broke it");
            talking.join().expect("it ended");
            println!("{} messages, the tunnel was polled {polls} times", 2 * MESSAGES);
            assert_eq!(carried.forth, 100 * MESSAGES as u64);
            assert!(polls < 50, "{polls}");
        });
    });
}

/// Carries one content; what is left behind it.
async fn content(splicer: &Splicer, from: End<'_>, to: &Stream, length: u64, least: u64) -> Result<Left, Fault> {
    let buffers = BufferPool::default();
    let mut content = Content::between(splicer, from, to, length, least).expect("both are of TCP");
    poll_fn(|cx| content.poll(cx, &buffers)).await?;
    assert_eq!(content.carried(), length);
    Ok(content.finish())
}

#[test]
fn contents_follow_each_other_on_the_same_connections() {
    with_lane("contents_follow_each_other_on_the_same_connections", |mut lane| {
        lane.run(async |splicer| {
            let ((mut client, first), (mut server, second)) = (pair(), pair());
            let (client_side, server_side) = (stream(first), stream(second));
            let mut dice = Dice(99);
            let lengths: Vec<u64> = (0..30).map(|_| dice.below(400_000)).collect();
            let expected = lengths.clone();
            let peers = thread::spawn(move || {
                for length in expected {
                    let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
                    let reading = thread::spawn({
                        let mut client = client.try_clone().expect("a descriptor");
                        let body = body.clone();
                        move || {
                            let mut got = vec![0; body.len()];
                            client.read_exact(&mut got).expect("connected");
                            assert!(got == body, "a content of {length} bytes");
                        }
                    });
                    server.write_all(&body).expect("connected");
                    reading.join().expect("it arrived");
                    // The next request comes as soon as the reply is there, whoever still has to tidy up behind it.
                    client.write_all(b"next").expect("connected");
                    let mut asked = [0; 4];
                    server.read_exact(&mut asked).expect("it was passed on");
                }
            });
            for length in lengths {
                let left = content(splicer, end(&server_side), &client_side, length, 1_000).await.expect("whole");
                assert!(left.clean && left.read.is_empty(), "{left:?}");
                let mut asked = BytesMut::with_capacity(4);
                while asked.len() < 4 {
                    let count = poll_fn(|cx| client_side.poll_read(cx, &mut asked)).await.expect("connected");
                    assert!(count > 0, "the client is there");
                }
                server_side.write_all_of(&asked).await;
            }
            peers.join().expect("they ended");
        });
        assert!(lane.is_empty());
    });
}

impl Stream {
    async fn write_all_of(&self, bytes: &[u8]) {
        let count = poll_fn(|cx| self.poll_write(cx, &[io::IoSlice::new(bytes)])).await.expect("connected");
        assert_eq!(count, bytes.len());
    }
}

#[test]
fn bytes_behind_a_content_never_reach_its_target() {
    with_lane("bytes_behind_a_content_never_reach_its_target", |mut lane| {
        lane.run(async |splicer| {
            for (inside, behind) in [(100_000, 1), (100_000, 50_000), (0, 10), (5, 200_000)] {
                let ((mut client, first), (mut server, second)) = (pair(), pair());
                let (client_side, server_side) = (stream(first), stream(second));
                let sending = thread::spawn(move || {
                    server.write_all(&vec![1; inside]).expect("connected");
                    // Refused as soon as the device has seen enough of it.
                    let _: io::Result<()> = server.write_all(&vec![2; behind]);
                    server
                });
                let left = content(splicer, end(&server_side), &client_side, inside as u64, 0).await.expect("whole");
                client_side.shutdown_write().expect("connected");
                let mut got = Vec::new();
                client.read_to_end(&mut got).expect("connected");
                assert_eq!((got.len(), got.iter().all(|byte| *byte == 1)), (inside, true));
                assert!(left.read.iter().all(|byte| *byte == 2));
                drop((client_side, server_side));
                sending.join().expect("it ended");
            }
        });
    });
}

#[test]
fn a_content_cut_short_is_told_from_one_that_is_whole() {
    with_lane("a_content_cut_short_is_told_from_one_that_is_whole", |mut lane| {
        lane.run(async |splicer| {
            for (sent, whole) in [(99_999, false), (0, false), (100_000, true)] {
                let ((client, first), (mut server, second)) = (pair(), pair());
                let (client_side, server_side) = (stream(first), stream(second));
                let receiving = receive(&client, 1);
                let sending = thread::spawn(move || {
                    server.write_all(&vec![1; sent]).expect("connected");
                    drop(server);
                });
                let ended = content(splicer, end(&server_side), &client_side, 100_000, 0).await;
                assert_eq!(matches!(ended, Ok(Left { clean: true, .. })), whole, "{ended:?}");
                assert_eq!(matches!(ended, Err(Fault::Cut)), !whole, "{ended:?}");
                client_side.shutdown_write().expect("connected");
                assert_eq!(receiving.join().expect("received").bytes, sent as u64);
                sending.join().expect("it ended");
            }
        });
    });
}
