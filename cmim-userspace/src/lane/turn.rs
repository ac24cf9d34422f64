//! Stepping back for others.

use std::future::poll_fn;
use std::task::Poll;

/// Lets everybody else have a turn who is ready now, in this task and in others of the worker.
pub async fn turn() {
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
