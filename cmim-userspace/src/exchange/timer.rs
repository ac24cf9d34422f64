//! A deadline that moves often and passes rarely.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// Wakes its task at a deadline. Moving the deadline later costs nothing: the timer that is set already fires early,
/// finds that out and is set again. So one timer serves a connection's requests one after the other.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` has passed. Each call may name another deadline.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let wanted = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wanted)));
        if sleep.deadline() > wanted {
            sleep.as_mut().reset(wanted);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= wanted {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(wanted);
        }
        Poll::Pending
    }
}
