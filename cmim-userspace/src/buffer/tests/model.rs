//! A held content against a plain vector: any sequence of appends, sends and failures gives the same bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rustix::io::Errno;

use super::world::{World, bytes, receive, run, streams};
use crate::buffer::content::Held;
use crate::buffer::faults::Call;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Unaccounted(usize),
    /// Sends up to so many times.
    Send(usize),
    /// The tier's calls fail from now on, or no longer.
    Fail(usize, Option<bool>),
    Rewind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_usize..40_000).prop_map(Step::Append),
        2 => (1_usize..600).prop_map(Step::Append),
        2 => (1_usize..20).prop_map(Step::Unaccounted),
        5 => (1_usize..12).prop_map(Step::Send),
        1 => (0_usize..2, prop::option::of(any::<bool>())).prop_map(|(tier, full)| Step::Fail(tier, full)),
        1 => Just(Step::Rewind),
    ]
}

/// Gives up at the first halt: the content is full, or has nothing that can be sent at once.
async fn follow(world: &World, replay: bool, steps: Vec<Step>) {
    let mut held = if replay { Held::for_replay(&world.store) } else { Held::new(&world.store) };
    let (mut to, mut from) = streams();
    let mut expected: VecDeque<u8> = VecDeque::new();
    let mut all: Vec<u8> = Vec::new();
    for step in steps {
        match step {
            Step::Append(len) => {
                let piece = bytes(1, all.len() as u64, len);
                let mut rest = Some(piece.clone());
                let _: Result<(), _> = poll_fn(|cx| held.poll_append(cx, &mut rest)).await;
                let taken = &piece[..len - rest.map_or(0, |rest| rest.len())];
                expected.extend(taken);
                all.extend(taken);
            }
            Step::Unaccounted(len) => {
                let piece = bytes(1, all.len() as u64, len);
                held.append_unaccounted(piece.clone());
                expected.extend(&piece);
                all.extend(&piece);
            }
            Step::Send(times) => {
                for _ in 0..times {
                    let before = held.len();
                    let mut head = Bytes::new();
                    let count = poll_fn(|cx| held.poll_send_behind(cx, &to, &mut head)).await.unwrap();
                    assert_eq!(held.len(), before - count as u64);
                    let mut got = BytesMut::new();
                    while got.len() < count {
                        receive(&from, &mut got).await;
                    }
                    assert!(got.iter().copied().eq(expected.drain(..count)), "other bytes came out than went in");
                }
            }
            Step::Fail(tier, full) => {
                let errno = full.map(|full| if full { Errno::NOSPC } else { Errno::IO });
                // Reading and clearing go on: what is in a full or broken file is still to be had.
                world.faults[tier]
                    .plan(move |_, call| errno.filter(|_| matches!(call, Call::Allocate | Call::Write | Call::Open)));
            }
            Step::Rewind if replay => {
                held.rewind();
                expected = all.iter().copied().collect();
                (to, from) = streams();
            }
            Step::Rewind => {}
        }
        assert_eq!(held.len(), expected.len() as u64);
        assert_eq!(held.total(), all.len() as u64);
        assert!(world.used().iter().zip([50_000, 65_536, 131_072]).all(|(&used, size)| used <= size));
    }
    // It can be dropped in any state.
    let waits = poll_fn(|cx| Poll::Ready(held.poll_send(cx, &to).is_pending())).await;
    drop((waits, held));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn bytes_come_out_as_they_went_in(replay: bool, steps in prop::collection::vec(step(), 1..60)) {
        let world = World::new(50_000, 12_000, 65_536, 131_072);
        run(follow(&world, replay, steps));
        world.comes_to_rest();
    }
}
