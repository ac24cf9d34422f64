//! The access log: one line for each request.
//!
//! Owns the lines' buffers and the thread that writes them. The data path formats a line into its worker's buffer and goes
//! on; a full disk or a stuck reader of stdout costs lines, never a request's time. The lines' text is [`super::log_line`]'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::counters::Counters;
use super::log_line::{self, Clock};
pub use super::log_sink::AccessLogError;
use super::log_sink::{self, Opened, Sink};
use crate::config::model;

/// A line waits at most this long; long enough that a busy worker's lines share one write.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// A buffer of this many bytes is written at once.
const FLUSH_AT: usize = 64 * 1024;
/// A worker's buffer takes no further line above this: the file is slower than the traffic.
const BUFFER_LIMIT: usize = 8 * 1024 * 1024;
/// A buffer that grew larger than this in a burst is given back to the allocator.
const KEEP_CAPACITY: usize = 2 * FLUSH_AT;
/// On shutdown, time for the last lines; a reader of stdout that is stuck must not keep the daemon alive.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// What is known of a request at its end.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When the request's first byte came.
    pub time: SystemTime,
    pub listener: &'a str,
    pub client: SocketAddr,
    /// Empty for a request that could not be parsed; so are `target` and `version`.
    pub method: &'a [u8],
    pub target: &'a [u8],
    /// "HTTP/1.1".
    pub version: &'a str,
    pub status: u16,
    /// Content bytes of the request.
    pub bytes_in: u64,
    /// Content bytes of the reply.
    pub bytes_out: u64,
    /// Empty for a request that was refused before one was chosen.
    pub upstream: &'a str,
    /// The server that gave the reply.
    pub server: Option<&'a str>,
    /// From the request's first byte to the reply's last.
    pub duration: Duration,
    pub queue_wait: Option<Duration>,
    /// `None` on a reused connection.
    pub connect: Option<Duration>,
    /// From the request's first byte sent to the server to the first byte of its reply.
    pub first_byte: Option<Duration>,
    pub reused: bool,
    pub retries: u32,
    /// Requests of the same client connection in the device when this one came, itself included.
    pub stacked: u32,
    /// How long the reply waited for those before it.
    pub turn_wait: Option<Duration>,
    /// "streamed", "rewritten", "chunked", "local", "tunnel".
    pub handling: &'a str,
    /// Why the request was refused or failed.
    pub reason: Option<&'a str>,
    /// The combined format's two fields.
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

/// The whole log. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    path: Option<PathBuf>,
    /// The file's directory is this log's work.
    made_directory: bool,
    /// Disconnects when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl AccessLog {
    /// Opens the log and starts its thread.
    pub fn open(config: &model::AccessLog) -> Result<Self, AccessLogError> {
        let (Opened { sink, made_directory }, path) = match &config.path {
            model::AccessLogPath::Off => return Ok(Self { open: None }),
            model::AccessLogPath::Stdout => (Opened { sink: Sink::stdout()?, made_directory: false }, None),
            model::AccessLogPath::File(path) => (Sink::file(path)?, Some(path.clone())),
        };
        let shared = Arc::new(Shared::new(config.format));
        let (running, ended) = mpsc::channel();
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("cmim-access-log".to_owned())
            .spawn(move || {
                // Held for the thread's life: its drop is the sign of the end.
                let _running: mpsc::Sender<()> = running;
                thread_shared.run(sink);
            })
            .map_err(|source| AccessLogError::Thread { source })?;
        Ok(Self { open: Some(Open { shared, path, made_directory, ended: Mutex::new(ended) }) })
    }

    /// Shares a directory that was made for the file, and the file, with the group of the user that the daemon is about
    /// to become: who rotates the log has that user open it anew. A directory that was there is its maker's to share.
    pub fn hand_to(&self, group: u32) -> Result<(), AccessLogError> {
        match &self.open {
            Some(Open { path: Some(path), made_directory: true, .. }) => log_sink::share(path, group),
            _ => Ok(()),
        }
    }

    #[must_use]
    pub fn enabled(&self) -> bool {
        self.open.is_some()
    }

    /// Whether any worker can still write to it.
    #[must_use]
    pub fn has_writers(&self) -> bool {
        let has = |open: &Open| open.shared.buffers.lock().iter().any(|buffer| Arc::strong_count(buffer) > 1);
        self.open.as_ref().is_some_and(has)
    }

    /// A worker's own end of the log; lines that it loses are counted in `counters`.
    #[must_use]
    pub fn writer(&self, counters: Arc<Counters>) -> LogWriter {
        let target = self.open.as_ref().map(|open| {
            let buffer = Arc::new(Buffer { lines: Mutex::new(Lines::default()), counters });
            open.shared.buffers.lock().push(Arc::clone(&buffer));
            Target { buffer, shared: Arc::clone(&open.shared) }
        });
        LogWriter { target }
    }

    /// Opens the file anew, as after a rotation; the old one is kept if that fails. Lines not yet written go to the new one.
    pub fn reopen(&self) -> Result<(), AccessLogError> {
        if let Some(Open { shared, path: Some(path), .. }) = &self.open {
            *shared.next_sink.lock() = Some(Sink::file(path)?.sink);
            shared.signal(|signals| signals.urgent = true);
        }
        Ok(())
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.shared.signal(|signals| signals.stop = true);
            // Disconnected: the thread has written all. Timeout: the sink is stuck, and the lines are lost with it.
            let _: Result<(), mpsc::RecvTimeoutError> = open.ended.lock().recv_timeout(LAST_FLUSH);
        }
    }
}

/// One worker's end of the log.
#[derive(Debug)]
pub struct LogWriter {
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    buffer: Arc<Buffer>,
    shared: Arc<Shared>,
}

impl LogWriter {
    /// A writer that drops every line, for a device without an access log.
    #[must_use]
    pub fn off() -> Self {
        Self { target: None }
    }

    /// Whether a line would go anywhere, so that the caller need not gather an entry for nothing.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.target.is_some()
    }

    /// Formats one line into the worker's buffer; never waits for the file.
    pub fn log(&self, entry: &Entry<'_>) {
        let Some(Target { buffer, shared }) = &self.target else {
            return;
        };
        let mut lines = buffer.lines.lock();
        let before = lines.text.len();
        if before >= BUFFER_LIMIT {
            buffer.counters.access_log_dropped.add(1);
            return;
        }
        let Lines { text, clock } = &mut *lines;
        match shared.format {
            model::AccessLogFormat::Json => log_line::json(text, clock, entry),
            model::AccessLogFormat::Combined => log_line::combined(text, clock, entry),
        }
        let after = text.len();
        drop(lines);
        if before < FLUSH_AT && after >= FLUSH_AT {
            shared.signal(|signals| signals.urgent = true);
        } else if before == 0 {
            shared.signal(|signals| signals.pending = true);
        }
    }
}

/// One worker's lines that are not written yet. Its lock is contended only while the thread swaps the text out.
#[derive(Debug)]
struct Buffer {
    lines: Mutex<Lines>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    clock: Clock,
}

#[derive(Debug)]
struct Shared {
    format: model::AccessLogFormat,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    next_sink: Mutex<Option<Sink>>,
    signals: Mutex<Signals>,
    signalled: Condvar,
}

#[derive(Debug, Default)]
struct Signals {
    /// A buffer that was empty holds a line.
    pending: bool,
    /// A buffer is worth a write of its own, or the file was changed.
    urgent: bool,
    stop: bool,
}

impl Shared {
    fn new(format: model::AccessLogFormat) -> Self {
        Self {
            format,
            buffers: Mutex::default(),
            next_sink: Mutex::default(),
            signals: Mutex::default(),
            signalled: Condvar::new(),
        }
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut self.signals.lock());
        self.signalled.notify_one();
    }

    fn run(&self, mut sink: Sink) {
        let mut spare = Vec::new();
        loop {
            let stop = self.wait();
            if let Some(opened) = self.next_sink.lock().take() {
                sink = opened;
            }
            let buffers = self.live_buffers();
            for buffer in &buffers {
                std::mem::swap(&mut buffer.lines.lock().text, &mut spare);
                let lost = sink.write(&spare);
                buffer.counters.access_log_dropped.add(lost);
                spare.clear();
                spare.shrink_to(KEEP_CAPACITY);
            }
            if stop {
                return;
            }
        }
    }

    /// Sleeps while nothing is logged, then lets lines gather; `true` when this is the last round.
    fn wait(&self) -> bool {
        let mut signals = self.signals.lock();
        while !(signals.pending || signals.urgent || signals.stop) {
            self.signalled.wait(&mut signals);
        }
        let deadline = Instant::now() + FLUSH_EVERY;
        while !(signals.urgent || signals.stop) {
            if self.signalled.wait_until(&mut signals, deadline).timed_out() {
                break;
            }
        }
        // Cleared before the buffers are swapped out: a line that comes after the swap finds its buffer empty and signals.
        signals.pending = false;
        signals.urgent = false;
        signals.stop
    }

    /// The buffers of all writers; one whose writer is gone is listed a last time.
    fn live_buffers(&self) -> Vec<Arc<Buffer>> {
        let mut buffers = self.buffers.lock();
        let all = buffers.clone();
        // Two holders: the list and the clone just made.
        buffers.retain(|buffer| Arc::strong_count(buffer) > 2);
        all
    }
}

#[cfg(test)]
mod tests;
