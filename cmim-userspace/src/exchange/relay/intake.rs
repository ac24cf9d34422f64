//! The server's side of a relay: pieces in, one at a time, as far as there is room for them.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::{CHUNK_END, Relay};
use crate::buffer::COPY_BELOW;
use crate::exchange::content::Piece;
use crate::exchange::failure::Failure;
use crate::exchange::pace::{self, Gate};
use crate::h1::{ReplyDelimit, chunk_header, last_chunk};

/// Nobody is put behind a reply that turns out to be longer.
const LONGEST_SHARED: u64 = 256 * 1024;
/// A smaller chunk that has to wait is kept in one stretch with its line and its end, and counted so: such chunks join
/// those before them, where three parts for each would take many times the memory that the account knows of.
const JOINS_BELOW: usize = COPY_BELOW - 16;

impl Relay<'_> {
    /// What the reply's head means for the requests behind it on the connection.
    pub(super) fn settle_followers(&self) {
        let Some(connection) = &self.connection else { return };
        if !self.persistent || self.content.ends_with_connection() {
            connection.release_followers();
        } else if self.content.left().is_some_and(|left| left > LONGEST_SHARED) {
            connection.seal();
        }
    }

    /// A response that goes out as it comes. It is kept until it is whole where the server may break it off for the requests
    /// behind it, so that this one can be sent again: a close with an unread request makes the server's kernel send a reset
    /// and drop what it has not sent.
    pub(super) fn begin_stream(&mut self, delimit: ReplyDelimit, now: Instant) {
        let fits = self.content.left().is_some_and(|left| left > 0 && left <= self.bounds.hold_size);
        if fits && self.connection.as_ref().is_some_and(|connection| connection.may_be_cut(self.persistent)) {
            self.gate = Gate::guarded(delimit, &self.bounds, now);
        } else {
            self.open(delimit);
        }
    }

    /// The server is made to wait: nobody else is to wait with it.
    fn release_followers(&self) {
        if let Some(connection) = &self.connection {
            connection.release_followers();
        }
    }

    /// Takes one piece from the server, where there is room for it.
    pub(super) fn pull(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        if self.piece.is_some() {
            let moved = self.keep(cx);
            if self.piece.is_some() {
                self.release_followers();
            } else {
                self.finish_at_length();
            }
            self.note_tier();
            return Ok(moved);
        }
        if self.splices() {
            return self.fill_pipe(cx);
        }
        if !self.wants_more() {
            self.release_followers();
            self.server_progress = None;
            return Ok(false);
        }
        // Where the server was made to wait, its time begins anew.
        self.server_progress.get_or_insert_with(Instant::now);
        if let Some(data) = self.unload_pipe()? {
            self.begin_piece(data);
            self.keep(cx);
            self.note_tier();
            return Ok(true);
        }
        let Some(connection) = &mut self.connection else { return Ok(false) };
        match self.content.next(&mut connection.buffer).map_err(Failure::BadChunk)? {
            Piece::Data(data) => {
                self.content_bytes += data.len() as u64;
                if self.content_bytes > LONGEST_SHARED {
                    connection.seal();
                }
                self.begin_piece(data);
                self.keep(cx);
                self.finish_at_length();
                self.note_tier();
                Ok(true)
            }
            Piece::End { trailers } => {
                self.trailers = trailers;
                self.finish();
                Ok(true)
            }
            Piece::NeedMore => match connection.poll_fill(cx, self.site) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(0)) if self.content.ends_with_connection() && !connection.is_broken() => {
                    self.finish();
                    Ok(true)
                }
                Poll::Ready(Ok(0) | Err(_)) => Err(Failure::Truncated),
                Poll::Ready(Ok(_)) => {
                    self.server_progress = Some(Instant::now());
                    Ok(true)
                }
            },
        }
    }

    /// A piece came: a chunk of its own where the reply goes out chunked.
    fn begin_piece(&mut self, piece: Bytes) {
        let passes = self.passes();
        if self.gate.is_chunked() && !passes && piece.len() < JOINS_BELOW {
            self.piece = Some(self.site.buffers.written(|out| {
                chunk_header(piece.len(), out);
                out.extend_from_slice(&piece);
                out.extend_from_slice(CHUNK_END);
            }));
            return;
        }
        if self.gate.is_chunked() {
            self.held.append_unaccounted(self.site.buffers.written(|out| chunk_header(piece.len(), out)));
            self.chunk_end = CHUNK_END;
        }
        if passes {
            self.held.append_unaccounted(piece);
            self.end_piece();
        } else {
            self.piece = Some(piece);
        }
    }

    /// Moves the piece into the tiers; true: it went on.
    fn keep(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.piece.as_ref().map_or(0, Bytes::len);
        if before == 0 {
            return false;
        }
        let polled = self.held.poll_append(cx, &mut self.piece);
        self.full = matches!(polled, Poll::Ready(Err(_)));
        // Also where a drive is awaited: whoever has got all before it need not wait for that.
        if self.piece.is_some() && self.passes() {
            self.held.stop_waiting();
            self.held.append_unaccounted(self.piece.take().unwrap_or_default());
            self.full = false;
        }
        if self.piece.is_none() {
            self.end_piece();
            return true;
        }
        self.piece.as_ref().map_or(0, Bytes::len) < before
    }

    /// Notes how much there is of the reply, and how far down the tiers.
    fn note_tier(&mut self) {
        self.job.progress.has(self.content_bytes, self.held.tier());
        if self.held.has_spilled() && !self.job.trail.spilled {
            self.job.trail.spilled = true;
            self.site.counters.replies_spilled.add(1);
        }
    }

    /// Whether the next piece goes past the account: a client that is due and has got all before it gets it at once,
    /// however full the tiers are.
    fn passes(&self) -> bool {
        self.gate.is_open() && self.due_since.is_some() && self.held.is_empty()
    }

    pub(super) fn end_piece(&mut self) {
        self.held.append_unaccounted(Bytes::from_static(std::mem::take(&mut self.chunk_end)));
    }

    /// The last byte of a known length is in: the server is free before the client is told.
    pub(super) fn finish_at_length(&mut self) {
        if self.piece.is_none() && self.content.left() == Some(0) {
            self.finish();
        }
    }

    /// The reply is whole: its server is free.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.spare = connection.finish(self.site, self.persistent && self.upload.is_complete());
        }
        self.link.reply_is_whole(self.job.seq);
        if self.gate.is_chunked() {
            let trailers = self.trailers.take().unwrap_or_default();
            self.held.append_unaccounted(self.site.buffers.written(|out| last_chunk(&trailers, out)));
        }
        self.held.finish();
    }

    /// Whether the tiers can spare room for what could as well wait in the server.
    pub(super) fn has_room_ahead(&self) -> bool {
        // A server whose reply cannot be whole here has to wait for the client one way or the other.
        let fits = self.content.left().is_none_or(|left| self.held.len().saturating_add(left) <= self.bounds.hold_size);
        fits && self.site.store.has_room_to_spare()
    }

    /// Whether the server is read further.
    fn wants_more(&self) -> bool {
        let bound = || {
            let blocked = self.blocked_since.map(|since| since.elapsed());
            pace::read_ahead(self.gate, self.due_since.is_some(), blocked, self.has_room_ahead(), &self.bounds)
        };
        self.connection.is_some() && self.piece.is_none() && (self.held.is_empty() || self.held.len() < bound())
    }
}
