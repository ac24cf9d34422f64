//! A client connection from its arrival to its close: the task that [`crate::worker`] spawns for each.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::arrival::Arrival;
use super::close::{Ending, close};
use super::connection::{Connection, Rest};
use super::parked::Parked;
use crate::config::model::{ListenAddress, Listener};
use crate::exchange::{Current, Link, Site};
use crate::observe::roll::{self, Record, Roll};

/// By which listener a client comes in.
#[derive(Debug)]
pub struct Entrance {
    /// As the configuration has it; finds the listener also in a newer one.
    pub address: ListenAddress,
    pub name: Arc<str>,
    /// Where the connection is listed.
    pub roll: Arc<Roll>,
}

/// A client that has just come. `P`: what its connection occupies.
#[derive(Debug)]
pub struct Newcomer<P> {
    pub arrival: Arrival,
    pub entrance: Rc<Entrance>,
    pub places: P,
}

/// A client that is being served. `places` is given back last.
#[derive(Debug)]
pub struct Guest<P> {
    pub(super) link: Link,
    pub(super) entry: roll::Entry,
    pub(super) rest: Rest,
    pub(super) entrance: Rc<Entrance>,
    pub(super) places: P,
}

/// Serves one client until its connection is closed, or there is nothing to do for it for a while. `site`: in force when
/// it came.
///
/// What it is made of is behind pointers, because a task has room for each value on every level that passes it on.
pub async fn serve<P>(current: Rc<Current>, site: Rc<Site>, newcomer: Box<Newcomer<P>>) -> Option<Parked<P>> {
    let guest = let_in(&site, newcomer).await?;
    attend(&current, site, guest).await
}

/// Goes on with a client that was parked.
pub async fn serve_again<P>(current: Rc<Current>, guest: Box<Guest<P>>) -> Option<Parked<P>> {
    let site = current.site();
    attend(&current, site, guest).await
}

async fn let_in<P>(site: &Site, newcomer: Box<Newcomer<P>>) -> Option<Box<Guest<P>>> {
    let Newcomer { arrival, entrance, places } = *newcomer;
    let peer = arrival.peer;
    let listener = site.listener(entrance.address)?;
    let accepted = match arrival.admit(site, listener).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(%peer, listener = %entrance.name, "connection refused: {error}");
            return None;
        }
    };
    let record = Arc::new(Record::new(accepted.id, Arc::clone(&entrance.name), accepted.peer));
    let entry = entrance.roll.enter(Arc::clone(&record));
    Some(Box::new(Guest { link: Link::new(accepted, record), entry, rest: Rest::new(), entrance, places }))
}

async fn attend<P>(current: &Current, mut site: Rc<Site>, mut guest: Box<Guest<P>>) -> Option<Parked<P>> {
    let address = guest.entrance.address;
    let ending = loop {
        let Some(listener) = site.listener(address) else { break Ending::Idle };
        match stay(&site, &guest.link, listener, &mut guest.rest).await {
            Stay::Ended(ending) => break ending,
            Stay::Parks => return Parked::new(*guest),
            Stay::Moves => {}
        }
        let newer = current.site();
        if newer.listener(address).is_some() {
            site = newer;
        } else {
            guest.rest.last = true;
        }
    };
    close(&site, &guest.link, ending).await;
    None
}

/// How a connection's time with one site ends.
enum Stay {
    Ended(Ending),
    /// It goes on with a newer site, between two requests.
    Moves,
    /// Nothing has happened for a while.
    Parks,
}

async fn stay(site: &Site, link: &Link, listener: &Listener, rest: &mut Rest) -> Stay {
    let mut connection = Connection::new(site, link, listener, *rest);
    let mut over = pin!(site.drain.begun());
    let mut over_seen = false;
    let mut listed = false;
    let stay = poll_fn(|cx| {
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
        if polled.is_pending() && connection.is_idle() {
            if connection.may_move() {
                return Poll::Ready(Stay::Moves);
            }
            if connection.may_park() {
                return Poll::Ready(Stay::Parks);
            }
            link.rest(site);
        }
        polled.map(Stay::Ended)
    })
    .await;
    *rest = connection.rest();
    stay
}
