//! One content, over one tier or all of them.

use std::future::poll_fn;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::world::{
    Dir, World, append, append_content, assert_content, bytes, drain, receive, run, send, streams, tcp_streams, until,
};
use crate::buffer::content::{Full, Held};
use crate::config::model::TierKind;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

#[test]
fn what_fits_the_share_never_touches_a_file() {
    let world = World::new(MIB, 256 * KIB, MIB, MIB);
    let before = world.faults[0].calls();
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 1, 256 * KIB, 64 * 1024).await.unwrap();
        assert_eq!((held.tier(), held.has_spilled()), ("memory", false));
        assert_eq!(world.used(), [256 * KIB, 0, 0]);
        assert_content(&drain(&mut held).await.unwrap(), 1, 0);
        assert_eq!((held.len(), held.total(), held.tier()), (0, 256 * KIB, ""));
    });
    assert_eq!(world.faults[0].calls(), before);
    world.comes_to_rest();
}

#[test]
fn a_content_goes_on_from_ram_to_flash_to_disk() {
    let world = World::new(256 * KIB, 64 * KIB, 512 * KIB, 4 * MIB);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 2, 2 * MIB, 50_000).await.unwrap();
        held.finish();
        let used = world.used();
        assert!(used[0] >= 64 * KIB && used[0] <= 256 * KIB, "{used:?}");
        assert_eq!(used[1], 512 * KIB);
        assert!(used[2] >= 1200 * KIB && used[2] <= 4 * MIB, "{used:?}");
        assert_eq!(held.tier(), "disk");
        let report = world.store.report();
        let (flash, disk) = (&report.tiers[0].2, &report.tiers[1].2);
        assert_eq!((flash.contents, flash.spilled_total, flash.refused_total), (1, 1, 1));
        assert_eq!((disk.contents, disk.spilled_total, disk.refused_total), (1, 0, 0));
        assert_eq!((report.memory.spilled_total, report.memory.refused_total), (1, 0));
        assert_eq!(report.of_kind(TierKind::Disk).unwrap(), *disk);
        let got = drain(&mut held).await.unwrap();
        assert_eq!(got.len() as u64, 2 * MIB);
        assert_content(&got, 2, 0);
    });
    world.comes_to_rest();
    let report = world.store.report();
    let written: u64 = report.tiers.iter().map(|(_, _, tier)| tier.written_total).sum();
    assert!(written <= 2 * MIB, "no byte is written twice");
}

#[test]
fn a_content_for_which_no_tier_has_room_stops_where_it_is_and_goes_on_later() {
    let world = World::new(64 * KIB, 32 * KIB, 256 * KIB, 0);
    run(async {
        let mut other = Held::new(&world.store);
        append_content(&mut other, 9, 200 * KIB, 10_000).await.unwrap();
        let mut held = Held::new(&world.store);
        assert_eq!(append_content(&mut held, 3, MIB, 10_000).await, Err(Full));
        let stopped = held.total();
        assert!(stopped > 0 && world.store.report().memory.refused_total == 1);
        let mut left = Some(bytes(3, stopped, 50_000));
        assert_eq!(poll_fn(|cx| held.poll_append(cx, &mut left)).await, Err(Full));
        assert_eq!(left.as_ref().map(Bytes::len), Some((stopped + 50_000 - held.total()) as usize));
        // Its task is told when there is room.
        drop(other);
        poll_fn(|cx| match held.poll_append(cx, &mut left) {
            Poll::Ready(Err(Full)) => Poll::Pending,
            other => other,
        })
        .await
        .unwrap();
        assert_content(&drain(&mut held).await.unwrap(), 3, 0);
    });
    world.comes_to_rest();
}

#[test]
fn a_request_can_be_sent_again_from_its_first_byte() {
    let world = World::new(256 * KIB, 64 * KIB, 512 * KIB, 4 * MIB);
    run(async {
        let mut held = Held::for_replay(&world.store);
        append_content(&mut held, 4, MIB, 30_000).await.unwrap();
        let (to, from) = streams();
        let mut got = BytesMut::new();
        while got.len() < 300_000 {
            send(&mut held, &to).await.unwrap();
            receive(&from, &mut got).await;
        }
        assert!(held.len() < MIB);
        // More comes while it is being sent, and behind the end of what is sent.
        append_content(&mut held, 4, 100_000, 30_000).await.unwrap();
        for _ in 0..2 {
            held.rewind();
            let got = drain(&mut held).await.unwrap();
            assert_eq!(got.len() as u64, MIB + 100_000);
            assert_content(&got, 4, 0);
        }
        append_content(&mut held, 4, 10, 3).await.unwrap();
        assert_content(&drain(&mut held).await.unwrap(), 4, MIB + 100_000);
        held.rewind();
        assert_content(&drain(&mut held).await.unwrap(), 4, 0);
    });
    world.comes_to_rest();
}

#[test]
fn a_head_goes_in_front_of_whatever_comes_next() {
    let world = World::new(256 * KIB, 16 * KIB, MIB, 0);
    run(async {
        for len in [0, 100, 200 * KIB] {
            let mut held = Held::for_replay(&world.store);
            append_content(&mut held, 5, len, 40_000).await.unwrap();
            let (to, from) = streams();
            let mut head = Bytes::from_static(b"head");
            let mut got = BytesMut::new();
            while !head.is_empty() || !held.is_empty() {
                poll_fn(|cx| held.poll_send_behind(cx, &to, &mut head)).await.unwrap();
                receive(&from, &mut got).await;
            }
            while (got.len() as u64) < 4 + len {
                receive(&from, &mut got).await;
            }
            assert_eq!(&got[..4], b"head");
            assert_content(&got[4..], 5, 0);
        }
    });
    world.comes_to_rest();
}

#[test]
fn chunk_lines_between_pieces_stay_in_their_places() {
    let world = World::new(64 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        let mut expected = Vec::new();
        for number in 0..400_u64 {
            let data = bytes(6, number * 1000, 500 + number as usize);
            let line = Bytes::from(format!("{:x}\r\n", data.len()));
            for (piece, accounted) in [(line, false), (data, true), (Bytes::from_static(b"\r\n"), false)] {
                expected.extend_from_slice(&piece);
                if accounted { append(&mut held, piece).await.unwrap() } else { held.append_unaccounted(piece) }
            }
        }
        assert!(drain(&mut held).await.unwrap() == expected);
    });
    world.comes_to_rest();
}

#[test]
fn a_flood_of_single_bytes_makes_few_parts() {
    let world = World::new(64 * KIB, 16 * KIB, MIB, 0);
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 7, 100_000, 1).await.unwrap();
        assert!(held.parts.len() < 60, "{} parts", held.parts.len());
        assert_content(&drain(&mut held).await.unwrap(), 7, 0);
    });
    world.comes_to_rest();
}

/// Sent pages wait in the socket as they are: they must not change when their extents serve another content.
fn sent_pages_stay(dir: Dir) {
    let world = World::over(256 * KIB, 4 * KIB, vec![(TierKind::Flash, dir, 4 * MIB)]);
    run(async {
        for round in 0..8 {
            let mut first = Held::new(&world.store);
            append_content(&mut first, round, 130 * KIB, 60_000).await.unwrap();
            let (to, from) = if round % 2 == 0 { streams() } else { tcp_streams().await };
            // Until the socket is full: nobody reads yet.
            let mut sent = 0;
            while let Some(count) = poll_fn(|cx| match first.poll_send(cx, &to) {
                Poll::Ready(result) => Poll::Ready(Some(result.unwrap())),
                Poll::Pending if first.spill.as_ref().is_some_and(|spill| spill.fetch.is_some()) => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            })
            .await
            .filter(|&count| count > 0)
            {
                sent += count;
            }
            drop(first);
            // Others take its extents, all there are.
            let mut others = Vec::new();
            loop {
                let mut other = Held::new(&world.store);
                if append_content(&mut other, 1000 + round, 200 * KIB, 60_000).await.is_err() {
                    break;
                }
                others.push(other);
            }
            drop(to);
            let mut got = BytesMut::new();
            while receive(&from, &mut got).await > 0 {}
            assert_eq!(got.len(), sent);
            assert_content(&got, round, 0);
            for other in &mut others {
                assert_content(&drain(other).await.unwrap(), 1000 + round, 0);
            }
        }
    });
    world.comes_to_rest();
}

#[test]
fn pages_in_a_socket_keep_their_bytes_when_their_extent_is_used_again() {
    sent_pages_stay(Dir::new());
}

#[test]
fn pages_in_a_socket_keep_their_bytes_on_a_tmpfs() {
    if let Some(dir) = Dir::tmpfs(c"size=8m") {
        sent_pages_stay(dir);
    }
}

#[test]
fn pages_in_a_socket_keep_their_bytes_on_a_tmpfs_with_huge_pages() {
    for options in [c"size=64m,huge=always", c"size=64m,huge=within_size"] {
        if let Some(dir) = Dir::tmpfs(options) {
            sent_pages_stay(dir);
        }
    }
}

#[test]
fn a_tmpfs_takes_what_the_figures_say_and_gives_it_back() {
    let Some(dir) = Dir::tmpfs(c"size=16m") else { return };
    let world = World::over(256 * KIB, 16 * KIB, vec![(TierKind::Flash, dir, 8 * MIB)]);
    let at_rest = world.dirs[0].bytes_used();
    run(async {
        let mut held = Held::new(&world.store);
        append_content(&mut held, 8, 3 * MIB, 60_000).await.unwrap();
        held.finish();
        until("all is written", || held.flying() == 0);
        until("df and the figures agree", || world.dirs[0].bytes_used() - at_rest == world.used()[1]);
        assert!(world.used()[1] >= 2 * MIB);
        drop(held);
        until("df goes down again", || world.dirs[0].bytes_used() == at_rest);
    });
    world.comes_to_rest();
}
