//! The sockmap lane: the kernel hands bytes from socket to socket, and the daemon sleeps.
//!
//! Userspace is needed for what the kernel cannot do: the end of a source (which it never forwards), a target that is not
//! taking bytes fast enough, and the end of a content. For these it is woken: by the event loop for ends, by the
//! verdict's news for bytes that were left to it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::copy::{Carried, End};
use super::direction::Direction;
use crate::buffer::BufferPool;
pub use crate::kernel::Splicer;
use crate::kernel::{Splice, Way};
use crate::net::{Stir, Stream};

/// Turns that whoever watches a stream is given to let go of it.
const TURNS: usize = 8;

/// A tunnel that the kernel may carry; nothing of it is in the kernel yet.
#[derive(Debug)]
pub struct Tunnel<'a> {
    // Dropped first: the sockets leave the kernel's maps before the event loop watches them as before.
    splice: Splice<'a>,
    first: End<'a>,
    second: End<'a>,
    watches: [EndsWatched<'a>; 2],
}

/// A stream of which the event loop tells only ends, until this is dropped.
#[derive(Debug)]
struct EndsWatched<'a>(&'a Stream);

impl Drop for EndsWatched<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.watch_whole() {
            // Its connection is closed by that; whoever uses it next is told.
            tracing::warn!("a stream is lost: {error}");
        }
    }
}

impl<'a> Tunnel<'a> {
    /// Takes two streams over from the event loop. Whoever waits for one of them to break or to turn readable has to stop
    /// that when he is next polled.
    ///
    /// # Errors
    ///
    /// Both ends, watched as before, where they are not for this lane.
    pub async fn between(splicer: &Splicer, first: End<'a>, second: End<'a>) -> Result<Self, (End<'a>, End<'a>)> {
        let splice = match splicer.begin(first.stream, second.stream) {
            Ok(splice) => splice,
            Err(error) => {
                tracing::debug!("a tunnel is copied: {error}");
                return Err((first, second));
            }
        };
        if let Some(one) = watch_ends(first.stream).await
            && let Some(other) = watch_ends(second.stream).await
        {
            return Ok(Self { splice, first, second, watches: [one, other] });
        }
        Err((first, second))
    }

    /// Carries bytes both ways until both sides have ended theirs, or one breaks. One side's end is passed on while the
    /// other direction goes on.
    pub async fn run(self, buffers: &BufferPool) -> (Carried, io::Result<()>) {
        let Self { mut splice, first, second, watches } = self;
        let mut forth = Direction::new(first.stream, second.stream, Way::Forth, first.read);
        let mut back = Direction::new(second.stream, first.stream, Way::Back, second.read);
        let result = poll_fn(|cx| {
            // Before the sockets are looked at, so that what happens behind the look is told.
            stir(cx, first.stream)?;
            stir(cx, second.stream)?;
            let news = splice.poll_news(cx);
            let forth_ended = forth.poll(cx, &mut splice, buffers, news)?.is_ready();
            let back_ended = back.poll(cx, &mut splice, buffers, news)?.is_ready();
            if forth_ended && back_ended { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await;
        let carried = Carried { forth: forth.carried(&splice), back: back.carried(&splice) };
        drop(splice);
        drop(watches);
        (carried, result)
    }
}

/// A break is told at once, also where bytes are still on their way.
fn stir(cx: &mut Context<'_>, stream: &Stream) -> io::Result<()> {
    match stream.poll_stir(cx) {
        Stir::Over if stream.has_failed() => Err(io::ErrorKind::ConnectionReset.into()),
        Stir::Over | Stir::Open => Ok(()),
    }
}

/// `None`: somebody does not let go of it.
async fn watch_ends(stream: &Stream) -> Option<EndsWatched<'_>> {
    for _ in 0..TURNS {
        match stream.watch_ends() {
            Ok(true) => return Some(EndsWatched(stream)),
            Ok(false) => turn().await,
            Err(error) => {
                tracing::debug!("{error}");
                return None;
            }
        }
    }
    None
}

/// Lets everybody else in this task have a turn.
async fn turn() {
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
