//! Contents of a known length, one behind the other.

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::thread;

use bytes::BytesMut;

use super::super::sockmap::{Content, Fault, Left, Splicer};
use super::super::tunnel::End;
use super::traffic::{Dice, receive};
use super::{end, pair, stream, with_lane};
use crate::buffer::BufferPool;
use crate::net::Stream;

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
