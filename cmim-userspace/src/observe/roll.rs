//! The client connections that are open, as `cmim connections` shows them.
//!
//! A worker writes its own connections' figures with relaxed atomics; the admin thread reads them at any time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use slab::Slab;

use crate::control::message::Connection;

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    Idle,
    /// A head has begun and is not whole.
    Reading,
    /// A server is awaited.
    Waiting,
    Replying,
    Tunnel,
    Closing,
}

impl Doing {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Idle, "idle"),
        (Self::Reading, "reading"),
        (Self::Waiting, "waiting"),
        (Self::Replying, "replying"),
        (Self::Tunnel, "tunnel"),
        (Self::Closing, "closing"),
    ];

    fn name(value: u8) -> &'static str {
        Self::ALL.iter().find(|(doing, _)| *doing as u8 == value).map_or("", |(_, name)| name)
    }
}

/// One open client connection.
#[derive(Debug)]
pub struct Record {
    id: u64,
    listener: Arc<str>,
    peer: SocketAddr,
    opened: Instant,
    requests: AtomicU64,
    stacked: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    doing: AtomicU8,
}

impl Record {
    pub fn new(id: u64, listener: Arc<str>, peer: SocketAddr) -> Self {
        Self {
            id,
            listener,
            peer,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            stacked: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            doing: AtomicU8::new(Doing::Idle as u8),
        }
    }

    /// A request came; `stacked` of this connection are in the device now.
    pub fn request(&self, stacked: usize) {
        bump(&self.requests, 1);
        self.stacked(stacked);
    }

    pub fn stacked(&self, stacked: usize) {
        self.stacked.store(stacked as u64, Ordering::Relaxed);
    }

    pub fn read(&self, bytes: usize) {
        bump(&self.bytes_in, bytes as u64);
    }

    pub fn wrote(&self, bytes: usize) {
        bump(&self.bytes_out, bytes as u64);
    }

    pub fn doing(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    fn message(&self) -> Connection {
        let doing = self.doing.load(Ordering::Relaxed);
        let carries = doing == Doing::Replying as u8 || doing == Doing::Tunnel as u8;
        Connection {
            id: self.id,
            listener: self.listener.to_string(),
            address: self.peer.to_string(),
            age_seconds: self.opened.elapsed().as_secs_f64(),
            requests: self.requests.load(Ordering::Relaxed),
            stacked: self.stacked.load(Ordering::Relaxed),
            lane: if carries { "copy".to_owned() } else { String::new() },
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            state: Doing::name(doing).to_owned(),
        }
    }
}

/// Only the connection's own worker writes, so a plain load and store does what a locked instruction would.
fn bump(figure: &AtomicU64, by: u64) {
    figure.store(figure.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// The open client connections of one worker.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Slab<Arc<Record>>>);

impl Roll {
    /// Lists a connection until the entry is dropped.
    pub fn enter(self: &Arc<Self>, record: Arc<Record>) -> Entry {
        Entry { key: self.0.lock().insert(record), roll: Arc::clone(self) }
    }

    pub fn list(&self) -> Vec<Connection> {
        self.0.lock().iter().map(|(_, record)| record.message()).collect()
    }
}

/// A place in the roll.
#[derive(Debug)]
pub struct Entry {
    roll: Arc<Roll>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roll.0.lock().remove(self.key);
    }
}
