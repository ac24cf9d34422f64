//! A reply's head, awaited while the request is still being sent.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::exchange::failure::{ContentFault, Failure};
use crate::exchange::link::{Job, Link};
use crate::exchange::server::ServerConnection;
use crate::exchange::site::Site;
use crate::exchange::timer::Timer;
use crate::exchange::train::SECOND_PATIENCE;
use crate::exchange::upload::{Gathered, Upload};
use crate::h1::{Limits, ReplyHead, ReplyParser, Version, encode};
use crate::net::Stream;

/// Interim replies that one request may get; a server that sends more is not going to answer.
const MOST_INTERIM: u32 = 100;

/// Who waits on the local lane for so long looks whether the host has memory for it, and again after as long.
const LANE_PATIENCE: Duration = Duration::from_millis(250);

/// Waits for a reply's head while the request is still being sent.
pub(super) struct HeadWait<'a> {
    site: &'a Site,
    link: &'a Link,
    job: &'a Job,
    parser: ReplyParser,
    /// A byte of a reply came; an empty line before it is none (RFC 9112 section 2.2).
    began: bool,
    /// Interim replies that came.
    interim: u32,
    /// The request was sent behind another one.
    behind: bool,
    /// It was not polled yet.
    first: bool,
    /// When the server was first waited for, where that matters to those behind.
    awaited: Option<Instant>,
    since: Instant,
    /// How often it was looked whether the local lane is stuck.
    looks: u32,
    timer: Timer,
}

impl<'a> HeadWait<'a> {
    /// `behind`: the request was sent behind another one. `since`: when its [`Upload`] began.
    pub(super) fn new(site: &'a Site, link: &'a Link, job: &'a Job, behind: bool, since: Instant) -> Self {
        let (parser, timer) = (ReplyParser::new(), link.take_timer());
        Self {
            site,
            link,
            job,
            parser,
            began: false,
            interim: 0,
            behind,
            first: true,
            awaited: None,
            since,
            looks: 0,
            timer,
        }
    }

    /// Over: when the server was first waited for, where that matters.
    pub(super) fn end(self) -> Option<Instant> {
        self.link.keep_timer(self.timer);
        self.awaited
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut ServerConnection,
        upload: &mut Upload,
        gathered: &mut Gathered,
        early: &mut BytesMut,
    ) -> Poll<Result<ReplyHead, Failure>> {
        if self.first {
            self.first = false;
            // Nothing was sent yet: what is there already is no response.
            if self.job.head.method.is_idempotent() && connection.brings_something() {
                return Poll::Ready(Err(Failure::Unasked));
            }
        }
        connection.poll_send_others(cx);
        if !upload.is_over()
            && let Poll::Ready(Err(failure)) = upload.poll(cx, self.site, self.link, connection, gathered)
        {
            return Poll::Ready(Err(failure));
        }
        loop {
            if let Some(head) = self.parse(connection)? {
                if !head.is_interim() {
                    return Poll::Ready(Ok(head));
                }
                self.parser = ReplyParser::new();
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Poll::Ready(Err(Failure::EndlessInterim));
                }
                if self.job.head.version == Version::Http11 {
                    encode::interim(&head, early);
                }
                continue;
            }
            self.pass_on(cx, early)?;
            match connection.poll_fill(cx, self.site) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.began |= connection.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
                }
                Poll::Ready(Ok(_)) if self.began => return Poll::Ready(Err(Failure::Truncated)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(Failure::ServerClosed)),
                Poll::Ready(Err(_)) if self.began => return Poll::Ready(Err(Failure::Truncated)),
                Poll::Ready(Err(source)) => return Poll::Ready(Err(Failure::ServerBroke(source))),
                Poll::Pending => break,
            }
        }
        if self.behind && self.awaited.is_none() {
            self.awaited = Some(Instant::now());
        }
        if matches!(connection.stream(), Stream::Local(_)) && self.poll_stuck(cx, upload).is_ready() {
            return Poll::Ready(Err(Failure::LaneFull));
        }
        let (patience, failure) = self.patience(upload);
        self.timer.poll_until(cx, upload.progress + patience).map(|()| Err(failure))
    }

    /// Ready where the local lane has no memory to bring the request or its reply, and the request may go another way.
    fn poll_stuck(&mut self, cx: &mut Context<'_>, upload: &Upload) -> Poll<()> {
        let is_unsent = upload.progress == self.since;
        let may_go_again = is_unsent || self.job.head.method.is_idempotent();
        if self.began || !may_go_again || upload.awaits_client() {
            return Poll::Pending;
        }
        loop {
            let look = upload.progress + LANE_PATIENCE * (self.looks + 1);
            ready!(self.timer.poll_until(cx, look));
            self.looks += 1;
            let was_full = self.site.local.was_full_since(upload.progress);
            // On a lane with memory nothing waits to be sent.
            if was_full || is_unsent || (upload.is_over() && !upload.is_complete()) {
                return Poll::Ready(());
            }
        }
    }

    fn parse(&mut self, connection: &mut ServerConnection) -> Result<Option<ReplyHead>, Failure> {
        if connection.buffer.is_empty() {
            return Ok(None);
        }
        let limits = Limits::of_reply(self.site.config.limits.reply_head);
        Ok(self.parser.parse(&mut connection.buffer, &self.job.head.method, &limits)?)
    }

    /// Sends interim replies on as far as it is this request's turn.
    fn pass_on(&self, cx: &mut Context<'_>, early: &mut BytesMut) -> Result<(), Failure> {
        if !early.is_empty()
            && self.link.poll_due(cx, self.job.seq).is_ready()
            && let Poll::Ready(Err(_)) = self.link.poll_interim(cx, early)
        {
            return Err(Failure::ClientGone);
        }
        Ok(())
    }

    /// How long the side that is awaited may take, and what it means if it takes longer.
    fn patience(&self, upload: &Upload) -> (Duration, Failure) {
        let timeouts = &self.site.config.timeouts;
        if upload.awaits_client() {
            (timeouts.client_idle, ContentFault::Idle.into())
        } else if self.behind && !self.began && timeouts.server_first_byte > SECOND_PATIENCE {
            (SECOND_PATIENCE, Failure::FirstByteTimeout)
        } else if upload.is_over() {
            (timeouts.server_first_byte, Failure::FirstByteTimeout)
        } else {
            (timeouts.server_idle, Failure::ServerIdle)
        }
    }
}
