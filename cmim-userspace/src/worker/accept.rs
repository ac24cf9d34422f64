//! Accepting client connections within the configured limits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::parking::Parking;
use crate::client::{self, Arrival, Entrance, Newcomer};
use crate::config::model::Limits;
use crate::exchange::Current;
use crate::kernel::WorkerLoad;
use crate::net::{Entry, Stream};
use crate::observe::counters::Counters;

/// After an error that the next attempt would meet again (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(100);
/// Clients leave this share of the process's descriptors to everything else: servers above all. Were they to take all of
/// them, nobody would be there to answer.
const KEPT_SHARE: u64 = 4;

/// Who may come in, over all workers.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    /// What the process's descriptors allow, whatever the limits say.
    most: usize,
    bounds: Mutex<Bounds>,
    /// Places that are taken and too many since the limit was lowered: each is given up when it is next to be had.
    too_many: AtomicUsize,
    /// Open connections that one address may have; 0: any number.
    most_per_address: AtomicUsize,
    /// Those that came while there was a limit.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    next_id: AtomicU64,
}

/// What the semaphore was made for.
#[derive(Debug)]
struct Bounds {
    client_connections: usize,
}

impl Admission {
    /// `descriptors`: how many the process may have; `None`: any number.
    pub(super) fn new(limits: &Limits, descriptors: Option<u64>) -> Arc<Self> {
        let most = most_clients(descriptors);
        let client_connections = limits.client_connections.min(most);
        if let Some(descriptors) = descriptors
            && client_connections < limits.client_connections
        {
            tracing::info!(
                "limits.client_connections is {}, but this process may have {descriptors} open files: at most \
                 {client_connections} clients are let in at a time (LimitNOFILE=, ulimit -n)",
                limits.client_connections
            );
        }
        Arc::new(Self {
            places: Arc::new(Semaphore::new(client_connections)),
            most,
            bounds: Mutex::new(Bounds { client_connections }),
            too_many: AtomicUsize::new(0),
            most_per_address: AtomicUsize::new(limits.client_connections_per_address.unwrap_or(0)),
            by_address: Mutex::default(),
            next_id: AtomicU64::new(1),
        })
    }

    /// Takes other limits over. Connections above them stay.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.most_per_address.store(limits.client_connections_per_address.unwrap_or(0), Ordering::Relaxed);
        let mut bounds = self.bounds.lock();
        let wanted = limits.client_connections.min(self.most);
        let present = std::mem::replace(&mut bounds.client_connections, wanted);
        if let Some(more) = wanted.checked_sub(present) {
            let forgiven = self.forgive(more);
            self.places.add_permits(more - forgiven);
        } else {
            let fewer = present - wanted;
            let taken = fewer - self.places.forget_permits(fewer);
            self.too_many.fetch_add(taken, Ordering::Relaxed);
        }
    }

    /// Lets up to `most` of the places that are too many stay; how many.
    fn forgive(&self, most: usize) -> usize {
        let mut forgiven = 0;
        self.too_many.update(Ordering::Relaxed, Ordering::Relaxed, |too_many| {
            forgiven = too_many.min(most);
            too_many - forgiven
        });
        forgiven
    }

    /// A place for one more connection; waits while all are taken, so that further clients stay in the accept queue.
    async fn place(self: &Arc<Self>) -> Option<OwnedSemaphorePermit> {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            if self.too_many.load(Ordering::Relaxed) == 0 || self.forgive(1) == 0 {
                return Some(place);
            }
            place.forget();
        }
    }

    /// Counts a connection of `peer` until the guard is dropped; `None`: it has its share already.
    fn of_address(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPlace> {
        let most = self.most_per_address.load(Ordering::Relaxed);
        if most == 0 {
            return Some(AddressPlace { admission: None, peer });
        }
        let mut open = self.by_address.lock();
        let count = open.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPlace { admission: Some(Arc::clone(self)), peer })
    }
}

/// How many clients there can be beside everything else that takes descriptors.
fn most_clients(descriptors: Option<u64>) -> usize {
    let most = descriptors.map_or(u64::MAX, |descriptors| descriptors - descriptors / KEPT_SHARE);
    usize::try_from(most).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

#[derive(Debug)]
struct AddressPlace {
    admission: Option<Arc<Admission>>,
    peer: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(admission) = &self.admission else { return };
        let mut open = admission.by_address.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// What an open connection occupies.
#[derive(Debug)]
pub(super) struct Places {
    _one: OwnedSemaphorePermit,
    _of_address: AddressPlace,
    _opened: Opened,
}

/// What one worker's listening socket belongs to.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub entrance: Rc<RefCell<Rc<Entrance>>>,
    pub admission: Arc<Admission>,
    pub parking: Rc<Parking>,
    pub here: Rc<OpenHere>,
    /// Told when the door is to be closed.
    pub closing: Rc<Notify>,
}

impl Door {
    /// The listener's, in the configuration in force.
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.entrance.borrow().name)
    }
}

/// Connections that are open on one worker.
#[derive(Debug, Default)]
pub(super) struct OpenHere {
    count: Cell<usize>,
    emptied: Notify,
    /// Tells the kernel, which gives new connections to the least busy worker.
    load: WorkerLoad,
}

impl OpenHere {
    pub(super) fn new(load: WorkerLoad) -> Self {
        Self { load, ..Self::default() }
    }

    /// Returns once no connection is open.
    pub(super) async fn none_left(&self) {
        while self.count.get() > 0 {
            self.emptied.notified().await;
        }
    }
}

#[derive(Debug)]
struct Opened {
    here: Rc<OpenHere>,
    counters: Arc<Counters>,
}

impl Opened {
    fn new(here: &Rc<OpenHere>, counters: &Arc<Counters>) -> Self {
        here.count.set(here.count.get() + 1);
        here.load.opened();
        counters.client_accepted.add(1);
        counters.client_open.inc();
        Self { here: Rc::clone(here), counters: Arc::clone(counters) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.counters.client_open.dec();
        self.here.count.set(self.here.count.get() - 1);
        self.here.load.closed();
        if self.here.count.get() == 0 {
            self.here.emptied.notify_one();
        }
    }
}

/// Accepts connections until the door is to be closed, and then those that wait before it.
pub(super) async fn accept(current: Rc<Current>, door: Door, socket: Entry) {
    tokio::select! {
        biased;
        () = door.closing.notified() => {}
        () = let_in(&current, &door, &socket) => {}
    }
    // Their handshakes are done: closing the socket would reset them.
    let at_once = async {
        while let Some(place) = door.admission.place().await
            && let Ok((stream, peer)) = socket.accept().await
        {
            admit(&current, &door, stream, peer, place);
        }
    };
    // Ends where there is none, or no place.
    at_once.now_or_never();
}

async fn let_in(current: &Rc<Current>, door: &Door, socket: &Entry) {
    loop {
        // Looked at and given back: a loop that waits for a client must not keep a place from another worker's.
        let Some(free) = door.admission.place().await else { return };
        drop(free);
        match socket.accept().await {
            Ok((stream, peer)) => {
                let Some(place) = door.admission.place().await else { return };
                admit(current, door, stream, peer, place);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %door.name(), "cannot accept a connection: {error}; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit(current: &Rc<Current>, door: &Door, stream: Stream, peer: SocketAddr, place: OwnedSemaphorePermit) {
    let Some(address_place) = door.admission.of_address(peer.ip().to_canonical()) else {
        tracing::debug!(%peer, listener = %door.name(), "closed: client_connections_per_address is reached");
        return;
    };
    let id = door.admission.next_id.fetch_add(1, Ordering::Relaxed);
    let arrival = Arrival { stream, peer, id };
    let site = current.site();
    let opened = Opened::new(&door.here, &site.counters);
    let places = Places { _one: place, _of_address: address_place, _opened: opened };
    let newcomer = Box::new(Newcomer { arrival, entrance: Rc::clone(&door.entrance.borrow()), places });
    let current = Rc::clone(current);
    door.parking.host(|| client::serve(current, site, newcomer));
}

/// Errors of the connection that was about to be accepted, not of the listening socket (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(client_connections: usize, per_address: Option<usize>) -> Limits {
        let text = "[[listener]]\naddress = \"127.0.0.1:80\"\n[[upstream]]\nservers = [{ address = \"127.0.0.1:81\" }]";
        let limits = crate::config::parse(text, "test").unwrap().limits;
        Limits { client_connections, client_connections_per_address: per_address, ..limits }
    }

    #[test]
    fn a_lower_limit_holds_once_connections_above_it_have_ended() {
        let admission = Admission::new(&limits(3, None), None);
        let place = || admission.place().now_or_never().flatten();
        let mut taken: Vec<_> = (0..3).map(|_| place().unwrap()).collect();
        admission.set_limits(&limits(1, None));
        taken.truncate(1);
        assert!(place().is_none(), "one is the limit, and one is taken");
        admission.set_limits(&limits(2, None));
        taken.push(place().unwrap());
        assert!(place().is_none());
        taken.clear();
        admission.set_limits(&limits(1, None));
        let one = place();
        assert!(one.is_some() && place().is_none());
    }

    #[test]
    fn a_quarter_of_the_descriptors_is_not_for_clients_whatever_the_limit_says() {
        assert_eq!([20_000, 1024, 1, 0].map(|descriptors| most_clients(Some(descriptors))), [15_000, 768, 1, 1]);
        assert_eq!(most_clients(None), Semaphore::MAX_PERMITS);
        let admission = Admission::new(&limits(9, None), Some(4));
        let place = || admission.place().now_or_never().flatten();
        let taken: Vec<_> = (0..3).map(|_| place().unwrap()).collect();
        assert!(place().is_none());
        admission.set_limits(&limits(100, None));
        assert!(place().is_none(), "a reload brings no descriptors");
        drop(taken);
        admission.set_limits(&limits(2, None));
        let two = [place(), place()];
        assert!(two.iter().all(Option::is_some) && place().is_none());
    }

    #[test]
    fn a_raise_lets_places_that_were_too_many_stay() {
        let admission = Admission::new(&limits(2, None), None);
        let place = || admission.place().now_or_never().flatten();
        let taken = [place().unwrap(), place().unwrap()];
        admission.set_limits(&limits(1, None));
        admission.set_limits(&limits(2, None));
        drop(taken);
        let again = [place(), place()];
        assert!(again.iter().all(Option::is_some) && place().is_none());
    }

    #[test]
    fn a_limit_per_address_counts_those_that_come_from_then_on() {
        let admission = Admission::new(&limits(9, None), None);
        let peer = IpAddr::from([203, 0, 113, 7]);
        let before = admission.of_address(peer).unwrap();
        admission.set_limits(&limits(9, Some(1)));
        let first = admission.of_address(peer).unwrap();
        assert!(admission.of_address(peer).is_none());
        drop((before, first));
        assert!(admission.by_address.lock().is_empty());
    }
}
