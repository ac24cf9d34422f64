//! The exchanges of one client connection that are under way.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// One exchange, boxed so that an idle connection does not carry its size.
type Exchange<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Exchanges polled side by side. One alone, the plain case, needs no bookkeeping; from the second on, each is polled
/// only when it was woken.
pub(super) struct Running<'a, T> {
    alone: Option<Exchange<'a, T>>,
    beside: Option<Box<FuturesUnordered<Exchange<'a, T>>>>,
}

impl<'a, T> Running<'a, T> {
    pub(super) fn new() -> Self {
        Self { alone: None, beside: None }
    }

    pub(super) fn push(&mut self, exchange: impl Future<Output = T> + 'a) {
        let exchange: Exchange<'a, T> = Box::pin(exchange);
        if self.alone.is_none() {
            self.alone = Some(exchange);
        } else {
            self.beside.get_or_insert_default().push(exchange);
        }
    }

    /// Has every exchange polled once more, whoever was woken: something that concerns one of them has changed.
    pub(super) fn poll_all_again(&mut self) {
        if let Some(beside) = self.beside.take() {
            // Put in anew, each counts as woken.
            self.beside = Some(Box::new(beside.into_iter().collect()));
        }
    }

    /// The next exchange that has ended. Pending also where there is none.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(exchange) = &mut self.alone
            && let Poll::Ready(ended) = exchange.as_mut().poll(cx)
        {
            self.alone = None;
            return Poll::Ready(ended);
        }
        if let Some(beside) = &mut self.beside {
            match beside.poll_next_unpin(cx) {
                Poll::Ready(Some(ended)) => return Poll::Ready(ended),
                Poll::Ready(None) => self.beside = None,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::task::Waker;

    use super::*;

    #[test]
    fn an_exchange_that_nobody_woke_can_be_polled_again() {
        let stop = Cell::new(false);
        let mut running: Running<'_, u64> = Running::new();
        running.push(pending());
        running.push(poll_fn(|_| if stop.get() { Poll::Ready(1) } else { Poll::Pending }));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(running.poll_next(&mut cx), Poll::Pending);
        stop.set(true);
        assert_eq!(running.poll_next(&mut cx), Poll::Pending);
        running.poll_all_again();
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(1));
    }
}
