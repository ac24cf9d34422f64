//! What all exchanges of one worker share.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;

use super::upstream::SharedUpstream;
use crate::buffer::{BufferPool, Store};
use crate::config::model::{Config, UpstreamIndex};
use crate::lane::Rules;
use crate::lane::pipe::PipePool;
use crate::observe::access_log::LogWriter;
use crate::observe::counters::Counters;

/// One worker's surroundings, made by [`crate::worker`].
#[derive(Debug)]
pub struct Site {
    /// The worker's number, from 0.
    pub worker: usize,
    pub config: Arc<Config>,
    /// In the order of [`Config::upstreams`].
    pub upstreams: Vec<Arc<SharedUpstream>>,
    pub counters: Arc<Counters>,
    pub buffers: BufferPool,
    pub pipes: PipePool,
    pub lanes: Rules,
    pub store: Arc<Store>,
    pub log: LogWriter,
    /// Told when one of this worker's idle server connections turns readable.
    pub idle_watch: Waker,
    pub drain: Drain,
}

impl Site {
    pub fn upstream(&self, index: UpstreamIndex) -> Option<&Arc<SharedUpstream>> {
        self.upstreams.get(index.0)
    }
}

/// Whether the device is shutting down: connections end after their present requests.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Cell<bool>,
    told: Notify,
}

impl Drain {
    pub fn begin(&self) {
        self.begun.set(true);
        self.told.notify_waiters();
    }

    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Returns once the drain begins.
    pub async fn begun(&self) {
        if !self.has_begun() {
            self.told.notified().await;
        }
    }
}
