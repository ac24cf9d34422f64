//! Many contents over several threads: bounds hold at every moment, and everything comes back.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;

use super::world::{World, assert_content, bytes, receive, run, streams};
use crate::buffer::content::{Full, Held};
use crate::buffer::faults::Call;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Brings one content through: the server side appends as fast as it can, the reader takes its time.
async fn carry(world: &World, content: u64, len: u64, give_up: bool) {
    let mut held = Held::new(&world.store);
    let (to, from) = streams();
    let mut got = BytesMut::new();
    let receive_all = async {
        while receive(&from, &mut got).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    let carry_all = async {
        let mut piece: Option<Bytes> = None;
        poll_fn(|cx| {
            loop {
                let mut moved = false;
                if piece.is_none() && held.total() < len {
                    let step = (1 + (held.total() * 7 + content * 13) % 20_000).min(len - held.total());
                    piece = Some(bytes(content, held.total(), step as usize));
                }
                if piece.is_some() {
                    let before = held.total();
                    let appended = held.poll_append(cx, &mut piece);
                    moved |= held.total() > before;
                    // A full device holds the server up until the reader has made room.
                    assert!(matches!(appended, Poll::Pending | Poll::Ready(Ok(()) | Err(Full))));
                }
                if give_up && held.total() > len / 2 {
                    return Poll::Ready(());
                }
                if !held.is_empty() {
                    moved |= held.poll_send(cx, &to).is_ready();
                }
                if held.total() == len && held.is_empty() {
                    return Poll::Ready(());
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        })
        .await;
        drop((held, to));
    };
    tokio::join!(carry_all, receive_all);
    assert!(give_up || got.len() as u64 == len);
    assert_content(&got, content, 0);
}

fn storm(world: &Arc<World>, limits: [u64; 3]) {
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (world, over) = (Arc::clone(world), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut most = [0; 3];
            while !over.load(Ordering::Relaxed) {
                for ((used, limit), most) in world.used().iter().zip(limits).zip(&mut most) {
                    assert!(*used <= limit, "{used} of {limit} bytes");
                    *most = (*most).max(*used);
                }
                std::thread::yield_now();
            }
            most
        })
    };
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let world = Arc::clone(world);
            std::thread::spawn(move || {
                run(async {
                    let contents = (0..100_u64).map(|number| {
                        let content = thread * 1000 + number;
                        carry(&world, content, 20_000 + content * 997 % 150_000, number % 7 == 0)
                    });
                    let mut all: Vec<_> = contents.map(Box::pin).collect();
                    poll_all(&mut all).await;
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let most = watch.join().unwrap();
    assert!(most.iter().all(|&most| most > 0), "a tier was never used: {most:?}");
}

/// Polls all of them, whoever is woken: wasteful, and so all the more a storm.
async fn poll_all(all: &mut Vec<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn hundreds_of_contents_share_small_tiers() {
    let world = Arc::new(World::new(512 * KIB, 8 * KIB, MIB, 4 * MIB));
    storm(&world, [512 * KIB, MIB, 4 * MIB]);
    world.comes_to_rest();
}

#[test]
fn hundreds_of_contents_survive_tiers_that_come_and_go() {
    let world = Arc::new(World::new(512 * KIB, 8 * KIB, MIB, 4 * MIB));
    for (faults, errno) in world.faults.iter().zip([Errno::IO, Errno::NOSPC]) {
        faults.plan(move |calls, call| {
            (calls % 40 == 39 && matches!(call, Call::Write | Call::Allocate | Call::Clear)).then_some(errno)
        });
    }
    storm(&world, [512 * KIB, MIB, 4 * MIB]);
    for faults in &world.faults {
        faults.plan(|_, _| None);
    }
    world.comes_to_rest();
}
