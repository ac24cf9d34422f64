//! The sockmap lane: the kernel hands bytes from socket to socket, and the daemon sleeps.
//!
//! Userspace is needed for what the kernel cannot do: the end of a source (which it never forwards), a target that is not
//! taking bytes fast enough, and the end of a content. For these it is woken: by the event loop for ends, by the
//! verdict's news for bytes that were left to it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;

pub use super::direction::Fault;
use super::direction::{self, Direction};
use super::tunnel::{Carried, End};
use super::turn::turn;
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

/// Resets a stream's connection when it is closed, unless all that it brings was carried. What the kernel has of it
/// counts as read, so that a plain close would tell its peer nothing until that asks (tcp_close(), zero window probes).
#[derive(Debug)]
struct ResetUnlessWhole<'a>(Option<&'a Stream>);

impl Drop for ResetUnlessWhole<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.reset_on_close();
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
        let mut forth = Direction::new(first.stream, second.stream, Way::Forth, first.read, None);
        let mut back = Direction::new(second.stream, first.stream, Way::Back, second.read, None);
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

/// A content of known length that the kernel may carry; nothing of it is in the kernel yet.
#[derive(Debug)]
pub struct Content<'a> {
    // Dropped first, as a tunnel's.
    splice: Splice<'a>,
    direction: Direction<'a>,
    from: &'a Stream,
    watch: EndsWatched<'a>,
    reset: ResetUnlessWhole<'a>,
}

/// What is left when a content was carried to its last byte.
#[derive(Debug)]
pub struct Left {
    /// Bytes behind its end that were read.
    pub read: BytesMut,
    /// Nothing came behind its end, so that the source can be used again.
    pub clean: bool,
}

impl<'a> Content<'a> {
    /// Takes the source over from the event loop; the target stays as it is, and what its peer sends is not touched.
    /// `length`: bytes of the content, those that were read already with it; with fewer than `least` of them to come, they
    /// are copied all the same.
    ///
    /// The content of a reply alone: bytes that a source sends behind the end are lost in rare cases, and [`Left::clean`]
    /// says so. A server that sends them is at fault; a client that does asks for the next page.
    ///
    /// # Errors
    ///
    /// The source, watched as before, where the two are not for this lane.
    pub fn between(splicer: &Splicer, from: End<'a>, to: &'a Stream, length: u64, least: u64) -> Result<Self, End<'a>> {
        match splicer.begin(from.stream, to) {
            Ok(splice) if matches!(from.stream.watch_ends(), Ok(true)) => {
                let content = direction::Content::new(length, least);
                let direction = Direction::new(from.stream, to, Way::Forth, from.read, Some(content));
                let (watch, reset) = (EndsWatched(from.stream), ResetUnlessWhole(Some(from.stream)));
                Ok(Self { splice, direction, from: from.stream, watch, reset })
            }
            Ok(_) | Err(_) => Err(from),
        }
    }

    /// Goes on as far as it can; ready: the target's TCP has the last byte of the content.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<Result<(), Fault>> {
        // A source that broke behind the content's end has done its work: reading says what it is.
        let over = self.from.poll_stir(cx) == Stir::Over;
        let news = self.splice.poll_news(cx) || over;
        self.direction.poll(cx, &mut self.splice, buffers, news)
    }

    /// Bytes carried so far; what a deadline for progress can go by.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.direction.carried(&self.splice)
    }

    /// Whether bytes that the source has sent wait for the target; where not, the source is waited for.
    #[must_use]
    pub fn waits_for_target(&self) -> bool {
        self.direction.waits_for_target(&self.splice)
    }

    /// Gives the source back once everything is carried.
    #[must_use]
    pub fn finish(self) -> Left {
        let Self { mut splice, direction, watch, mut reset, .. } = self;
        reset.0 = None;
        let lossless = !splice.is_installed(Way::Forth) || splice.remove(Way::Forth).is_ok_and(|end| end.lossless);
        drop(splice);
        drop(watch);
        let read = direction.into_rest();
        Left { clean: lossless && read.is_empty(), read }
    }
}

/// A break is told at once, also where bytes are still on their way.
fn stir(cx: &mut Context<'_>, stream: &Stream) -> io::Result<()> {
    match stream.poll_stir(cx) {
        Stir::Over => stream.failure().map_or(Ok(()), Err),
        Stir::Open => Ok(()),
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
