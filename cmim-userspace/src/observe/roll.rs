//! The client connections that are open and their requests, as `cmim connections` and `cmim jobs` show them.
//!
//! A worker writes its own connections' figures; the admin thread reads them at any time, and leaves word where the
//! operator wants a job stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;

use crate::control::message::{self, Connection};
use crate::h1::Method;
use crate::job::State;
use crate::stack::Seq;

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
    /// One, unless requests are stacked.
    jobs: Mutex<SmallVec<[Note; 1]>>,
    /// A job is to be stopped; which one, its note says.
    word_left: AtomicBool,
    /// Wakes the connection's task.
    waker: Mutex<Option<Waker>>,
}

/// One request in the device.
#[derive(Debug)]
struct Note {
    seq: Seq,
    state: State,
    since: Instant,
    method: Method,
    target: Bytes,
    server: Option<Arc<str>>,
    bytes: u64,
    tier: &'static str,
    lane: &'static str,
    to_be_stopped: bool,
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
            jobs: Mutex::default(),
            word_left: AtomicBool::new(false),
            waker: Mutex::default(),
        }
    }

    /// Lists a request until [`Self::job_ends`].
    pub fn job_begins(&self, seq: Seq, since: Instant, method: Method, target: Bytes) {
        let state = State::Received;
        let note = Note {
            seq,
            state,
            since,
            method,
            target,
            server: None,
            bytes: 0,
            tier: "",
            lane: "",
            to_be_stopped: false,
        };
        self.jobs.lock().push(note);
    }

    pub fn job_becomes(&self, seq: Seq, state: State) {
        self.note(seq, |note| note.state = state);
    }

    pub fn job_dispatched(&self, seq: Seq, server: &Arc<str>) {
        self.note(seq, |note| {
            note.state = State::Dispatched;
            note.server = Some(Arc::clone(server));
        });
    }

    /// Content bytes of the reply that have come, and the tier in which they wait.
    pub fn job_has(&self, seq: Seq, bytes: u64, tier: &'static str) {
        self.note(seq, |note| {
            note.bytes = bytes;
            note.tier = tier;
        });
    }

    /// The lane on which its content or tunnel is.
    pub fn job_takes(&self, seq: Seq, lane: &'static str) {
        self.note(seq, |note| note.lane = lane);
    }

    pub fn job_ends(&self, seq: Seq) {
        let mut jobs = self.jobs.lock();
        if let Some(at) = jobs.iter().position(|note| note.seq == seq) {
            jobs.remove(at);
        }
        if jobs.is_empty() {
            // A stack was here; an idle connection needs no room for one.
            jobs.shrink_to_fit();
        }
    }

    /// Which task to wake when word is left.
    pub fn woken_by(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    /// The jobs that are to be stopped and have not been told yet.
    pub fn take_word(&self) -> Vec<Seq> {
        if !self.word_left.load(Ordering::Relaxed) || !self.word_left.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let mut jobs = self.jobs.lock();
        let told = jobs.iter_mut().filter_map(|note| std::mem::take(&mut note.to_be_stopped).then_some(note.seq));
        told.collect()
    }

    /// Leaves word that a job is to be stopped. False: there is no such job.
    fn stop(&self, seq: Seq) -> bool {
        let found = {
            let mut jobs = self.jobs.lock();
            let note = jobs.iter_mut().find(|note| note.seq == seq);
            note.map(|note| note.to_be_stopped = true).is_some()
        };
        if found {
            self.word_left.store(true, Ordering::Release);
            if let Some(waker) = &*self.waker.lock() {
                waker.wake_by_ref();
            }
        }
        found
    }

    fn note(&self, seq: Seq, change: impl FnOnce(&mut Note)) {
        if let Some(note) = self.jobs.lock().iter_mut().find(|note| note.seq == seq) {
            change(note);
        }
    }

    fn job_messages(&self) -> Vec<message::Job> {
        let jobs = self.jobs.lock();
        let message = |note: &Note| message::Job {
            id: format!("{}.{}", self.id, note.seq.0),
            client: self.peer.to_string(),
            method: note.method.as_str().to_owned(),
            target: String::from_utf8_lossy(&note.target).into_owned(),
            state: note.state.name().to_owned(),
            server: note.server.as_deref().unwrap_or_default().to_owned(),
            age_seconds: note.since.elapsed().as_secs_f64(),
            bytes: note.bytes,
            tier: note.tier.to_owned(),
        };
        jobs.iter().map(message).collect()
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

    fn figures(&self) -> Figures {
        Figures {
            id: self.id,
            listener: Arc::clone(&self.listener),
            peer: self.peer,
            opened: self.opened,
            requests: self.requests.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }

    fn message(&self) -> Connection {
        let doing = self.doing.load(Ordering::Relaxed);
        // Of a stack, the oldest request's reply is on its way to the client.
        let lane = self.jobs.lock().first().map_or("", |note| note.lane);
        Connection {
            id: self.id,
            listener: self.listener.to_string(),
            address: self.peer.to_string(),
            age_seconds: self.opened.elapsed().as_secs_f64(),
            requests: self.requests.load(Ordering::Relaxed),
            stacked: self.stacked.load(Ordering::Relaxed),
            lane: lane.to_owned(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            state: Doing::name(doing).to_owned(),
        }
    }
}

/// What is kept of a parked connection's record.
#[derive(Debug)]
struct Figures {
    id: u64,
    listener: Arc<str>,
    peer: SocketAddr,
    opened: Instant,
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Figures {
    fn record(&self) -> Record {
        let record = Record::new(self.id, Arc::clone(&self.listener), self.peer);
        bump(&record.requests, self.requests);
        bump(&record.bytes_in, self.bytes_in);
        bump(&record.bytes_out, self.bytes_out);
        Record { opened: self.opened, ..record }
    }
}

/// Only the connection's own worker writes, so a plain load and store does what a locked instruction would.
fn bump(figure: &AtomicU64, by: u64) {
    figure.store(figure.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A connection in the roll.
#[derive(Debug)]
enum Listed {
    Open(Arc<Record>),
    /// Here and not behind a pointer: thousands of them lie side by side, and leave no memory in pieces.
    Parked(Figures),
}

impl Listed {
    fn message(&self) -> Connection {
        match self {
            Self::Open(record) => record.message(),
            Self::Parked(figures) => Connection { state: "parked".to_owned(), ..figures.record().message() },
        }
    }

    fn open(&self) -> Option<&Record> {
        match self {
            Self::Open(record) => Some(record),
            Self::Parked(_) => None,
        }
    }
}

/// The open client connections of one worker.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Slab<Listed>>);

impl Roll {
    /// Lists a connection until the entry is dropped.
    pub fn enter(self: &Arc<Self>, record: Arc<Record>) -> Entry {
        Entry { key: self.0.lock().insert(Listed::Open(record)), roll: Arc::clone(self) }
    }

    pub fn list(&self) -> Vec<Connection> {
        self.0.lock().iter().map(|(_, listed)| listed.message()).collect()
    }

    pub fn jobs(&self) -> Vec<message::Job> {
        self.0.lock().iter().filter_map(|(_, listed)| listed.open()).flat_map(Record::job_messages).collect()
    }

    /// Stops a job of the connection `id`. False: it is not here.
    pub fn stop(&self, id: u64, seq: Seq) -> bool {
        self.0.lock().iter().filter_map(|(_, listed)| listed.open()).any(|record| record.id == id && record.stop(seq))
    }
}

/// A place in the roll.
#[derive(Debug)]
pub struct Entry {
    roll: Arc<Roll>,
    key: usize,
}

impl Entry {
    /// Keeps the figures alone, for a connection on which nothing happens.
    pub fn park(&self) {
        if let Some(listed) = self.roll.0.lock().get_mut(self.key)
            && let Listed::Open(record) = listed
        {
            *listed = Listed::Parked(record.figures());
        }
    }

    /// The record of a connection that goes on.
    pub fn wake(&self) -> Option<Arc<Record>> {
        let mut roll = self.roll.0.lock();
        let listed = roll.get_mut(self.key)?;
        if let Listed::Parked(figures) = listed {
            *listed = Listed::Open(Arc::new(figures.record()));
        }
        match listed {
            Listed::Open(record) => Some(Arc::clone(record)),
            Listed::Parked(_) => None,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roll.0.lock().remove(self.key);
    }
}
