//! One try at a request: a connection to a server, the request out, the reply's head in; and whether to try again.

mod ride;
mod wait;

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use self::ride::{MOST_MOVES, may_ride};
use self::wait::HeadWait;
use super::failure::Failure;
use super::link::{Job, Link};
use super::server::{ServerConnection, ServerSocket};
use super::site::Site;
use super::upload::{Gathered, Upload};
use super::upstream::{Lease, Place};
use crate::config::model::{Balance, HashOn, RequestBuffering, SendProxyProtocol};
use crate::h1::{Forwarding, Known, ReplyHead, encode};
use crate::lane::local;
use crate::net::{self, Stream, proxy_protocol};
use crate::upstream::{Ask, Idle, ServerId};

/// A connection that was used this recently is taken as it is for a request that can be sent twice.
const BRIEFLY_IDLE: Duration = Duration::from_millis(100);

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
) -> Result<Box<Answered>, Failure> {
    let mut tried = Tried::default();
    loop {
        match attempt(site, link, job, gathered, &tried).await {
            Ok(answered) => return Ok(answered),
            Err(missed) => {
                let Some(server) = missed.server else { return Err(missed.failure) };
                if link.has_begun_reply_to(job.seq) || !tried.again(site, job, gathered, &missed, server) {
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
    /// The local lane was stuck: the next one is on none, and new.
    plain: bool,
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
        let overtaken = matches!(failure, Failure::Overtaken);
        if overtaken || (*behind && failure.is_of_server()) {
            // The others on the connection may be the cause; the next attempt finds out, and no retry is used up.
            self.moves = if overtaken { self.moves + 1 } else { MOST_MOVES };
            site.counters.pipelined_again.add(1);
            return true;
        }
        if matches!(failure, Failure::LaneFull) {
            // Nobody's fault, and no retry is used up.
            (self.plain, self.fresh) = (true, true);
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
    /// It was the request's turn, behind another one on its connection.
    behind: bool,
}

async fn attempt(
    site: &Site,
    link: &Link,
    job: &mut Job,
    gathered: &mut Gathered,
    tried: &Tried,
) -> Result<Box<Answered>, Missed> {
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
    let Place { lease, endpoint, idle, since: got_place } = place;
    job.progress.dispatched(&endpoint.name);
    let shared = rides.then(|| Arc::clone(&endpoint));
    job.trail.server = Some(endpoint);
    if !working.is_empty() {
        site.counters.stacked_distributed.add(1);
    }
    let missed = |failure, reused, behind| Missed { failure, server: Some(server), reused, behind };
    let delimit = gathered.delimit(job);
    let mut head = site.buffers.written(|out| encode::request(&job.head, &forwarding(link, job), delimit, out));
    let connected = if let Some(endpoint) = shared {
        let ride = ride::board(site, job, &endpoint, std::mem::take(&mut head), got_place);
        // Behind a pointer: an exchange without it is no larger for it.
        Box::pin(ride::ride(site, link, job, lease, ride)).await
    } else {
        let on_lane =
            !tried.plain && !job.head.may_become_tunnel() && gathered.most() <= u64::from(local::LONGEST_CONTENT);
        connection(site, link, job, (lease, idle), on_lane).await
    };
    let mut connection = connected.map_err(|failure| missed(failure, false, false))?;
    connection.has_content = gathered.most() > 0;
    let (reused, behind) = (connection.reused, connection.was_behind());
    let began = if reused && !behind { got_place } else { Instant::now() };
    job.trail.queue_wait = Some(got_place - asked);
    job.trail.connect = (!reused).then(|| began - got_place);
    job.trail.reused = reused;

    let mut upload = Upload::new(head, gathered, delimit, began);
    let mut early = BytesMut::new();
    let mut waiting = HeadWait::new(site, link, job, behind, began);
    let head = poll_fn(|cx| waiting.poll(cx, &mut connection, &mut upload, gathered, &mut early)).await;
    let awaited = waiting.end();
    job.trail.bytes_in = upload.content_bytes;
    match head {
        Ok(head) => {
            let at = Instant::now();
            connection.answered(awaited, at);
            job.trail.first_byte = Some(at - if behind { got_place } else { began });
            Ok(Box::new(Answered { connection, head, upload, early: early.freeze(), at }))
        }
        Err(failure) => {
            connection.failed(&failure);
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
    let on_lane = on_lane && site.local.is_open();
    match idle.and_then(|idle| still_good(site, job, idle, on_lane)) {
        Some(socket) => {
            site.counters.server_reused.add(1);
            Ok(ServerConnection::new(socket, lease, true))
        }
        // Behind a pointer: few exchanges need room for it.
        None => Box::pin(new_connection(site, link, job, lease, on_lane)).await,
    }
}

/// The socket of an idle connection, if it is of use for the request.
fn still_good(site: &Site, job: &Job, idle: Idle<ServerSocket>, on_lane: bool) -> Option<ServerSocket> {
    let since = idle.since;
    let socket = if idle.worker == site.worker { idle.connection } else { idle.connection.moved_here().ok()? };
    let reachable = on_lane || !matches!(socket.stream, Stream::Local(_));
    // A request that cannot be sent twice is worth a system call that sees a close of this very moment, and so is a
    // connection on which an idle server may have said something that this worker has not come to see yet.
    let as_it_is = || job.head.method.is_idempotent() && since.elapsed() <= BRIEFLY_IDLE;
    (reachable && (as_it_is() || socket.stream.is_silent())).then_some(socket)
}

async fn new_connection(
    site: &Site,
    link: &Link,
    job: &Job,
    lease: Lease,
    on_lane: bool,
) -> Result<ServerConnection, Failure> {
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
            let failure = Failure::of_connect(source);
            if failure.blames_connection() {
                lease.failed();
            }
            Err(failure)
        }
    }
}

/// Sends the PROXY protocol's header on a new connection where that is wanted.
async fn announce(site: &Site, link: &Link, job: &Job, connection: &mut ServerConnection) -> Result<(), Failure> {
    let write = match job.upstream.model.send_proxy_protocol {
        SendProxyProtocol::Off => return Ok(()),
        SendProxyProtocol::V1 => proxy_protocol::write_v1,
        SendProxyProtocol::V2 => proxy_protocol::write_v2,
    };
    let mut header = BytesMut::new();
    write(link.peer, link.local().map_err(|_| Failure::ClientGone)?, &mut header);
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
