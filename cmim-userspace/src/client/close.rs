//! Closing a client connection so that what was sent to it arrives.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::exchange::{Link, Site, Timer};
use crate::observe::roll::Doing;

/// How long a client may go on sending after the device has ended its side.
const LINGER: Duration = Duration::from_secs(2);
/// How much of that is read, to see the client's own end behind it.
const LINGER_BYTES: usize = 1 << 20;

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
/// its way (RFC 9112 section 9.6), so they are read and dropped first, within bounds.
pub(super) async fn close(site: &Site, link: &Link, ending: Ending) {
    link.record.doing(Doing::Closing);
    match ending {
        Ending::Idle | Ending::Gone => {}
        Ending::Agreed if link.with_input(|input| input.is_empty()) => {}
        Ending::Reset => link.stream.reset_on_close(),
        Ending::Agreed | Ending::Orderly => {
            if link.stream.shutdown_write().is_ok() && !link.has_ended() {
                linger(site, link).await;
            }
        }
    }
}

async fn linger(site: &Site, link: &Link) {
    let deadline = Instant::now() + LINGER;
    let mut timer = Timer::default();
    let mut left = LINGER_BYTES;
    poll_fn(|cx| {
        loop {
            let dropped = link.with_input(|input| {
                let count = input.len();
                input.clear();
                count
            });
            left = left.saturating_sub(dropped);
            if left == 0 {
                return Poll::Ready(());
            }
            match link.poll_fill(cx, site) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return timer.poll_until(cx, deadline),
            }
        }
    })
    .await;
}
