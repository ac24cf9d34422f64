//! Closing a client connection so that what was sent to it arrives.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::exchange::{Link, Site, Timer};
use crate::observe::roll::Doing;

/// How long a client may go on sending after the device has ended its side. Many send a whole content before they read;
/// nginx waits as long.
const LINGER: Duration = Duration::from_secs(30);
/// How long it may say nothing meanwhile.
const LINGER_SILENT: Duration = Duration::from_secs(2);
/// How long it may go on sending while the device shuts down.
const LINGER_DRAINING: Duration = Duration::from_secs(2);

/// How a client connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing is on its way in either direction.
    Idle,
    /// The last reply is on its way, and the client has said that it sends nothing more.
    Agreed,
    /// The last reply is on its way, and the client may still be sending.
    Orderly,
    /// A reply was cut; a reset says so.
    Reset,
    /// The client is gone.
    Gone,
}

/// Closes the connection. A close with unread bytes in the socket would become a reset that destroys the last reply on
/// its way (RFC 9112 section 9.6), so they are read and dropped first, for a time.
pub(super) async fn close(site: &Site, link: &Link, ending: Ending) {
    link.record.doing(Doing::Closing);
    match ending {
        Ending::Idle | Ending::Gone => {}
        // It may have sent something all the same.
        Ending::Agreed if link.has_no_input() && !link.stream.has_unread() => {}
        Ending::Reset => link.stream.reset_on_close(),
        Ending::Agreed | Ending::Orderly => {
            if link.stream.shutdown_write().is_ok() && !link.has_ended() {
                linger(site, link).await;
            }
        }
    }
}

async fn linger(site: &Site, link: &Link) {
    let mut linger = Linger::new(Instant::now());
    let mut timer = Timer::default();
    poll_fn(|cx| {
        loop {
            link.with_input(|input| input.clear());
            match link.poll_fill(cx, site) {
                Poll::Ready(Ok(true)) => {
                    if linger.goes_on(site.drain.has_begun(), Instant::now()) {
                        continue;
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return timer.poll_until(cx, linger.deadline()),
            }
        }
    })
    .await;
}

/// How long a connection lingers.
#[derive(Debug)]
struct Linger {
    end: Instant,
    last_byte: Instant,
    draining: bool,
}

impl Linger {
    fn new(now: Instant) -> Self {
        Self { end: now + LINGER, last_byte: now, draining: false }
    }

    /// The client has sent something at `now`; `false`: it has had its time.
    fn goes_on(&mut self, draining: bool, now: Instant) -> bool {
        self.last_byte = now;
        if draining && !self.draining {
            self.draining = true;
            self.end = self.end.min(now + LINGER_DRAINING);
        }
        now < self.end
    }

    fn deadline(&self) -> Instant {
        self.end.min(self.last_byte + LINGER_SILENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_goes_on_sending_has_its_time_and_a_silent_one_a_short_one() {
        let start = Instant::now();
        let mut linger = Linger::new(start);
        assert_eq!(linger.deadline(), start + LINGER_SILENT);
        let later = start + LINGER / 2;
        assert!(linger.goes_on(false, later));
        assert_eq!(linger.deadline(), later + LINGER_SILENT);
        let near = start + LINGER - LINGER_SILENT / 2;
        assert!(linger.goes_on(false, near));
        assert_eq!(linger.deadline(), start + LINGER);
        assert!(!linger.goes_on(false, start + LINGER));
    }

    #[test]
    fn a_device_that_shuts_down_does_not_wait_for_one_that_goes_on_sending() {
        let start = Instant::now();
        let mut linger = Linger::new(start);
        let drained = start + Duration::from_secs(5);
        assert!(linger.goes_on(true, drained));
        // Counted from when that was first seen.
        assert!(linger.goes_on(true, drained + LINGER_DRAINING / 2));
        assert_eq!(linger.deadline(), drained + LINGER_DRAINING);
        assert!(!linger.goes_on(true, drained + LINGER_DRAINING));
    }
}
