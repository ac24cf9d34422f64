//! One try at a request: a connection to a server, the request out, the reply's head in; and whether to try again.

mod ride;

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;

use self::ride::{MOST_MOVES, may_ride};
use super::failure::{ContentFault, Failure};
use super::link::{Job, Link};
use super::server::{ServerConnection, ServerSocket};
use super::site::Site;
use super::timer::Timer;
use super::train::SECOND_PATIENCE;
use super::upload::{Gathered, Upload};
use super::upstream::{Lease, Place};
use crate::config::model::{Balance, HashOn, RequestBuffering, SendProxyProtocol};
use crate::h1::{Forwarding, Known, Limits, ReplyHead, ReplyParser, Version, encode};
use crate::job::State;
use crate::lane::local;
use crate::net::{self, Stream, proxy_protocol};
use crate::upstream::{Ask, Idle, ServerId};

/// Interim replies that one request may get; a server that sends more is not going to answer.
const MOST_INTERIM: u32 = 100;

/// A request with its reply's head, the content still on its way.
#[derive(Debug)]
pub(super) struct Answered {
    pub connection: ServerConnection,
    pub head: ReplyHead,
    pub upload: Upload,
    /// Interim replies that were not sent on yet.
    pub early: Bytes,
    /// When the head was there.
    pub at: Instant,
}

/// Sends the request until a server answers it or nothing more may be tried.
pub(super) async fn reply_head(
    site: &Site,
    link: &Link,
    job: &mut Job,
    gathered: &mut Gathered,
) -> Result<Answered, Failure> {
    let mut tried = Tried::default();
    loop {
        match attempt(site, link, job, gathered, &tried).await {
            Ok(answered) => return Ok(answered),
            Err(missed) => {
                let Some(server) = missed.server else { return Err(missed.failure) };
                if !tried.again(site, job, gathered, &missed, server) {
                    return Err(missed.failure);
                }
            }
        }
    }
}

/// What earlier attempts at the same request teach the next one.
#[derive(Debug, Default)]
struct Tried {
    servers: Vec<ServerId>,
    /// A reused connection was stale: the next one is new.
    fresh: bool,
    retries: u32,
    /// It was sent on because of the others on its connection.
    moves: u32,
}

impl Tried {
    /// Whether the request may be sent again (RFC 9112 section 9.3.1), and what the next attempt avoids.
    fn again(&mut self, site: &Site, job: &mut Job, gathered: &Gathered, missed: &Missed, server: ServerId) -> bool {
        let Missed { failure, reused, behind, .. } = missed;
        if gathered.spent {
            return false;
        }
        if *behind && failure.is_of_server() {
            // The others on the connection may be the cause; the next attempt finds out, and no retry is used up.
            self.moves = if matches!(failure, Failure::Overtaken) { self.moves + 1 } else { MOST_MOVES };
            site.counters.pipelined_again.add(1);
            return true;
        }
        let unprocessed = matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout);
        let repeatable = unprocessed || (failure.is_silent_end() && job.head.method.is_idempotent());
        if !repeatable {
            return false;
        }
        if *reused && !unprocessed {
            // The server closed an idle connection just when it was taken: nobody's fault, and no retry is used up.
            self.fresh = true;
            site.counters.stale_retries.add(1);
            return true;
        }
        if self.retries >= job.upstream.model.retries || !job.upstream.spend_retry() {
            return false;
        }
        self.retries += 1;
        job.trail.retries = self.retries;
        site.counters.retries.add(1);
        self.servers.push(server);
        true
    }
}

/// An attempt that brought no reply.
#[derive(Debug)]
struct Missed {
    failure: Failure,
    /// `None`: it did not come to a server.
    server: Option<ServerId>,
    reused: bool,
    /// The request was sent behind another one on its connection.
    behind: bool,
}

async fn attempt(
    site: &Site,
    link: &Link,
    job: &mut Job,
    gathered: &mut Gathered,
    tried: &Tried,
) -> Result<Answered, Missed> {
    let no_server = |failure| Missed { failure, server: None, reused: false, behind: false };
    let working = link.working();
    let rides = !tried.fresh && may_ride(job, tried.moves, !working.is_empty());
    let ask = Ask {
        client: link.id,
        worker: site.worker,
        hash: hash(link, job),
        tried: &tried.servers,
        working: &working,
        fresh: rides || tried.fresh || !job.upstream.model.shares_connections(),
    };
    let asked = Instant::now();
    let place = job.upstream.acquire(&ask, asked, &mut job.progress).await.map_err(no_server)?;
    let server = place.lease.server();
    let _working = link.works(server);
    job.progress.to(State::Dispatched);
    let Place { lease, endpoint, idle, since: got_place } = place;
    job.progress.goes_to(&endpoint.name);
    let shared = rides.then(|| Arc::clone(&endpoint));
    job.trail.server = Some(endpoint);
    if !working.is_empty() {
        site.counters.stacked_distributed.add(1);
    }
    let missed = |failure, reused, behind| Missed { failure, server: Some(server), reused, behind };
    let delimit = gathered.delimit(job);
    let mut head = site.buffers.written(|out| encode::request(&job.head, &forwarding(link, job), delimit, out));
    let mut connection = if let Some(endpoint) = shared {
        let ride = ride::board(site, job, &endpoint, std::mem::take(&mut head), got_place);
        let behind = !ride.is_first();
        ride::ride(site, link, job, lease, ride).await.map_err(|failure| missed(failure, false, behind))?
    } else {
        let on_lane = job.head.upgrade.is_none() && gathered.most() <= u64::from(local::LONGEST_CONTENT);
        connection(site, link, job, (lease, idle), on_lane).await.map_err(|failure| missed(failure, false, false))?
    };
    connection.has_content = gathered.most() > 0;
    let (reused, behind) = (connection.reused, connection.was_behind());
    let began = if reused && !behind { got_place } else { Instant::now() };
    job.trail.queue_wait = Some(got_place - asked);
    job.trail.connect = (!reused).then(|| began - got_place);
    job.trail.reused = reused;

    let mut upload = Upload::new(head, gathered, delimit, began);
    let mut early = BytesMut::new();
    let head = wait(site, link, job, &mut connection, &mut upload, gathered, &mut early).await;
    job.trail.bytes_in = upload.content_bytes;
    match head {
        Ok((head, at)) => {
            job.trail.first_byte = Some(at - if behind { got_place } else { began });
            Ok(Answered { connection, head, upload, early: early.freeze(), at })
        }
        Err(failure) => {
            // A stale connection says nothing about the server, and neither does a client that is at fault.
            if failure.blames_connection() && !reused {
                connection.failed();
            } else if behind && failure.is_of_server() {
                connection.forsaken();
            }
            Err(missed(failure, reused, behind))
        }
    }
}

/// A connection for a place: the idle one that came with it if it is still good, else a new one. `on_lane`: the request
/// may take the local lane.
async fn connection(
    site: &Site,
    link: &Link,
    job: &Job,
    (lease, idle): (Lease, Option<Idle<ServerSocket>>),
    on_lane: bool,
) -> Result<ServerConnection, Failure> {
    if let Some(idle) = idle {
        let socket = if idle.worker == site.worker { Ok(idle.connection) } else { idle.connection.moved_here() };
        // A request that cannot be sent twice is worth a system call that sees a close of this very moment.
        if let Ok(socket) = socket
            && (on_lane || !matches!(socket.stream, Stream::Local(_)))
            && (job.head.method.is_idempotent() || socket.stream.is_silent())
        {
            site.counters.server_reused.add(1);
            return Ok(ServerConnection::new(socket, lease, true));
        }
    }
    let endpoint = job.upstream.endpoint(lease.server());
    let timeout = site.config.timeouts.server_connect;
    // The PROXY header makes it one client's only.
    let connected = if on_lane && job.upstream.model.shares_connections() {
        local::connect(&site.local, &endpoint.address, timeout).await
    } else {
        net::connect(&endpoint.address, timeout).await
    };
    match connected {
        Ok(stream) => {
            let socket = ServerSocket::new(stream, Arc::clone(&site.counters));
            let mut connection = ServerConnection::new(socket, lease, false);
            announce(site, link, job, &mut connection).await?;
            Ok(connection)
        }
        Err(source) => {
            lease.failed();
            Err(if source.kind() == io::ErrorKind::TimedOut {
                Failure::ConnectTimeout
            } else {
                Failure::Connect(source)
            })
        }
    }
}

/// Sends the PROXY protocol's header on a new connection where that is wanted.
async fn announce(site: &Site, link: &Link, job: &Job, connection: &mut ServerConnection) -> Result<(), Failure> {
    let mut header = BytesMut::new();
    match job.upstream.model.send_proxy_protocol {
        SendProxyProtocol::Off => return Ok(()),
        SendProxyProtocol::V1 => proxy_protocol::write_v1(link.peer, link.local, &mut header),
        SendProxyProtocol::V2 => proxy_protocol::write_v2(link.peer, link.local, &mut header),
    }
    let written = timeout(site.config.timeouts.server_connect, connection.stream_mut().write_all(&header)).await;
    written.map_err(|_| Failure::ConnectTimeout)?.map_err(Failure::Connect)
}

fn forwarding<'a>(link: &Link, job: &'a Job) -> Forwarding<'a> {
    Forwarding {
        client: link.client_ip(),
        proto: "http",
        trusted: link.trusted,
        keep_expect: job.upstream.model.request_buffering == RequestBuffering::Never,
        fallback_host: job.upstream.model.name.as_bytes(),
    }
}

fn hash(link: &Link, job: &Job) -> u64 {
    if job.upstream.model.balance != Balance::Hash {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    match &job.upstream.model.hash_on {
        HashOn::ClientAddress => link.client_ip().hash(&mut hasher),
        HashOn::Target => job.head.target.hash(&mut hasher),
        HashOn::Header(name) => job.head.fields.get_named(name).hash(&mut hasher),
        HashOn::Cookie(name) => cookie(job, name).hash(&mut hasher),
    }
    hasher.finish()
}

fn cookie<'a>(job: &'a Job, name: &str) -> Option<&'a [u8]> {
    job.head
        .fields
        .all(Known::Cookie)
        .flat_map(|cookies| cookies.split(|&byte| byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Sends the request and waits for its reply's head; with it, when it was there.
async fn wait(
    site: &Site,
    link: &Link,
    job: &Job,
    connection: &mut ServerConnection,
    upload: &mut Upload,
    gathered: &mut Gathered,
    early: &mut BytesMut,
) -> Result<(ReplyHead, Instant), Failure> {
    let mut waiting = HeadWait {
        site,
        link,
        job,
        parser: ReplyParser::new(),
        began: false,
        interim: 0,
        behind: connection.was_behind(),
        awaited: None,
        timer: link.take_timer(),
    };
    let head = poll_fn(|cx| waiting.poll(cx, connection, upload, gathered, early)).await;
    link.keep_timer(waiting.timer);
    let head = head?;
    let at = Instant::now();
    connection.answered(waiting.awaited, at);
    Ok((head, at))
}

/// Waits for a reply's head while the request is still being sent.
struct HeadWait<'a> {
    site: &'a Site,
    link: &'a Link,
    job: &'a Job,
    parser: ReplyParser,
    /// A byte of a reply came.
    began: bool,
    /// Interim replies that came.
    interim: u32,
    /// The request was sent behind another one.
    behind: bool,
    /// When the server was first waited for, where that matters to those behind.
    awaited: Option<Instant>,
    timer: Timer,
}

impl HeadWait<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut ServerConnection,
        upload: &mut Upload,
        gathered: &mut Gathered,
        early: &mut BytesMut,
    ) -> Poll<Result<ReplyHead, Failure>> {
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
                Poll::Ready(Ok(count)) if count > 0 => self.began = true,
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
        let (patience, failure) = self.patience(upload);
        self.timer.poll_until(cx, upload.progress + patience).map(|()| Err(failure))
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
        while !early.is_empty() && self.link.poll_due(cx, self.job.seq).is_ready() {
            match self.link.poll_write(cx, &[IoSlice::new(early)]) {
                Poll::Ready(Ok(count)) => early.advance(count),
                Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
                Poll::Pending => break,
            }
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
