//! A request on its way to a server: the head, then the content from what was gathered and from the client.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::content::Content;
use super::failure::{ContentFault, Failure};
use super::link::{Job, Link};
use super::server::ServerConnection;
use super::site::Site;
use super::timer::Timer;
use crate::buffer::Held;
use crate::config::model::RequestBuffering;
use crate::h1::{LAST_CHUNK, RequestContent, RequestDelimit, chunk_header};

/// Pieces that one write takes.
const SLICES: usize = 16;

/// A request's content as far as the device has it before a server is asked for.
#[derive(Debug)]
pub struct Gathered {
    held: Held,
    /// What is still to come from the client; `None`: `held` is the whole.
    rest: Option<Content>,
    /// Whether a part of `rest` went to a server, so that the request cannot be sent again.
    pub spent: bool,
}

impl Gathered {
    /// Reads a request's content as far as `request_buffering` says, so that a slow client holds no server.
    pub async fn gather(site: &Site, link: &Link, job: &Job) -> Result<Self, Failure> {
        let limits = &site.config.limits;
        let mut gathered = Self {
            held: Held::new(site.memory.clone()),
            rest: Some(Content::of_request(job.head.content, limits.request_content)),
            spent: false,
        };
        if job.head.content == RequestContent::None {
            gathered.rest = None;
        } else if job.upstream.model.request_buffering != RequestBuffering::Never {
            gathered.fill(site, link, job).await?;
        }
        Ok(gathered)
    }

    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// How the content is announced to the server: with a length wherever one is known.
    pub fn delimit(&self, job: &Job) -> RequestDelimit {
        match (job.head.content, &self.rest) {
            (RequestContent::Chunked, None) if self.held.is_empty() => RequestDelimit::ZeroLength,
            (RequestContent::Chunked, None) => RequestDelimit::Length(self.held.len()),
            _ => job.head.delimit(),
        }
    }

    async fn fill(&mut self, site: &Site, link: &Link, job: &Job) -> Result<(), Failure> {
        if job.head.expects_continue && link.with_input(|input| input.is_empty()) {
            self.invite(site, link).await?;
        }
        let enough = site.config.buffer.memory_per_reply;
        let mut timer = Timer::default();
        let mut progress = Instant::now();
        let idle = site.config.timeouts.client_idle;
        poll_fn(|cx| {
            while let Some(content) = &mut self.rest
                && self.held.len() < enough
            {
                match link.poll_content(cx, content, site)? {
                    Poll::Ready(Some(piece)) => {
                        progress = Instant::now();
                        // No room: what is here goes on to the server, and the rest as it comes.
                        if let Err(piece) = self.held.append(piece) {
                            self.held.append_unaccounted(piece);
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Poll::Ready(None) => {
                        self.rest = None;
                        link.give_input_back();
                    }
                    Poll::Pending => {
                        return timer.poll_until(cx, progress + idle).map(|()| Err(ContentFault::Idle.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Answers `Expect: 100-continue`: the device takes the content itself.
    async fn invite(&self, site: &Site, link: &Link) -> Result<(), Failure> {
        let mut invitation = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
        let mut timer = Timer::default();
        let deadline = Instant::now() + site.config.timeouts.client_write;
        poll_fn(|cx| {
            while !invitation.is_empty() {
                match link.poll_write(cx, &[IoSlice::new(&invitation)]) {
                    Poll::Ready(Ok(count)) => invitation.advance(count),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                    Poll::Pending => return timer.poll_until(cx, deadline).map(|()| Err(Failure::ClientGone)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// One try at sending a request.
#[derive(Debug)]
pub struct Upload {
    out: VecDeque<Bytes>,
    /// The client's part is read to its end, or there is none.
    gathered: bool,
    chunked: bool,
    /// The server stopped taking it; its reply may still come.
    broken: bool,
    pub content_bytes: u64,
    /// When a byte last moved.
    pub progress: Instant,
}

impl Upload {
    /// `head`: as it goes out.
    pub fn new(site: &Site, head: Bytes, gathered: &Gathered, delimit: RequestDelimit, now: Instant) -> Self {
        let mut upload = Self {
            out: VecDeque::from([head]),
            gathered: gathered.is_whole(),
            chunked: delimit == RequestDelimit::Chunked,
            broken: false,
            content_bytes: 0,
            progress: now,
        };
        for piece in gathered.held.pieces() {
            upload.push(site, piece.clone());
        }
        upload
    }

    /// Nothing is left to be sent, or the server does not take it.
    pub fn is_over(&self) -> bool {
        self.broken || (self.gathered && self.out.is_empty())
    }

    /// The whole request was sent.
    pub fn is_complete(&self) -> bool {
        !self.broken && self.is_over()
    }

    /// Gives up what is left of the request.
    pub fn abandon(&mut self) {
        self.broken = true;
    }

    /// The client is awaited, and not the server.
    pub fn awaits_client(&self) -> bool {
        self.out.is_empty() && !self.is_over()
    }

    /// Sends as much as both sides allow. Ready once it is over; a server that stops taking the request is no error
    /// here, because its reply may be on its way (RFC 9112 section 9.5).
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        site: &Site,
        link: &Link,
        connection: &ServerConnection,
        gathered: &mut Gathered,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if self.broken {
                return Poll::Ready(Ok(()));
            }
            while !self.out.is_empty() {
                match connection.poll_write(cx, &slices(&self.out)) {
                    Poll::Ready(Ok(count)) => self.sent(count),
                    Poll::Ready(Err(_)) => self.broken = true,
                    Poll::Pending => return Poll::Pending,
                }
                if self.broken {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(rest) = &mut gathered.rest else { return Poll::Ready(Ok(())) };
            match link.poll_content(cx, rest, site)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(piece)) => {
                    gathered.spent = true;
                    self.progress = Instant::now();
                    self.push(site, piece);
                }
                Poll::Ready(None) => {
                    gathered.spent = true;
                    gathered.rest = None;
                    link.give_input_back();
                    self.gathered = true;
                    if self.chunked {
                        self.out.push_back(Bytes::from_static(LAST_CHUNK));
                    }
                }
            }
        }
    }

    fn push(&mut self, site: &Site, piece: Bytes) {
        self.content_bytes += piece.len() as u64;
        if self.chunked {
            self.out.push_back(site.buffers.written(|out| chunk_header(piece.len(), out)));
        }
        self.out.push_back(piece);
        if self.chunked {
            self.out.push_back(Bytes::from_static(b"\r\n"));
        }
    }

    fn sent(&mut self, mut count: usize) {
        self.progress = Instant::now();
        while let Some(front) = self.out.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if !front.is_empty() {
                return;
            }
            self.out.pop_front();
        }
    }
}

fn slices(pieces: &VecDeque<Bytes>) -> [IoSlice<'_>; SLICES] {
    let mut slices = [IoSlice::new(&[]); SLICES];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    slices
}
