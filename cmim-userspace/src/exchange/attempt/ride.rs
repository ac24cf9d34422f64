//! A request on a server connection that it shares with others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::connection;
use crate::exchange::failure::Failure;
use crate::exchange::link::{Job, Link};
use crate::exchange::server::ServerConnection;
use crate::exchange::site::Site;
use crate::exchange::train::{Overtaken, PATIENCE, Ride};
use crate::exchange::upstream::Lease;
use crate::h1::{Method, RequestContent};
use crate::lane::turn;
use crate::upstream::Endpoint;

/// Whether a request may share a connection: one that can be sent twice without harm, ends with its head and leaves the
/// connection as it is (RFC 9112 section 9.3.2). Stacked requests of one client do not: each would wait for the other
/// where a second server process has time.
pub(super) fn may_ride(job: &Job, works: bool) -> bool {
    let model = &job.upstream.model;
    model.server_pipeline > 1
        && !works
        && matches!(job.head.method, Method::Get | Method::Head | Method::Options)
        && job.head.content == RequestContent::None
        && job.head.upgrade.is_none()
        && model.shares_connections()
}

/// A seat for the request. Nobody stands behind a HEAD: a content that a server sends all the same would be taken for the
/// next reply.
pub(super) fn board(site: &Site, job: &Job, endpoint: &Arc<Endpoint>, head: Bytes, now: Instant) -> Ride {
    let last = job.head.method == Method::Head;
    let ride = site.trains.board(endpoint, head, job.upstream.model.server_pipeline, last, now);
    if !ride.is_first() {
        site.counters.server_pipelined.add(1);
        site.counters.server_reused.add(1);
    }
    ride
}

/// The connection of a seat, once it is the request's turn.
pub(super) async fn ride(
    site: &Site,
    link: &Link,
    job: &Job,
    lease: Lease,
    ride: Ride,
) -> Result<ServerConnection, Failure> {
    if ride.is_first() {
        let idle = job.upstream.idle(lease.server(), site.worker);
        let connection = connection(site, link, job, (lease, idle), true).await?.shared(ride);
        // What others add in this turn of the event loop goes out with it.
        turn().await;
        return Ok(connection);
    }
    let mut timer = link.take_timer();
    let began = Instant::now();
    let turn = poll_fn(|cx| {
        if let Poll::Ready(turn) = ride.poll_turn(cx) {
            return Poll::Ready(turn);
        }
        ready!(timer.poll_until(cx, began + PATIENCE));
        ride.was_overtaken(PATIENCE);
        Poll::Ready(Err(Overtaken))
    })
    .await;
    link.keep_timer(timer);
    let carriage = turn.map_err(|Overtaken| Failure::Overtaken)?;
    Ok(ServerConnection::behind(carriage, lease, ride))
}
