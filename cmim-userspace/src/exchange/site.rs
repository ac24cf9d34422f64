//! What all exchanges of one worker share, as one configuration has it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;

use super::train::Trains;
use super::upstream::SharedUpstream;
use crate::buffer::{BufferPool, Store};
use crate::config::model::{Config, ListenAddress, Listener, UpstreamIndex};
use crate::lane::Rules;
use crate::lane::local::LocalLane;
use crate::lane::pipe::PipePool;
use crate::lane::sockmap::Splicer;
use crate::observe::access_log::LogWriter;
use crate::observe::counters::Counters;

/// One worker's surroundings, made by [`crate::worker`]. A request sees one site from its head to its end.
#[derive(Debug)]
pub struct Site {
    /// The worker's number, from 0.
    pub worker: usize,
    pub config: Arc<Config>,
    /// In the order of [`Config::upstreams`].
    pub upstreams: Vec<Arc<SharedUpstream>>,
    pub counters: Arc<Counters>,
    pub buffers: Rc<BufferPool>,
    pub pipes: Rc<PipePool>,
    pub lanes: Rules,
    /// Where the sockmap lane is to be had.
    pub splicer: Option<Splicer>,
    pub store: Arc<Store>,
    pub log: LogWriter,
    /// The way to servers on this host.
    pub local: LocalLane,
    /// Told when one of this worker's idle server connections turns readable.
    pub idle_watch: Waker,
    pub drain: Drain,
    /// Server connections that take requests behind one another.
    pub trains: Trains,
}

impl Site {
    pub fn upstream(&self, index: UpstreamIndex) -> Option<&Arc<SharedUpstream>> {
        self.upstreams.get(index.0)
    }

    /// The listener that has this address in the configuration; `None`: none has it any more.
    pub fn listener(&self, address: ListenAddress) -> Option<&Listener> {
        self.config.listeners.iter().find(|listener| listener.address.contains(&address))
    }
}

/// The site of the configuration in force. Connections take it up between two requests.
#[derive(Debug)]
pub struct Current {
    site: RefCell<Rc<Site>>,
    /// Those before it that still have requests or connections.
    earlier: RefCell<Vec<Weak<Site>>>,
}

impl Current {
    pub fn new(site: Site) -> Self {
        Self { site: RefCell::new(Rc::new(site)), earlier: RefCell::default() }
    }

    pub fn site(&self) -> Rc<Site> {
        Rc::clone(&self.site.borrow())
    }

    /// Puts a newer site in force; connections that are idle take it up at once.
    pub fn replace(&self, site: Site) {
        let old = self.site.replace(Rc::new(site));
        let mut earlier = self.earlier.borrow_mut();
        earlier.retain(|site| site.strong_count() > 0);
        earlier.push(Rc::downgrade(&old));
        old.drain.stand(Standing::Superseded);
    }

    /// The device is shutting down, also for requests that an earlier site still has. `retiring`: another process takes
    /// the connections, so that each may stay until its client has been told in a reply.
    pub fn drain(&self, retiring: bool) {
        let standing = if retiring { Standing::Retiring } else { Standing::Draining };
        for site in self.earlier.borrow().iter().filter_map(Weak::upgrade) {
            site.drain.stand(standing);
        }
        self.site().drain.stand(standing);
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    InForce,
    Superseded,
    Retiring,
    Draining,
}

/// Whether a site's time is over: connections leave it behind their present requests.
#[derive(Debug, Default)]
pub struct Drain {
    standing: Cell<Standing>,
    told: Notify,
}

impl Drain {
    fn stand(&self, standing: Standing) {
        self.standing.set(standing);
        self.told.notify_waiters();
    }

    /// Whether the device is shutting down: connections end behind their next reply.
    pub fn has_begun(&self) -> bool {
        matches!(self.standing.get(), Standing::Retiring | Standing::Draining)
    }

    /// Whether connections without a request end at once. One that is closed just when its client sends a request fails
    /// it, so that this is for an end that cannot wait.
    pub fn ends_idle(&self) -> bool {
        self.standing.get() == Standing::Draining
    }

    /// Whether a newer site is in force: connections go on with that one.
    pub fn is_superseded(&self) -> bool {
        self.standing.get() == Standing::Superseded
    }

    /// Returns once either is so.
    pub async fn begun(&self) {
        if self.standing.get() == Standing::InForce {
            self.told.notified().await;
        }
    }
}
