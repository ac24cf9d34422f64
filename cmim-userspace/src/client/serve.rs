//! A client connection from its arrival to its close: the task that [`crate::worker`] spawns for each.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::arrival::Arrival;
use super::close::{Ending, close};
use super::connection::{Connection, Rest};
use crate::config::model::{ListenAddress, Listener};
use crate::exchange::{Current, Link, Site};
use crate::observe::roll::{Record, Roll};

/// By which listener a client comes in.
#[derive(Debug)]
pub struct Entrance {
    /// As the configuration has it; finds the listener also in a newer one.
    pub address: ListenAddress,
    pub name: Arc<str>,
    /// Where the connection is listed.
    pub roll: Arc<Roll>,
}

/// Serves one client until its connection is closed. `site`: in force when it came. `places`: what it occupies until
/// then, given back by Drop.
pub async fn serve<P>(current: Rc<Current>, site: Rc<Site>, entrance: Entrance, arrival: Arrival, places: P) {
    // Not a plain unused argument: it is dropped last, behind the connection's own parts.
    let _places = places;
    let Entrance { address, name, roll } = entrance;
    let peer = arrival.peer;
    let Some(listener) = site.listener(address) else { return };
    let accepted = match arrival.admit(&site, listener).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(%peer, listener = %name, "connection refused: {error}");
            return;
        }
    };
    let record = Arc::new(Record::new(accepted.id, name, accepted.peer));
    let _entry = roll.enter(Arc::clone(&record));
    let link = Link::new(accepted, record);
    let (mut site, mut rest) = (site, Rest::new());
    let ending = loop {
        let Some(listener) = site.listener(address) else { break Ending::Idle };
        match stay(&site, &link, listener, rest).await {
            Stay::Ended(ending) => break ending,
            Stay::Moves(along) => rest = along,
        }
        let newer = current.site();
        if newer.listener(address).is_some() {
            site = newer;
        } else {
            rest = rest.last();
        }
    };
    close(&site, &link, ending).await;
}

/// How a connection's time with one site ends.
enum Stay {
    Ended(Ending),
    /// It goes on with a newer site, between two requests.
    Moves(Rest),
}

async fn stay(site: &Site, link: &Link, listener: &Listener, rest: Rest) -> Stay {
    let mut connection = Connection::new(site, link, listener, rest);
    let mut over = pin!(site.drain.begun());
    let mut over_seen = false;
    let mut listed = false;
    let ended = poll_fn(|cx| {
        if !listed {
            // A task's waker stays the same.
            link.record.woken_by(cx.waker());
            listed = true;
        }
        let mut polled = connection.poll(cx);
        // Idle connections are told that their site's time is over; busy ones look for themselves when they are done.
        if polled.is_pending() && !over_seen && connection.is_idle() && over.as_mut().poll(cx).is_ready() {
            over_seen = true;
            polled = connection.poll(cx);
        }
        if polled.is_pending() && connection.may_move() {
            return Poll::Ready(None);
        }
        if polled.is_pending() && connection.is_idle() {
            link.rest(site);
        }
        polled.map(Some)
    })
    .await;
    match ended {
        Some(ending) => Stay::Ended(ending),
        None => Stay::Moves(connection.into_rest()),
    }
}
