//! How fast contents go through a file tier, and whether the worker's loop notices. Run by hand:
//! `cargo test --release --lib buffer::tests::bench -- --ignored --nocapture` (`CMIM_BENCH_DIR`: where the tier is).

use std::cell::Cell;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::LocalSet;

use super::world::{append, buffer, run, streams, tier};
use crate::buffer::Store;
use crate::buffer::content::Held;
use crate::config::model::TierKind;
use crate::net::Stream;

const CONTENTS: usize = 8;
const LEN: u64 = 100 << 20;
const STEP: usize = 64 * 1024;

/// Notes the longest pause of the loop until it is stopped.
async fn watch_the_loop(longest: Rc<Cell<Duration>>) {
    loop {
        let before = Instant::now();
        tokio::task::yield_now().await;
        longest.set(longest.get().max(before.elapsed()));
    }
}

#[test]
#[ignore = "a measurement"]
fn throughput_and_the_loops_longest_pause() {
    let dir = super::world::Dir::new();
    let path = std::env::var_os("CMIM_BENCH_DIR").map_or_else(|| dir.path.clone(), Into::into);
    let model = buffer(64 << 20, 1 << 20, vec![tier(TierKind::Flash, &path, 2 << 30)]);
    let store = Store::open(&model).unwrap();
    run(LocalSet::new().run_until(async {
        let longest = Rc::new(Cell::new(Duration::ZERO));
        let watch = tokio::task::spawn_local(watch_the_loop(Rc::clone(&longest)));
        let block = Bytes::from(vec![b'x'; STEP]);
        let began = Instant::now();
        let mut contents: Vec<Held> = Vec::new();
        for _ in 0..CONTENTS {
            let mut held = Held::new(&store);
            for _ in 0..LEN / STEP as u64 {
                append(&mut held, block.clone()).await.unwrap();
            }
            contents.push(held);
        }
        let total = (CONTENTS as u64 * LEN) as f64 / 1e6;
        println!("held: {:.0} MB/s, longest pause {:?}", total / began.elapsed().as_secs_f64(), longest.take());
        for (name, cold) in [("sent from the page cache", false), ("sent from the device", true)] {
            if cold {
                store.space.tiers[0].drop_cached();
                // That was this test's own pause.
                tokio::task::yield_now().await;
                longest.take();
            }
            let waited = Rc::new(Cell::new((0, Duration::ZERO)));
            let began = Instant::now();
            let half: Vec<Held> = contents.drain(..contents.len().min(CONTENTS / 2)).collect();
            let tasks: Vec<_> =
                half.into_iter().map(|held| tokio::task::spawn_local(send_all(held, Rc::clone(&waited)))).collect();
            for task in tasks {
                task.await.unwrap();
            }
            let speed = total / 2.0 / began.elapsed().as_secs_f64();
            let (times, worst) = waited.get();
            let pause = longest.take();
            println!("{name}: {speed:.0} MB/s, longest pause {pause:?}, {times} sends waited, {worst:?} at worst");
        }
        watch.abort();
    }));
    println!("{:#?}", store.report().tiers);
}

/// Times that this thread has waited in the kernel: not the times that it was made to by other threads.
fn waits() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "rustix has no getrusage")]
    // SAFETY: `usage` has room for what the call writes.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
    }
    #[expect(unsafe_code, reason = "a structure filled by C")]
    // SAFETY: all of it is zeros or was written by the call; it is made of numbers.
    let usage = unsafe { usage.assume_init() };
    usage.ru_nvcsw
}

/// A send that notes how often and how long the worker waited in it.
async fn timed_send(held: &mut Held, to: &Stream, waited: &Cell<(u32, Duration)>) {
    poll_fn(|cx| {
        let (before, began) = (waits(), Instant::now());
        let polled = held.poll_send(cx, to);
        if waits() > before {
            let (times, longest) = waited.get();
            waited.set((times + 1, longest.max(began.elapsed())));
        }
        polled
    })
    .await
    .unwrap();
}

async fn send_all(mut held: Held, waited: Rc<Cell<(u32, Duration)>>) {
    let (to, from) = streams();
    let from = from.as_fd().try_clone_to_owned().unwrap();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        let from = std::os::unix::net::UnixStream::from(from);
        from.set_nonblocking(false).unwrap();
        let mut from = from;
        while std::io::Read::read(&mut from, &mut buffer).unwrap() > 0 {}
    });
    while !held.is_empty() {
        timed_send(&mut held, &to, &waited).await;
    }
    drop(to);
    tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
}
