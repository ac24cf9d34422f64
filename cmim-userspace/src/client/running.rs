//! The exchanges of one client connection that are under way.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::stack::Seq;

/// One exchange, boxed so that an idle connection does not carry its size.
struct Exchange<'a, T> {
    seq: Seq,
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
}

impl<T> Future for Exchange<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.future.as_mut().poll(cx)
    }
}

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

    pub(super) fn push(&mut self, seq: Seq, future: impl Future<Output = T> + 'a) {
        let exchange = Exchange { seq, future: Box::pin(future) };
        if self.alone.is_none() {
            self.alone = Some(exchange);
        } else {
            self.beside.get_or_insert_default().push(exchange);
        }
    }

    /// Drops the exchange of `seq`. False: it is not here.
    pub(super) fn cancel(&mut self, seq: Seq) -> bool {
        if self.alone.take_if(|exchange| exchange.seq == seq).is_some() {
            return true;
        }
        let Some(beside) = self.beside.take() else { return false };
        let before = beside.len();
        // The set gives no single one out; put back, each is polled once more, which does no harm.
        let left: FuturesUnordered<_> = beside.into_iter().filter(|exchange| exchange.seq != seq).collect();
        let found = left.len() < before;
        self.beside = (!left.is_empty()).then(|| Box::new(left));
        found
    }

    /// The next exchange that has ended. Pending also where there is none.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(exchange) = &mut self.alone
            && let Poll::Ready(ended) = exchange.future.as_mut().poll(cx)
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
    use std::future::{pending, ready};
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_cancelled_exchange_is_dropped_and_the_others_go_on() {
        let mut running: Running<'_, u64> = Running::new();
        running.push(Seq(0), pending());
        running.push(Seq(1), pending());
        running.push(Seq(2), ready(2));
        assert!(running.cancel(Seq(1)));
        assert!(!running.cancel(Seq(1)));
        assert!(running.cancel(Seq(0)));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(2));
        assert_eq!(running.poll_next(&mut cx), Poll::Pending);
    }
}
