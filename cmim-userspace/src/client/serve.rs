//! A client connection from its arrival to its close: the task that [`crate::worker`] spawns for each.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use super::arrival::Arrival;
use super::close::close;
use super::connection::Connection;
use crate::config::model::Listener;
use crate::exchange::{Link, Site};
use crate::observe::roll::{Record, Roll};

/// By which listener a client comes in.
#[derive(Debug)]
pub struct Entrance {
    pub listener: Arc<Listener>,
    pub name: Arc<str>,
    /// Where the connection is listed.
    pub roll: Arc<Roll>,
}

/// Serves one client until its connection is closed. `places`: what it occupies until then, given back by Drop.
pub async fn serve<P>(site: Rc<Site>, entrance: Entrance, arrival: Arrival, places: P) {
    // Not a plain unused argument: it is dropped last, behind the connection's own parts.
    let _places = places;
    let Entrance { listener, name, roll } = entrance;
    let peer = arrival.peer;
    let accepted = match arrival.admit(&site, &listener).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(%peer, listener = %name, "connection refused: {error}");
            return;
        }
    };
    let record = Arc::new(Record::new(accepted.id, name, accepted.peer));
    let _entry = roll.enter(Arc::clone(&record));
    let link = Link::new(accepted, record);
    let ending = {
        let mut connection = Connection::new(&site, &link, &listener);
        let mut drained = pin!(site.drain.begun());
        let mut drain_seen = false;
        let mut listed = false;
        poll_fn(|cx| {
            if !listed {
                // A task's waker stays the same.
                link.record.woken_by(cx.waker());
                listed = true;
            }
            let polled = connection.poll(cx);
            // Idle connections are told of a shutdown; busy ones look for themselves when they are done.
            if polled.is_pending() && !drain_seen && connection.is_idle() && drained.as_mut().poll(cx).is_ready() {
                drain_seen = true;
                return connection.poll(cx);
            }
            if polled.is_pending() && connection.is_idle() {
                link.rest(&site);
            }
            polled
        })
        .await
    };
    close(&site, &link, ending).await;
}
