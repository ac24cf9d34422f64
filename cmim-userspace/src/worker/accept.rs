//! Accepting client connections within the configured limits.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::{self, Arrival, Entrance};
use crate::config::model::{Limits, Listener};
use crate::exchange::Site;
use crate::kernel::WorkerLoad;
use crate::net::Stream;
use crate::observe::roll::Roll;

/// After an error that the next attempt would meet again (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(100);

/// Who may come in, over all workers.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    per_address: Option<PerAddress>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct PerAddress {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limits.client_connections.min(Semaphore::MAX_PERMITS))),
            per_address: limits.client_connections_per_address.map(|most| PerAddress { most, open: Mutex::default() }),
            next_id: AtomicU64::new(1),
        })
    }

    /// A place for one more connection; waits while all are taken, so that further clients stay in the accept queue.
    async fn place(self: &Arc<Self>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Counts a connection of `peer` until the guard is dropped; `None`: it has its share already.
    fn of_address(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPlace> {
        let Some(per_address) = &self.per_address else {
            return Some(AddressPlace { admission: None, peer });
        };
        let mut open = per_address.open.lock();
        let count = open.entry(peer).or_default();
        if *count >= per_address.most {
            return None;
        }
        *count += 1;
        Some(AddressPlace { admission: Some(Arc::clone(self)), peer })
    }
}

struct AddressPlace {
    admission: Option<Arc<Admission>>,
    peer: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(per_address) = self.admission.as_ref().and_then(|admission| admission.per_address.as_ref()) else {
            return;
        };
        let mut open = per_address.open.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// What one worker's listening socket belongs to.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub listener: Arc<Listener>,
    pub name: Arc<str>,
    pub admission: Arc<Admission>,
    pub roll: Arc<Roll>,
}

/// Connections that are open on one worker.
#[derive(Debug, Default)]
pub(super) struct OpenHere {
    count: Cell<usize>,
    emptied: tokio::sync::Notify,
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

struct Opened {
    here: Rc<OpenHere>,
    site: Rc<Site>,
}

impl Opened {
    fn new(here: &Rc<OpenHere>, site: &Rc<Site>) -> Self {
        here.count.set(here.count.get() + 1);
        here.load.opened();
        site.counters.client_accepted.add(1);
        site.counters.client_open.inc();
        Self { here: Rc::clone(here), site: Rc::clone(site) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.site.counters.client_open.dec();
        self.here.count.set(self.here.count.get() - 1);
        self.here.load.closed();
        if self.here.count.get() == 0 {
            self.here.emptied.notify_one();
        }
    }
}

/// Accepts connections until it is dropped.
pub(super) async fn accept(site: Rc<Site>, door: Door, socket: TcpListener, here: Rc<OpenHere>) {
    loop {
        // Looked at and given back: a loop that waits for a client must not keep a place from another worker's.
        let Some(free) = door.admission.place().await else { return };
        drop(free);
        match socket.accept().await {
            Ok((stream, peer)) => {
                let Some(place) = door.admission.place().await else { return };
                admit(&site, &door, &here, stream, peer, place);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %door.name, "cannot accept a connection: {error}; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit(
    site: &Rc<Site>,
    door: &Door,
    here: &Rc<OpenHere>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    let Some(address_place) = door.admission.of_address(peer.ip().to_canonical()) else {
        tracing::debug!(%peer, listener = %door.name, "closed: client_connections_per_address is reached");
        return;
    };
    // A connection that ended meanwhile fails at its first read as well.
    let _: io::Result<()> = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let id = door.admission.next_id.fetch_add(1, Ordering::Relaxed);
    let arrival = Arrival { stream: Stream::Tcp(stream), local, peer, id };
    let opened = Opened::new(here, site);
    let entrance =
        Entrance { listener: Arc::clone(&door.listener), name: Arc::clone(&door.name), roll: Arc::clone(&door.roll) };
    tokio::task::spawn_local(client::serve(Rc::clone(site), entrance, arrival, (place, address_place, opened)));
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
