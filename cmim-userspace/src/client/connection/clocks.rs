//! The clocks of a client connection itself; requests under way have their own.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{Connection, Heads};
use crate::client::close::Ending;
use crate::client::parked::PARK_AFTER;
use crate::h1::Version;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Head,
    Idle,
    Park,
    Departure,
}

impl Connection<'_> {
    /// `Ready(None)`: a clock ran out and the loop has something to do.
    pub(super) fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        if self.link.has_ended() && !self.order.is_empty() {
            self.departure.suspect(Instant::now());
        }
        let Some((deadline, clock)) = self.next_clock() else { return Poll::Pending };
        if self.link.poll_timer(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        match clock {
            Clock::Idle => Poll::Ready(Some(Ending::Idle)),
            Clock::Park => {
                self.rested = true;
                Poll::Pending
            }
            Clock::Head => {
                self.refuse_bytes(408, "the request head did not come whole within client_head".to_owned());
                Poll::Ready(None)
            }
            Clock::Departure => {
                let may_probe = self.version == Version::Http11 && !self.link.reply_has_begun();
                let gone = self.departure.check(cx, self.link, may_probe, Instant::now());
                Poll::Ready(gone.then_some(Ending::Gone))
            }
        }
    }

    fn next_clock(&self) -> Option<(Instant, Clock)> {
        let timeouts = &self.site.config.timeouts;
        let head = self.head_since.filter(|_| self.heads == Heads::Open && !self.link.has_said_close());
        let head = head.map(|since| (since + timeouts.client_head, Clock::Head));
        let idle =
            (self.order.is_empty() && head.is_none()).then(|| (self.idle_since + timeouts.client_idle, Clock::Idle));
        let park =
            (idle.is_some() && !self.rested && self.can_park()).then(|| (self.idle_since + PARK_AFTER, Clock::Park));
        // Requests under way have clocks of their own; only a client that may have left is watched beside them.
        let departure = self.departure.deadline().filter(|_| !self.order.is_empty());
        let departure = departure.map(|deadline| (deadline, Clock::Departure));
        [head, idle, park, departure].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }
}
