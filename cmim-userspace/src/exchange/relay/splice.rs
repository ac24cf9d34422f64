//! The pipe lane of a relay: the rest of a long content passes the daemon's memory by.
//!
//! Bytes leave in the order front, held, pipe, and so the pipe is filled only while nothing else waits. A client that
//! turns out to be slow gets the rest from the tiers, where that frees its server: then the pipe's bytes go there first.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::Relay;
use crate::buffer::ReadSize;
use crate::exchange::carrying::Carrying;
use crate::exchange::failure::Failure;
use crate::lane::Lane;

impl Relay<'_> {
    /// Whether the next bytes go through the pipe.
    pub(super) fn splices(&self) -> bool {
        self.lane == Lane::Pipe
            && self.due_since.is_some()
            && self.gate.is_open()
            && self.front.is_empty()
            && self.held.is_empty()
            && self.content.left() != Some(0)
            && self.connection.as_ref().is_some_and(|connection| connection.buffer.is_empty())
            && !self.is_left_behind()
    }

    /// Whether the client is slow and the tiers take the rest of the reply, so that its server need not wait.
    fn is_left_behind(&self) -> bool {
        self.client_is_slow() && self.has_room_ahead()
    }

    pub(super) fn fill_pipe(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let (Some(connection), Some(left)) = (&self.connection, self.content.left()) else { return Ok(false) };
        let Some(pipe) = self.pipe.take().or_else(|| self.site.pipes.take()) else {
            self.lane = Lane::Copy;
            self.carrying = Carrying::begin(self.site, Lane::Copy, connection.stream(), &self.job.progress);
            return Ok(true);
        };
        let pipe = self.pipe.insert(pipe);
        match pipe.poll_fill(cx, connection.stream(), left) {
            Poll::Ready(Ok(0) | Err(_)) => Err(Failure::Truncated),
            Poll::Ready(Ok(count)) => {
                self.server_progress = Some(Instant::now());
                self.content.went_past(count as u64);
                self.content_bytes += count as u64;
                self.job.progress.has(self.content_bytes, "");
                self.finish_at_length();
                Ok(true)
            }
            Poll::Pending if pipe.is_empty() => {
                self.server_progress.get_or_insert_with(Instant::now);
                self.put_pipe_back();
                Ok(false)
            }
            // It may be full: the server is made to wait.
            Poll::Pending => {
                connection.release_followers();
                self.server_progress = None;
                Ok(false)
            }
        }
    }

    /// A piece of what the pipe has, for the tiers. Once the server has sent all, nothing is gained by it.
    pub(super) fn unload_pipe(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.content.left() == Some(0) {
            return Ok(None);
        }
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) else { return Ok(None) };
        pipe.unload(ReadSize::Bulk.bytes()).map(Some).map_err(Failure::Lane)
    }

    /// Gives an empty pipe to whoever needs one next.
    pub(super) fn put_pipe_back(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.site.pipes.give_back(pipe);
        }
    }
}
