//! Contents that wait for room: woken when there is some, and by nothing else.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};

use super::world::{World, append, append_content, assert_content, bytes, drain, run, until};
use crate::buffer::content::Held;
use crate::buffer::faults::Call;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The first tier writes nothing until the sender is gone.
fn hold_writes(world: &World, wait: mpsc::Receiver<()>) {
    world.faults[0].plan(move |_, call| {
        if call == Call::Write {
            let _: Result<(), mpsc::RecvError> = wait.recv();
        }
        None
    });
}

#[test]
fn a_remnant_of_room_that_is_too_small_to_begin_a_write_wakes_nobody() {
    // 48 KiB for bytes that stay, 16 for those on their way.
    let world = World::new(64 * KIB, 64 * KIB, MIB, 0);
    let (go_on, wait) = mpsc::channel::<()>();
    hold_writes(&world, wait);
    run(async {
        let mut staying = Held::new(&world.store);
        append_content(&mut staying, 1, 48 * KIB, 4096).await.unwrap();
        let mut moving = Held::new(&world.store);
        append(&mut moving, bytes(2, 0, 13 * 1024)).await.unwrap();
        assert_eq!(world.used()[0], 61 * KIB);

        let mut waiting = Held::new(&world.store);
        let mut piece = Some(bytes(3, 0, 10 * 1024));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        assert!(waiting.poll_append(cx, &mut piece).is_pending());
        assert_eq!((woken.times(), world.used()[0]), (0, 61 * KIB), "it would be polled for ever");
        drop(go_on);
        until("it is told of the room", || woken.times() > 0);
        assert_eq!(waiting.poll_append(cx, &mut piece), Poll::Ready(Ok(())));
        assert_content(&drain(&mut waiting).await.unwrap(), 3, 0);
    });
    world.comes_to_rest();
}

#[test]
fn a_content_that_goes_another_way_is_not_told_of_room_any_more() {
    let world = World::new(64 * KIB, 64 * KIB, MIB, 0);
    run(async {
        let mut staying = Held::new(&world.store);
        append_content(&mut staying, 1, 48 * KIB, 4096).await.unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        hold_writes(&world, wait);
        let mut moving = Held::new(&world.store);
        append(&mut moving, bytes(2, 0, 16 * 1024)).await.unwrap();

        let mut waiting = Held::new(&world.store);
        let mut piece = Some(bytes(3, 0, 10 * 1024));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(waiting.poll_append(&mut Context::from_waker(&waker), &mut piece).is_pending());
        waiting.stop_waiting();
        waiting.append_unaccounted(piece.take().unwrap());
        drop(go_on);
        until("it is written", || moving.flying() == 0);
        assert_eq!(woken.times(), 0);
        assert_content(&drain(&mut waiting).await.unwrap(), 3, 0);
    });
    world.comes_to_rest();
}

#[test]
fn only_a_content_that_found_room_in_a_file_counts_as_spilled() {
    let world = World::new(256 * KIB, 16 * KIB, 64 * KIB, 0);
    run(async {
        let mut first = Held::new(&world.store);
        append_content(&mut first, 1, 80 * KIB, 4096).await.unwrap();
        assert!(first.has_spilled());
        let mut second = Held::new(&world.store);
        append_content(&mut second, 2, 40 * KIB, 4096).await.unwrap();
        assert_eq!((second.tier(), second.has_spilled()), ("memory", false));
        assert_eq!(world.store.report().memory.spilled_total, 1);
        drop(first);
        until("the tier is empty", || world.used()[1] == 0);
        append_content(&mut second, 2, 16 * KIB, 4096).await.unwrap();
        assert!(second.has_spilled());
        assert_eq!(world.store.report().memory.spilled_total, 2);
        assert_content(&drain(&mut second).await.unwrap(), 2, 0);
    });
    world.comes_to_rest();
}

#[test]
fn a_staging_part_below_the_least_write_is_used_all_the_same() {
    // 6 KiB for bytes that stay, 2 for those on their way.
    let world = World::new(8 * KIB, 8 * KIB, MIB, 0);
    run(async {
        let mut staying = Held::new(&world.store);
        append_content(&mut staying, 1, 6 * KIB, 1024).await.unwrap();
        let mut held = Held::new(&world.store);
        let mut polls = 0;
        for at in 0..40 {
            let mut piece = Some(bytes(4, at * 5000, 5000));
            poll_fn(|cx| {
                polls += 1;
                assert!(polls < 5000, "polled for ever");
                held.poll_append(cx, &mut piece)
            })
            .await
            .unwrap();
        }
        assert_content(&drain(&mut held).await.unwrap(), 4, 0);
    });
    world.comes_to_rest();
}
