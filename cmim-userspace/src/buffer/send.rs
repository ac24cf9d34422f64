//! How a content is sent: what is in RAM with writev, what is in a file with sendfile(2).
//!
//! sendfile waits for the device where the page cache lacks a page, and with it the whole worker. So a window of the file
//! is known to be cached before it is sent: the kernel is asked (cachestat(2)), and the tier's reading thread brings in what
//! is missing, the next window while the present one is being sent. A page that is dropped between the question and
//! sendfile is read there and then, which is rare and right.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;

use super::content::Held;
use super::part::Part;
use super::reader::Fetch;
use super::spool::Spool;
use super::write::{Place, Whereabouts};
use crate::config::model::TierKind;
use crate::net::Stream;

/// Pieces that one write takes.
const SLICES: usize = 16;
/// One sendfile(2) takes at most this much, so that no connection holds the worker for long.
const SEND_MOST: u64 = 256 * 1024;
/// Bytes that are read ahead of the reader: what a flash drive delivers at full speed …
const FLASH_WINDOW: u64 = 256 * 1024;
/// … and what makes a spinning disk's search worth its while.
const DISK_WINDOW: u64 = 1 << 20;

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection failed.
    #[error("sending failed: {0}")]
    Peer(#[source] io::Error),
    /// The tier cannot give back what it was given: the rest of the content is lost.
    #[error("a held content is lost: {0}")]
    Lost(#[source] io::Error),
}

/// A range of a tier's file that is known to be in the page cache. Offsets alone would be taken for those of another
/// tier's file, to which a content moves on.
#[derive(Debug, Default)]
pub(super) struct Cached {
    file: Weak<Spool>,
    range: Range<u64>,
}

impl Cached {
    fn new(place: &Place, range: Range<u64>) -> Self {
        Self { file: Arc::downgrade(&place.extent.spool), range }
    }

    /// Whether it has the front of `place` and ends within it.
    fn begins(&self, place: &Place) -> bool {
        std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(&place.extent.spool))
            && self.range.contains(&place.range.start)
            && self.range.end <= place.range.end
    }
}

impl Held {
    /// Sends what comes next; says how much. `Ok(0)`: there is nothing. Pending also while the next part is being read
    /// from its file.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<Result<usize, SendError>> {
        self.poll_send_behind(cx, to, &mut Bytes::new())
    }

    /// The same, with `head` in front of it: as long as `head` is not empty, its bytes are sent first, in one write with
    /// the content's where that can be. The count is of both together.
    pub fn poll_send_behind(
        &mut self,
        cx: &mut Context<'_>,
        to: &Stream,
        head: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        self.settle();
        let at = self.at;
        let next = match self.parts.get(at.part) {
            Some(Part::Write(write)) => Some(write.whereabouts()),
            Some(Part::File(place)) => Some(Whereabouts::File(place.clone())),
            Some(Part::Ram(_)) | None => None,
        };
        let count = match next {
            Some(Whereabouts::File(place)) if head.is_empty() => {
                let range = place.range.start + at.sent..place.range.end;
                ready!(self.poll_send_file(cx, to, &Place { range, ..place }))?
            }
            // A head goes alone in front of a file.
            Some(Whereabouts::File(_)) => ready!(write_pieces(cx, to, head, std::iter::empty(), 0))?,
            Some(Whereabouts::Ram(pieces)) => {
                ready!(write_pieces(cx, to, head, pieces.iter().map(AsRef::as_ref), at.sent))?
            }
            None if head.is_empty() && self.is_past_the_end() => return Poll::Ready(Ok(0)),
            None => {
                let pieces = self.parts.iter().skip(at.part).map_while(|part| match part {
                    Part::Ram(piece) => Some(piece.as_slice()),
                    Part::Write(_) | Part::File(_) => None,
                });
                ready!(write_pieces(cx, to, head, pieces, at.sent))?
            }
        };
        let of_head = count.min(head.len());
        head.advance(of_head);
        self.advance((count - of_head) as u64);
        Poll::Ready(Ok(count))
    }

    /// Sends from the front of `place`.
    fn poll_send_file(&mut self, cx: &mut Context<'_>, to: &Stream, place: &Place) -> Poll<Result<usize, SendError>> {
        ready!(self.poll_cached(cx, place))?;
        let Some(spill) = &mut self.spill else { return Poll::Ready(Ok(0)) };
        let spool = &place.extent.spool;
        let mut offset = place.range.start;
        let most = (spill.cached.range.end.min(place.range.end) - offset).min(SEND_MOST);
        match to.poll_send_file(cx, spool.file(), &mut offset, usize::try_from(most).unwrap_or(usize::MAX)) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(lost(place, Errno::IO))),
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(match Errno::from_io_error(&error) {
                // The file's side of sendfile(2); a socket fails in none of these ways.
                Some(errno @ (Errno::IO | Errno::INVAL | Errno::OVERFLOW | Errno::SPIPE)) => lost(place, errno),
                _ => SendError::Peer(error),
            })),
            Poll::Pending => {
                // Until the client takes more, pages may go; where the kernel cannot tell, they are taken to stay.
                if spool.tells_cached() {
                    spill.cached = Cached::default();
                }
                Poll::Pending
            }
        }
    }

    /// Makes sure that the front of `place` is in the page cache.
    fn poll_cached(&mut self, cx: &mut Context<'_>, place: &Place) -> Poll<Result<(), SendError>> {
        let Some(spill) = &mut self.spill else { return Poll::Ready(Ok(())) };
        let spool = &place.extent.spool;
        let offset = place.range.start;
        if spill.cached.begins(place) {
            return Poll::Ready(Ok(()));
        }
        if let Some(fetch) = spill.fetch.as_ref().filter(|fetch| fetch.brings(&place.extent, offset)) {
            ready!(fetch.poll(cx)).map_err(|errno| lost(place, errno))?;
            if place.losses != spool.losses() {
                return Poll::Ready(Err(lost(place, Errno::IO)));
            }
            spill.cached = Cached::new(place, offset..fetch.range.end);
            spill.fetch = None;
        } else {
            let window = window(place, offset);
            if spool.is_cached(&window) {
                spill.cached = Cached::new(place, window);
            } else {
                let fetch = Fetch::ask(&place.extent, window);
                // Not done yet, so that this registers the task.
                let polled = fetch.poll(cx);
                spill.fetch = Some(fetch);
                if polled.is_pending() {
                    return Poll::Pending;
                }
                return self.poll_cached(cx, place);
            }
        }
        self.look_ahead(place);
        Poll::Ready(Ok(()))
    }

    /// Has the window behind the present one brought in, where it is not there.
    fn look_ahead(&mut self, place: &Place) {
        let Some(spill) = &mut self.spill else { return };
        let next = match self.parts.get(self.at.part + 1) {
            _ if spill.cached.range.end < place.range.end => (place, window(place, spill.cached.range.end)),
            Some(Part::File(next)) => (next, window(next, next.range.start)),
            _ => return,
        };
        let (place, window) = next;
        let coming = spill.fetch.as_ref().is_some_and(|fetch| fetch.brings(&place.extent, window.start));
        if !coming && !place.extent.spool.is_cached(&window) {
            spill.fetch = Some(Fetch::ask(&place.extent, window));
        }
    }
}

/// What is brought in at once from `offset` on.
fn window(place: &Place, offset: u64) -> Range<u64> {
    let size = match place.extent.tier.kind {
        TierKind::Flash => FLASH_WINDOW,
        TierKind::Disk => DISK_WINDOW,
    };
    offset..place.range.end.min(offset + size)
}

fn lost(place: &Place, errno: Errno) -> SendError {
    tracing::error!("{}: a held content cannot be read: {errno}", place.extent.tier);
    SendError::Lost(errno.into())
}

/// Writes `head` and the `pieces` without their first `skip` bytes.
fn write_pieces<'a>(
    cx: &mut Context<'_>,
    to: &Stream,
    head: &'a [u8],
    pieces: impl Iterator<Item = &'a [u8]>,
    skip: u64,
) -> Poll<Result<usize, SendError>> {
    let mut skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let rest = pieces.filter_map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        piece.get(skipped..).filter(|rest| !rest.is_empty())
    });
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut filled = 0;
    let head = Some(head).filter(|head| !head.is_empty());
    for (slot, slice) in slices.iter_mut().zip(head.into_iter().chain(rest)) {
        *slot = IoSlice::new(slice);
        filled += 1;
    }
    to.poll_write(cx, slices.get(..filled).unwrap_or_default()).map_err(SendError::Peer)
}
