//! Tunnels: random traffic both ways, and every way to end one.

use std::future::{Future, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::pin;
use std::thread;

use bytes::BytesMut;

use super::super::sockmap::{Splicer, Tunnel};
use super::super::tunnel::{Carried, End};
use super::traffic::{Dice, receive, send};
use super::{WINDOW, end, pair, stream, with_lane};
use crate::buffer::BufferPool;
use crate::kernel::tests::flood;
use crate::net::Stream;

async fn tunnel(splicer: &Splicer, first: &Stream, second: &Stream) -> (Carried, io::Result<()>) {
    let tunnel = Tunnel::between(splicer, end(first), end(second)).await.expect("both are of TCP");
    tunnel.run(&BufferPool::default()).await
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
