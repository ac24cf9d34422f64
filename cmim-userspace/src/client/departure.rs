//! Telling a client that has left from one that only has nothing more to say.
//!
//! Both look the same: the client's side of the connection has ended (RFC 9112 section 9.6). Only bytes sent to it show
//! the difference, because a client that has closed its socket answers them with a reset. So while its replies are
//! awaited it is sent an interim reply, which every HTTP/1.1 client must be able to skip (RFC 9110 section 15.2).

use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::exchange::Link;

/// Most replies are there before this, and their own bytes tell then. Not less: simple clients take an interim reply for
/// the reply itself (Python's http.client).
const FIRST_PROBE: Duration = Duration::from_millis(1500);
/// A reset comes within a round trip of the probe.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// A client that was there may leave later.
const NEXT_PROBE: Duration = Duration::from_secs(5);
const PROBE: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// Watches a client that has ended its side while requests of it are in the device.
#[derive(Debug, Default)]
pub(super) struct Departure {
    next: Option<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Probe { at: Instant },
    Look { at: Instant },
}

impl Departure {
    /// The client has ended its side.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.next.get_or_insert(Step::Probe { at: now + FIRST_PROBE });
    }

    /// When [`Self::check`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(Step::Probe { at } | Step::Look { at })| at)
    }

    /// Probes, or looks at what a probe brought. True: the client is gone. `may_probe`: no byte of a reply is on its way,
    /// and the client speaks HTTP/1.1.
    pub(super) fn check(&mut self, cx: &mut Context<'_>, link: &Link, may_probe: bool, now: Instant) -> bool {
        match self.next {
            Some(Step::Probe { at }) if now >= at => {
                // Bytes that are on their way already bring an answer themselves. Behind none there is room for the whole
                // probe: half of one would spoil the reply behind it.
                let asks = may_probe && !link.stream.has_unacknowledged();
                if asks && let Poll::Ready(Err(_)) = link.poll_write(cx, &[IoSlice::new(PROBE)]) {
                    return true;
                }
                self.next = Some(Step::Look { at: now + LOOK_AFTER });
            }
            Some(Step::Look { at }) if now >= at => {
                if link.stream.has_failed() {
                    return true;
                }
                self.next = Some(Step::Probe { at: now + NEXT_PROBE });
            }
            Some(Step::Probe { .. } | Step::Look { .. }) | None => {}
        }
        false
    }
}
