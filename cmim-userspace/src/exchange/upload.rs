//! A request on its way to a server: the head, then the content from what was gathered and from the client.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::content::Content;
use super::failure::{ContentFault, Failure};
use super::link::{Job, Link};
use super::server::ServerConnection;
use super::site::Site;
use super::timer::Timer;
use crate::buffer::{Held, SendError};
use crate::config::model::RequestBuffering;
use crate::h1::{LAST_CHUNK, RequestContent, RequestDelimit, chunk_header};
use crate::stack::Seq;

/// Pieces that one write takes.
const SLICES: usize = 16;

/// A request's content as far as the device has it before a server is asked for.
#[derive(Debug)]
pub(super) struct Gathered {
    /// `None`: the request has no content.
    held: Option<Box<Held>>,
    /// What is still to come from the client; `None`: `held` is the whole.
    rest: Option<Content>,
    /// A piece for which there was no room.
    left: Option<Bytes>,
    /// Whether a part of `rest` went to a server, so that the request cannot be sent again.
    pub(super) spent: bool,
}

impl Gathered {
    /// Reads a request's content as far as `request_buffering` says, so that a slow client holds no server.
    pub(super) async fn gather(site: &Site, link: &Link, job: &Job) -> Result<Self, Failure> {
        let mut gathered = Self { held: None, rest: None, left: None, spent: false };
        if job.head.content == RequestContent::None {
            return Ok(gathered);
        }
        gathered.rest = Some(Content::of_request(job.head.content, site.config.limits.request_content));
        let mut held = Box::new(Held::for_replay(&site.store));
        match job.upstream.model.request_buffering {
            RequestBuffering::Never => {}
            RequestBuffering::Auto => {
                let hold_size = job.upstream.model.hold_size;
                // The beginning always: who waits for a 100 is answered with it.
                let goes_on = |gathered| gathered == 0 || (gathered < hold_size && site.store.has_room_to_spare());
                gathered.fill(site, link, job, &mut held, goes_on).await?;
            }
            RequestBuffering::Always => {
                gathered.fill(site, link, job, &mut held, |_| true).await?;
                if !gathered.is_whole() {
                    return Err(Failure::NoRoomForContent);
                }
            }
        }
        held.finish();
        gathered.held = Some(held);
        Ok(gathered)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_none() && self.left.is_none()
    }

    /// Content bytes that are there.
    fn len(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.total())
    }

    /// The most bytes that the content can have.
    pub(super) fn most(&self) -> u64 {
        if self.is_whole() { self.len() } else { u64::MAX }
    }

    /// How the content is announced to the server: with a length wherever one is known.
    pub(super) fn delimit(&self, job: &Job) -> RequestDelimit {
        if job.head.content != RequestContent::Chunked || !self.is_whole() {
            return job.head.delimit();
        }
        match self.len() {
            0 => RequestDelimit::ZeroLength,
            length => RequestDelimit::Length(length),
        }
    }

    /// Fills `held` while `goes_on` says so of what it has, and as far as there is room: what is left goes on to the server
    /// as it comes.
    async fn fill(
        &mut self,
        site: &Site,
        link: &Link,
        job: &Job,
        held: &mut Held,
        goes_on: impl Fn(u64) -> bool,
    ) -> Result<(), Failure> {
        let mut invitation = Invitation::new(job, link);
        let mut timer = Timer::default();
        let mut progress = Instant::now();
        let idle = site.config.timeouts.client_idle;
        let filled: Result<(), Failure> = poll_fn(|cx| {
            loop {
                if self.left.is_some() {
                    match held.poll_append(cx, &mut self.left) {
                        Poll::Ready(Ok(())) => job.progress.has(held.total(), held.tier()),
                        Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                let Some(content) = self.rest.as_mut().filter(|_| goes_on(held.total())) else {
                    return Poll::Ready(Ok(()));
                };
                if invitation.poll(cx, link)?.is_ready() {
                    progress = Instant::now();
                }
                match link.poll_content(cx, content, site)? {
                    Poll::Ready(Some(piece)) => {
                        invitation.withdraw();
                        progress = Instant::now();
                        self.left = Some(piece);
                    }
                    Poll::Ready(None) => {
                        self.rest = None;
                        link.content_ended();
                    }
                    // A client that was not invited yet is not late.
                    Poll::Pending if invitation.is_open() => return Poll::Pending,
                    Poll::Pending => {
                        return timer.poll_until(cx, progress + idle).map(|()| Err(ContentFault::Idle.into()));
                    }
                }
            }
        })
        .await;
        if filled.is_ok() && invitation.is_cut() {
            // Behind a pointer: it is for a client that takes nothing at that moment.
            return Box::pin(invitation.finish(site, link)).await;
        }
        filled
    }
}

/// The answer to `Expect: 100-continue`, where the device takes the content itself.
struct Invitation {
    seq: Seq,
    /// What of it is still to be sent.
    left: Bytes,
}

impl Invitation {
    const LINE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

    /// Empty where the client waits for none, or sends its content without waiting.
    fn new(job: &Job, link: &Link) -> Self {
        let wanted = job.head.expects_continue && link.with_input(|input| input.is_empty());
        Self { seq: job.seq, left: if wanted { Bytes::from_static(Self::LINE) } else { Bytes::new() } }
    }

    fn is_open(&self) -> bool {
        !self.left.is_empty()
    }

    /// The content comes without it.
    fn withdraw(&mut self) {
        if !self.is_cut() {
            self.left.clear();
        }
    }

    /// A part of it is out. Once begun it is sent to its end, or the reply behind it could not be read.
    fn is_cut(&self) -> bool {
        self.is_open() && self.left.len() < Self::LINE.len()
    }

    /// Ready when it has just been sent to its end. It waits for the replies before it: an interim reply in the middle
    /// of another one's content would be taken for a part of that.
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<Result<(), Failure>> {
        if !self.is_open() || link.poll_due(cx, self.seq).is_pending() {
            return Poll::Pending;
        }
        link.poll_interim(cx, &mut self.left).map_err(|_| Failure::ClientGone)
    }

    /// Sends its rest.
    async fn finish(mut self, site: &Site, link: &Link) -> Result<(), Failure> {
        let mut timer = Timer::default();
        let deadline = Instant::now() + site.config.timeouts.client_write;
        poll_fn(|cx| match self.poll(cx, link) {
            Poll::Pending => timer.poll_until(cx, deadline).map(|()| Err(Failure::ClientGone)),
            sent => sent,
        })
        .await
    }
}

/// One try at sending a request.
#[derive(Debug)]
pub(super) struct Upload {
    /// The head, and a chunk line for what was gathered where the content goes out chunked.
    front: Bytes,
    /// What comes behind what was gathered.
    out: VecDeque<Bytes>,
    state: Sending,
    chunked: bool,
    pub(super) content_bytes: u64,
    /// When a byte last moved.
    pub(super) progress: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The head, and with it what was gathered.
    Gathered,
    /// What the client still sends.
    Rest,
    Complete,
    /// The server stopped taking it; its reply may still come.
    Broken,
}

impl Upload {
    /// `head`: as it goes out.
    pub(super) fn new(head: Bytes, gathered: &mut Gathered, delimit: RequestDelimit, now: Instant) -> Self {
        if let Some(held) = &mut gathered.held {
            held.rewind();
        }
        let len = gathered.len();
        let mut upload = Self {
            front: head,
            out: VecDeque::new(),
            state: Sending::Gathered,
            chunked: delimit == RequestDelimit::Chunked,
            content_bytes: len,
            progress: now,
        };
        if upload.chunked && len > 0 {
            let mut front = BytesMut::from(upload.front);
            chunk_header(usize::try_from(len).unwrap_or(usize::MAX), &mut front);
            upload.front = front.freeze();
            upload.out.push_back(Bytes::from_static(b"\r\n"));
        }
        upload
    }

    /// Nothing is left to be sent, or the server does not take it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, Sending::Complete | Sending::Broken)
    }

    /// The whole request was sent.
    pub(super) fn is_complete(&self) -> bool {
        self.state == Sending::Complete
    }

    /// Gives up what is left of the request.
    pub(super) fn abandon(&mut self) {
        self.state = Sending::Broken;
    }

    /// The client is awaited, and not the server.
    pub(super) fn awaits_client(&self) -> bool {
        self.state == Sending::Rest && self.out.is_empty()
    }

    /// Sends as much as both sides allow. Ready once it is over; a server that stops taking the request is no error
    /// here, because its reply may be on its way (RFC 9112 section 9.5).
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        site: &Site,
        link: &Link,
        connection: &ServerConnection,
        gathered: &mut Gathered,
    ) -> Poll<Result<(), Failure>> {
        loop {
            match self.state {
                Sending::Complete | Sending::Broken => return Poll::Ready(Ok(())),
                Sending::Gathered => ready!(self.poll_gathered(cx, connection, gathered))?,
                Sending::Rest if self.out.is_empty() => ready!(self.poll_client(cx, site, link, gathered))?,
                Sending::Rest => match connection.poll_write(cx, &slices(&self.out)) {
                    Poll::Ready(Ok(count)) => self.sent(count),
                    Poll::Ready(Err(_)) => self.abandon(),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Sends the head and what was gathered.
    fn poll_gathered(
        &mut self,
        cx: &mut Context<'_>,
        connection: &ServerConnection,
        gathered: &mut Gathered,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let polled = match &mut gathered.held {
                Some(held) if !self.front.is_empty() || !held.is_empty() => {
                    held.poll_send_behind(cx, connection.stream(), &mut self.front)
                }
                None if !self.front.is_empty() => {
                    let sent = connection.poll_write(cx, &[IoSlice::new(&self.front)]).map_err(SendError::Peer);
                    sent.map_ok(|count| {
                        self.front.advance(count);
                        count
                    })
                }
                Some(_) | None => {
                    self.state = Sending::Rest;
                    if self.out.is_empty() && gathered.is_whole() {
                        self.state = Sending::Complete;
                    }
                    return Poll::Ready(Ok(()));
                }
            };
            match polled {
                Poll::Ready(Ok(_)) => self.progress = Instant::now(),
                Poll::Ready(Err(SendError::Peer(_))) => {
                    self.abandon();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(SendError::Lost(source))) => return Poll::Ready(Err(Failure::TierLost(source))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes the next piece of the rest from the client.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        site: &Site,
        link: &Link,
        gathered: &mut Gathered,
    ) -> Poll<Result<(), Failure>> {
        let piece = match (gathered.left.take(), &mut gathered.rest) {
            (Some(left), _) => Some(left),
            (None, Some(rest)) => ready!(link.poll_content(cx, rest, site))?,
            (None, None) => {
                self.state = Sending::Complete;
                return Poll::Ready(Ok(()));
            }
        };
        gathered.spent = true;
        self.progress = Instant::now();
        match piece {
            Some(piece) => self.push(site, piece),
            None => {
                gathered.rest = None;
                link.content_ended();
                if self.chunked {
                    self.out.push_back(Bytes::from_static(LAST_CHUNK));
                }
            }
        }
        Poll::Ready(Ok(()))
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
