//! Tiers that fail: no byte is lost that another tier could hold, and they come back without a restart.

use std::fs;
use std::future::poll_fn;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::world::{Dir, World, append_content, assert_content, drain, run, send, streams, until};
use crate::buffer::content::{Full, Held};
use crate::buffer::faults::Call;
use crate::buffer::{Report, SendError};
use crate::config::model::TierKind;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn degraded(report: &Report) -> Vec<Option<&str>> {
    report.tiers.iter().map(|(_, _, tier)| tier.degraded.as_deref()).collect()
}

/// The content must be whole in the end, whichever of the first tier's calls fails.
#[test]
fn each_call_failing_in_turn_loses_nothing() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::ROFS] {
        for failing in 1..24 {
            let world = World::new(128 * KIB, 16 * KIB, MIB, MIB);
            world.faults[0].plan(move |calls, call| {
                // What cannot be read back any more is another matter.
                (calls == failing && !matches!(call, Call::Read | Call::WriteBack)).then_some(errno)
            });
            run(async {
                let mut held = Held::new(&world.store);
                append_content(&mut held, failing, 300 * KIB, 20_000).await.unwrap();
                let got = drain(&mut held).await.unwrap();
                assert_eq!(got.len() as u64, 300 * KIB);
                assert_content(&got, failing, 0);
            });
            world.comes_to_rest();
        }
    }
}

#[test]
fn from_a_call_on_all_failing_moves_the_content_to_the_next_tier() {
    for failing in 1..30 {
        let world = World::new(128 * KIB, 16 * KIB, MIB, MIB);
        world.faults[0].plan(move |calls, call| {
            (calls >= failing && matches!(call, Call::Allocate | Call::Write)).then_some(Errno::NOSPC)
        });
        run(async {
            let mut held = Held::new(&world.store);
            append_content(&mut held, failing, 500 * KIB, 20_000).await.unwrap();
            assert_eq!(held.tier(), "disk");
            assert!(degraded(&world.store.report())[0].is_some_and(|reason| reason.contains("No space left")));
            assert_content(&drain(&mut held).await.unwrap(), failing, 0);
        });
        world.comes_to_rest();
    }
}

#[test]
fn with_every_tier_failing_what_was_taken_is_kept_in_ram_and_the_rest_refused() {
    let world = World::new(128 * KIB, 16 * KIB, MIB, MIB);
    for faults in &world.faults {
        faults.plan(|_, call| matches!(call, Call::Allocate).then_some(Errno::NOSPC));
    }
    run(async {
        let mut held = Held::new(&world.store);
        assert_eq!(append_content(&mut held, 1, MIB, 10_000).await, Err(Full));
        let taken = held.total();
        assert!(taken > 64 * KIB && world.used()[0] <= 128 * KIB);
        // Both come back, and with them the rest finds room and what was stranded leaves RAM.
        for faults in &world.faults {
            faults.plan(|_, _| None);
        }
        until("both tiers recover", || degraded(&world.store.report()) == [None, None]);
        append_content(&mut held, 1, MIB - taken, 10_000).await.unwrap();
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
        assert_eq!(held.total(), MIB);
    });
    world.comes_to_rest();
}

#[test]
fn a_broken_tier_comes_back_with_a_new_file_while_the_old_one_is_still_sent() {
    let world = World::new(128 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 200 * KIB, 20_000).await.unwrap();
        world.faults[0].plan(|_, call| matches!(call, Call::Write).then_some(Errno::IO));
        let mut other = Held::new(&world.store);
        let _: Result<(), Full> = append_content(&mut other, 2, 200 * KIB, 20_000).await;
        until("the fault shows", || {
            degraded(&world.store.report())[0].is_some_and(|reason| reason.contains("Input/output"))
        });
        world.faults[0].plan(|_, _| None);
        until("the tier recovers", || degraded(&world.store.report()) == [None]);
        let taken = other.total();
        append_content(&mut other, 2, 400 * KIB - taken, 20_000).await.unwrap();
        assert!(world.used()[1] <= MIB);
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
        let got = drain(&mut other).await.unwrap();
        assert_eq!(got.len() as u64, 400 * KIB);
        assert_content(&got, 2, 0);
    });
    world.comes_to_rest();
}

#[test]
fn bytes_that_the_device_lost_are_never_sent() {
    let world = World::new(128 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 300 * KIB, 20_000).await.unwrap();
        // The kernel says so when it is asked, which is when pages are not in the cache.
        world.faults[0].plan(|_, call| matches!(call, Call::WriteBack).then_some(Errno::IO));
        until("all is written", || held.flying() == 0);
        world.store.space.tiers[0].forget_cached();
        assert!(matches!(drain(&mut held).await, Err(SendError::Lost(_))));
        let reason = world.store.report().tiers[0].2.degraded.clone();
        assert!(reason.is_some_and(|reason| reason.contains("Input/output")));
    });
    world.comes_to_rest();
}

#[test]
fn a_part_that_cannot_be_read_is_no_fault_of_the_client() {
    let world = World::new(128 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 300 * KIB, 20_000).await.unwrap();
        until("all is written", || held.flying() == 0);
        world.store.space.tiers[0].forget_cached();
        world.faults[0].plan(|_, call| matches!(call, Call::Read).then_some(Errno::IO));
        assert!(matches!(drain(&mut held).await, Err(SendError::Lost(_))));
    });
    world.comes_to_rest();
}

#[test]
fn without_the_page_cache_known_everything_is_read_first() {
    let world = World::new(128 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 600 * KIB, 20_000).await.unwrap();
        world.store.space.tiers[0].forget_cached();
        let before = world.faults[0].calls();
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
        assert!(world.faults[0].calls() > before);
    });
    world.comes_to_rest();
}

#[test]
fn what_is_no_longer_in_the_page_cache_is_read_from_the_device() {
    let world = World::new(128 * KIB, 16 * KIB, 0, 4 * MIB);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 3 * MIB, 20_000).await.unwrap();
        until("all is written", || held.flying() == 0);
        world.store.space.tiers[0].drop_cached();
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
    });
    world.comes_to_rest();
}

#[test]
fn what_is_cached_of_one_tiers_file_says_nothing_of_anothers() {
    // One extent of flash at the front of its file; the disk's file begins at the same offset.
    let world = World::new(128 * KIB, 4 * KIB, 4 * KIB, 4 * MIB);
    let (go_on, wait) = mpsc::channel::<()>();
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 40 * KIB, 4096).await.unwrap();
        until("all is written", || held.flying() == 0);
        world.store.space.tiers[1].forget_cached();
        world.faults[1].plan(move |_, call| {
            if call == Call::Read {
                // Until the sender is gone.
                let _: Result<(), mpsc::RecvError> = wait.recv();
            }
            None
        });
        let (to, _from) = streams();
        let mut sent = 0;
        while sent < 8 * KIB {
            sent += send(&mut held, &to).await.unwrap() as u64;
        }
        let waits = poll_fn(|cx| Poll::Ready(held.poll_send(cx, &to).is_pending())).await;
        assert!(waits && sent == 8 * KIB, "sent before it was read, and the worker would have waited for the disk");
        drop(go_on);
        assert_content(&drain(&mut held).await.unwrap(), 1, 8 * KIB);
    });
    world.comes_to_rest();
}

/// The issue's own case: a file system that somebody else fills while contents are held in it.
#[test]
fn a_file_system_filled_from_outside_degrades_the_tier_until_there_is_room() {
    let (Some(flash), Some(disk)) = (Dir::tmpfs(c"size=2m"), Dir::tmpfs(c"size=8m")) else { return };
    let world =
        World::over(512 * KIB, 64 * KIB, vec![(TierKind::Flash, flash, 32 * MIB), (TierKind::Disk, disk, 8 * MIB)]);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, MIB, 60_000).await.unwrap();
        assert_eq!(held.tier(), "flash");
        let filler = world.dirs[0].path.join("filler");
        let _: std::io::Result<()> = fs::write(&filler, vec![0; 2 << 20]);
        append_content(&mut held, 1, 3 * MIB, 60_000).await.unwrap();
        assert_eq!(held.tier(), "disk");
        assert!(degraded(&world.store.report())[0].is_some());
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
        fs::remove_file(&filler).unwrap();
        let began = Instant::now();
        until("the tier recovers", || degraded(&world.store.report())[0].is_none());
        assert!(began.elapsed() < Duration::from_secs(10));
        let mut held = Held::new(&world.store);
        append_content(&mut held, 2, MIB, 60_000).await.unwrap();
        assert_eq!(held.tier(), "flash");
        assert_content(&drain(&mut held).await.unwrap(), 2, 0);
    });
    world.comes_to_rest();
}

#[test]
fn a_file_system_that_is_full_from_the_start_is_used_once_it_has_room() {
    let Some(dir) = Dir::tmpfs(c"size=2m") else { return };
    let filler = dir.path.join("filler");
    let _: std::io::Result<()> = fs::write(&filler, vec![0; 3 << 20]);
    let world = World::over(512 * KIB, 64 * KIB, vec![(TierKind::Flash, dir, 8 * MIB)]);
    run(async {
        let mut held = Held::new(&world.store);
        assert_eq!(append_content(&mut held, 1, MIB, 60_000).await, Err(Full));
        let taken = held.total();
        fs::remove_file(&filler).unwrap();
        until("the tier recovers", || degraded(&world.store.report()) == [None]);
        append_content(&mut held, 1, MIB - taken, 60_000).await.unwrap();
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
    });
    world.comes_to_rest();
}

/// A request that is sent again while a part of it found no place in a file and a later one did.
#[test]
fn a_stranded_part_holds_up_nobody() {
    let world = World::new(256 * KIB, 16 * KIB, MIB, 0);
    world.faults[0].plan(|calls, call| (calls == 1 && call == Call::Allocate).then_some(Errno::NOSPC));
    run(async {
        let mut held = Held::for_replay(&world.store);
        let _: Result<(), Full> = append_content(&mut held, 1, 100 * KIB, 10_000).await;
        until("the tier recovers", || degraded(&world.store.report()) == [None]);
        append_content(&mut held, 1, 300 * KIB, 10_000).await.unwrap();
        for _ in 0..2 {
            assert_content(&drain(&mut held).await.unwrap(), 1, 0);
            held.rewind();
        }
    });
    world.comes_to_rest();
}
