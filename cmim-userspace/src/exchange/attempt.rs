//! One try at a request: a connection to a server, the request out, the reply's head in; and whether to try again.

mod ride;
mod wait;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use self::ride::may_ride;
use self::wait::HeadWait;
use super::again::{Again, At, Miss, Repeatable, Shared, Tried};
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
use crate::upstream::{Ask, Idle, ServerId, hash};

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
    tried: &mut Tried,
) -> Result<Box<Answered>, Failure> {
    loop {
        match attempt(site, link, job, gathered, tried).await {
            Ok(answered) => return Ok(answered),
            Err(Missed { failure, at: None }) => return Err(failure),
            Err(Missed { failure, at: Some(at) }) => {
                if link.has_begun_reply_to(job.seq) || !again(site, job, gathered, tried, &failure, at) {
                    return Err(failure);
                }
            }
        }
    }
}

/// Whether a request of whose response nothing was sent on is sent again, and the counts of that.
pub(super) fn again(
    site: &Site,
    job: &mut Job,
    gathered: &Gathered,
    tried: &mut Tried,
    failure: &Failure,
    at: At,
) -> bool {
    let upstream = Arc::clone(&job.upstream);
    let Some(again) = tried.again(&Miss { failure, at }, &repeatable(job, gathered), || upstream.spend_retry()) else {
        return false;
    };
    match again {
        Again::Moved => site.counters.pipelined_again.add(1),
        Again::Stale => site.counters.stale_retries.add(1),
        Again::OffLane | Again::Retry => {}
    }
    note_retries(site, job, tried);
    true
}

fn note_retries(site: &Site, job: &mut Job, tried: &Tried) {
    let new = tried.retries() - job.trail.retries;
    if new > 0 {
        site.counters.retries.add(u64::from(new));
        job.trail.retries = tried.retries();
    }
}

fn repeatable(job: &Job, gathered: &Gathered) -> Repeatable {
    let (idempotent, most) = (job.head.method.is_idempotent(), job.upstream.model.retries);
    Repeatable { idempotent, spent: gathered.spent, most }
}

/// An attempt that brought no reply.
#[derive(Debug)]
struct Missed {
    failure: Failure,
    /// `None`: it did not come to a server.
    at: Option<At>,
}

async fn attempt(
    site: &Site,
    link: &Link,
    job: &mut Job,
    gathered: &mut Gathered,
    tried: &mut Tried,
) -> Result<Box<Answered>, Missed> {
    let no_server = |failure| Missed { failure, at: None };
    let working = link.working();
    let rides = tried.may_share() && may_ride(job, !working.is_empty());
    let asked = Instant::now();
    let place = place(site, link, job, tried, &working, rides, asked).await.map_err(no_server)?;
    let Place { lease, endpoint, idle, since: got_place } = place;
    let server = lease.server();
    let _working = link.works(server);
    job.progress.dispatched(&endpoint.name);
    let shared = rides.then(|| Arc::clone(&endpoint));
    job.trail.server = Some(endpoint);
    if !working.is_empty() {
        site.counters.stacked_distributed.add(1);
    }
    let delimit = gathered.delimit(job);
    let mut head = site.buffers.written(|out| encode::request(&job.head, &forwarding(link, job), delimit, out));
    let connected = if let Some(endpoint) = shared {
        let ride = ride::board(site, job, &endpoint, std::mem::take(&mut head), got_place);
        // Behind a pointer: an exchange without it is no larger for it.
        Box::pin(ride::ride(site, link, job, lease, ride)).await
    } else {
        let on_lane = !tried.keeps_off_lane()
            && !job.head.may_become_tunnel()
            && gathered.most() <= u64::from(local::LONGEST_CONTENT);
        connection(site, link, job, (lease, idle), on_lane).await
    };
    let alone = |failure| Missed { failure, at: Some(At { server, reused: false, shared: Shared::Alone }) };
    let mut connection = connected.map_err(alone)?;
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
    let head = match head {
        Ok(head) if tried.is_late_408(head.status, reused && !behind, || repeatable(job, gathered)) => {
            Err(Failure::Unasked)
        }
        head => head,
    };
    match head {
        Ok(head) => {
            let at = Instant::now();
            connection.answered(awaited, at);
            job.trail.first_byte = Some(at - if behind { got_place } else { began });
            Ok(Box::new(Answered { connection, head, upload, early: early.freeze(), at }))
        }
        Err(failure) => {
            let at = connection.at();
            connection.failed(&failure);
            Err(Missed { failure, at: Some(at) })
        }
    }
}

/// A place at a server that may get the request. `working`: servers that work for the client already. `rides`: the request
/// may share its connection.
async fn place(
    site: &Site,
    link: &Link,
    job: &mut Job,
    tried: &mut Tried,
    working: &[ServerId],
    rides: bool,
    now: Instant,
) -> Result<Place, Failure> {
    let ask = Ask {
        client: link.id,
        worker: site.worker,
        hash: hash_of(link, job),
        again: tried.has_begun(),
        preferred: tried.preferred(),
        tried: tried.avoided(),
        working,
        fresh: rides || tried.wants_fresh() || !job.upstream.model.shares_connections(),
    };
    let place = job.upstream.acquire(&ask, now, &mut job.progress).await?;
    if !tried.may_reach(place.lease.server(), job.upstream.model.retries, || job.upstream.spend_retry()) {
        return Err(Failure::ServerClosed);
    }
    note_retries(site, job, tried);
    Ok(place)
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
    let (since, own) = (idle.since, idle.worker == site.worker);
    let socket = if own { idle.connection } else { idle.connection.moved_here().ok()? };
    let reachable = on_lane || !matches!(socket.stream, Stream::Local(_));
    // A request that cannot be sent twice is worth a system call that sees a close of this very moment, and so is a
    // connection on which an idle server may have said something that this worker has not come to see yet. What its event
    // loop has seen [`HeadWait`] finds out without one.
    let as_it_is = || own && job.head.method.is_idempotent() && since.elapsed() <= BRIEFLY_IDLE;
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
            match announce(site, link, job, &mut connection).await {
                Ok(()) => Ok(connection),
                Err(failure) => {
                    connection.failed(&failure);
                    Err(failure)
                }
            }
        }
        Err(source) => {
            let failure = Failure::of_connect(source);
            match failure {
                Failure::Connect(_) => lease.refused(),
                _ if failure.blames_connection() => lease.failed(),
                _ => {}
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

fn hash_of(link: &Link, job: &Job) -> u64 {
    if job.upstream.model.balance != Balance::Hash {
        return 0;
    }
    match &job.upstream.model.hash_on {
        HashOn::ClientAddress => hash::of_address(link.client_ip()),
        HashOn::Target => hash::of_value(Some(&job.head.target)),
        HashOn::Header(name) => hash::of_value(job.head.fields.get_named(name)),
        HashOn::Cookie(name) => hash::of_value(cookie(job, name)),
    }
}

fn cookie<'a>(job: &'a Job, name: &str) -> Option<&'a [u8]> {
    job.head
        .fields
        .all(Known::Cookie)
        .flat_map(|cookies| cookies.split(|&byte| byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
