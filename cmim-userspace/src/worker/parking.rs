//! The client connections of one worker on which nothing happens.
//!
//! Each is a few hundred bytes in a table and a socket in an epoll set of its own, which the event loop watches as one
//! descriptor. What comes on a socket has its connection served again.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

use super::accept::Places;
use crate::client::{self, Parked};
use crate::exchange::{Current, Site};
use crate::net::watched;

/// Connections are looked at this often for their age.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Sockets that are taken from the set at a time.
const AT_A_TIME: usize = 64;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Once so many connections were parked and no more follow, what they occupied before is given back to the system: fewer
/// are not worth the time for which the worker does nothing else …
const A_FEW: usize = 100;
/// … and after so many in any case.
const MANY: usize = 2_000;

/// A worker's parked connections.
#[derive(Debug)]
pub(super) struct Parking {
    current: Rc<Current>,
    sockets: AsyncFd<OwnedFd>,
    parked: RefCell<Slab<Parked<Places>>>,
    /// Parked since memory was given back.
    lately: Cell<usize>,
}

impl Parking {
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub(super) fn open(current: &Rc<Current>) -> io::Result<Rc<Self>> {
        let sockets = watched(epoll::create(CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        let current = Rc::clone(current);
        let parking = Rc::new(Self { current, sockets, parked: RefCell::default(), lately: Cell::new(0) });
        spawn_local(Rc::clone(&parking).watch());
        spawn_local(Rc::clone(&parking).sweep());
        Ok(parking)
    }

    /// Has a connection served, in a task of its own, and keeps it while there is nothing to do for it.
    pub(super) fn host<F>(self: &Rc<Self>, serve: impl FnOnce() -> F + 'static)
    where
        F: Future<Output = Option<Parked<Places>>> + 'static,
    {
        let parking = Rc::clone(self);
        spawn_local(async move {
            if let Some(parked) = serve().await {
                parking.park(parked);
            }
        });
    }

    fn park(&self, parked: Parked<Places>) {
        let mut all = self.parked.borrow_mut();
        let place = all.vacant_entry();
        let data = EventData::new_u64(place.key() as u64);
        // Level-triggered: what has come meanwhile is told at once.
        match epoll::add(self.sockets.get_ref(), &parked, data, EventFlags::IN | EventFlags::RDHUP) {
            Ok(()) => {
                place.insert(parked);
                self.lately.set(self.lately.get() + 1);
            }
            // The event loop, which watched it until now, would fare no better.
            Err(errno) => tracing::warn!("an idle connection is closed, because the system cannot watch it: {errno}"),
        }
    }

    /// Wakes connections on which something comes, for good.
    async fn watch(self: Rc<Self>) {
        let mut events = Vec::with_capacity(AT_A_TIME);
        loop {
            let ready = self.sockets.async_io(Interest::READABLE, |sockets| {
                events.clear();
                epoll::wait(sockets, rustix::buffer::spare_capacity(&mut events), Some(&AT_ONCE))?;
                if events.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if let Err(error) = ready.await {
                tracing::error!("parked connections cannot be watched: {error}");
                return self.wake(|_| true);
            }
            for Event { data, .. } in events.drain(..) {
                self.wake_one(data.u64() as usize);
            }
        }
    }

    /// Closes connections that were idle for too long, and gives back memory, for good.
    async fn sweep(self: Rc<Self>) {
        let mut each = tokio::time::interval(SWEEP_EVERY);
        let mut before = 0;
        loop {
            each.tick().await;
            let now = Instant::now();
            let idle = self.current.site().config.timeouts.client_idle;
            self.parked.borrow_mut().retain(|_, parked| now.duration_since(parked.idle_since()) < idle);
            let lately = self.lately.get();
            if lately >= MANY || (lately >= A_FEW && lately == before) {
                self.lately.set(0);
                give_memory_back();
            }
            before = self.lately.get();
        }
    }

    /// Wakes the connections whose listener `site` has no more: they end by themselves.
    pub(super) fn wake_strangers(self: &Rc<Self>, site: &Site) {
        self.wake(|parked| site.listener(parked.listener()).is_none());
    }

    /// Wakes all: the device is about to end, and so do they.
    pub(super) fn wake_all(self: &Rc<Self>) {
        self.wake(|_| true);
    }

    fn wake(self: &Rc<Self>, whether: impl Fn(&Parked<Places>) -> bool) {
        let keys: Vec<usize> =
            self.parked.borrow().iter().filter(|(_, parked)| whether(parked)).map(|(key, _)| key).collect();
        for key in keys {
            self.wake_one(key);
        }
    }

    fn wake_one(self: &Rc<Self>, key: usize) {
        let Some(parked) = self.parked.borrow_mut().try_remove(key) else { return };
        match epoll::delete(self.sockets.get_ref(), &parked) {
            Ok(()) => self.serve(parked),
            // It would be told of for ever. Closing the socket takes it out of the set.
            Err(errno) => tracing::debug!("a parked connection is closed: {errno}"),
        }
    }

    fn serve(self: &Rc<Self>, parked: Parked<Places>) {
        let Some(guest) = parked.wake() else { return };
        let current = Rc::clone(&self.current);
        self.host(|| client::serve_again(current, guest));
    }
}

/// Has the allocator give whole pages that nothing lies in back to the system. Tasks of connections that were parked leave
/// many, and the allocator would keep them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn give_memory_back() {
    // SAFETY: it touches free memory only, and locks what it needs itself.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have ways of their own.
#[cfg(not(target_env = "gnu"))]
fn give_memory_back() {}
