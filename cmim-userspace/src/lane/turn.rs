//! Stepping back for others.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

thread_local! {
    static TAKEN: Cell<u32> = const { Cell::new(0) };
}

/// Lets everybody else have a turn who is ready now, in this task and in others of the worker.
pub async fn turn() {
    TAKEN.set(TAKEN.get().saturating_add(1));
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How often this thread's tasks have stepped back since it was last asked: how much there was to do at once.
pub fn turns_taken() -> u32 {
    TAKEN.take()
}
