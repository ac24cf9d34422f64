//! A server that plays a script on each connection and records every byte it receives.
//!
//! One thread per connection, so that a script is plain sequential code. Requests are parsed strictly: what the device
//! sends has to be flawless. It knows nothing of the device.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::deadline::{PATIENCE, until};
use crate::fields::Fields;
use crate::wire::{Record, Wire, WireError, parse_head};

/// How long a connection of a script may idle: longer than any test.
const IDLE: Duration = Duration::from_secs(120);
const BACKLOG: i32 = 1024;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    pub content: Vec<u8>,
    pub trailers: Fields,
    /// Which of the server's connections it came on, from 0.
    pub connection: usize,
    /// When its head was whole.
    pub arrived: Instant,
}

/// What became of one connection.
#[derive(Debug)]
struct Connection {
    received: Record,
    /// A second handle, to end the connection with when the server goes; none once the script has ended it.
    socket: Option<Socket>,
}

#[derive(Debug, Default)]
struct Journal {
    connections: Vec<Connection>,
    requests: Vec<Request>,
    /// Why a script's reading ended, where that was not the peer's orderly close.
    faults: Vec<String>,
}

type Shared = Arc<Mutex<Journal>>;

pub struct ScriptedServer {
    address: String,
    listener: Arc<Socket>,
    stopped: Arc<AtomicBool>,
    journal: Shared,
}

impl ScriptedServer {
    /// Plays `script` on every connection, on a TCP port of the kernel's choice.
    pub fn start(script: impl Fn(&mut ServerSide) + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
    }

    pub fn at(address: SocketAddr, script: impl Fn(&mut ServerSide) + Send + Sync + 'static) -> Self {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        listener.set_reuse_address(true).expect("SO_REUSEADDR");
        listener.bind(&address.into()).unwrap_or_else(|error| panic!("binding {address}: {error}"));
        let bound = listener.local_addr().expect("its address").as_socket().expect("an IP address");
        Self::serve(listener, bound.to_string(), script)
    }

    pub fn unix(path: &Path, script: impl Fn(&mut ServerSide) + Send + Sync + 'static) -> Self {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        listener.bind(&SockAddr::unix(path).expect("a short path")).expect("a fresh path");
        Self::serve(listener, format!("unix:{}", path.display()), script)
    }

    fn serve(listener: Socket, address: String, script: impl Fn(&mut ServerSide) + Send + Sync + 'static) -> Self {
        listener.listen(BACKLOG).expect("listening");
        let server = Self {
            address,
            listener: Arc::new(listener),
            stopped: Arc::new(AtomicBool::new(false)),
            journal: Shared::default(),
        };
        let (listener, stopped, journal) = (server.listener.clone(), server.stopped.clone(), server.journal.clone());
        let script = Arc::new(script);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut side = ServerSide::new(socket, journal.clone());
                let script = script.clone();
                thread::spawn(move || script(&mut side));
            }
        });
        server
    }

    /// As a configuration names it.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.address.parse().expect("a TCP server")
    }

    pub fn opened(&self) -> usize {
        self.journal().connections.len()
    }

    pub fn open(&self) -> usize {
        self.journal().connections.iter().filter(|connection| connection.socket.is_some()).count()
    }

    /// Every byte received, connection by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let records: Vec<Record> = self.journal().connections.iter().map(|c| c.received.clone()).collect();
        records.iter().map(|record| record.lock().expect("the record").clone()).collect()
    }

    pub fn bytes_received(&self) -> usize {
        self.received().iter().map(Vec::len).sum()
    }

    /// The whole requests, in the order in which they became whole.
    pub fn requests(&self) -> Vec<Request> {
        self.journal().requests.clone()
    }

    pub fn request_count(&self) -> usize {
        self.journal().requests.len()
    }

    /// What was wrong with bytes received; empty after orderly traffic.
    pub fn faults(&self) -> Vec<String> {
        self.journal().faults.clone()
    }

    /// The newest request once there are `count`.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Request {
        until(&format!("request number {count} at the server"), PATIENCE, || {
            let journal = self.journal();
            (journal.requests.len() >= count).then(|| journal.requests.last().cloned()).flatten()
        })
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes accept(); fails only where the listener is gone already.
        let _ = self.listener.shutdown(std::net::Shutdown::Both);
        for socket in self.journal().connections.iter().filter_map(|connection| connection.socket.as_ref()) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl fmt::Debug for ScriptedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The server's side of one connection: what a script acts with.
#[derive(Debug)]
pub struct ServerSide {
    wire: Option<Wire>,
    journal: Shared,
    index: usize,
}

impl ServerSide {
    fn new(socket: Socket, journal: Shared) -> Self {
        // A unix socket has no Nagle to switch off.
        let _ = socket.set_tcp_nodelay(true);
        let record = Record::default();
        let copy = socket.try_clone().expect("a second handle");
        let index = {
            let mut all = lock(&journal);
            all.connections.push(Connection { received: record.clone(), socket: Some(copy) });
            all.connections.len() - 1
        };
        Self { wire: Some(Wire::new(socket, IDLE).recording(record)), journal, index }
    }

    /// Which of the server's connections this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The next whole request; none once the device has closed, or after a request that is no HTTP (see
    /// [`ScriptedServer::faults`]).
    pub fn request(&mut self) -> Option<Request> {
        let mut request = self.request_head()?;
        self.content_of(&mut request)?;
        lock(&self.journal).requests.push(request.clone());
        Some(request)
    }

    /// The next request's head alone; it counts as no whole request.
    pub fn request_head(&mut self) -> Option<Request> {
        let index = self.index;
        let outcome = self.wire.as_mut()?.head().and_then(|bytes| parse_request(&bytes, index));
        self.noting(outcome)
    }

    fn content_of(&mut self, request: &mut Request) -> Option<()> {
        let Request { fields, content, .. } = request;
        let mut sink = |part: &[u8]| content.extend_from_slice(part);
        let wire = self.wire.as_mut()?;
        let outcome = match (fields.only("transfer-encoding"), fields.only("content-length")) {
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => wire.chunked(&mut sink),
            (None, Some(length)) => match length.parse() {
                Ok(length) => wire.exactly(length, &mut sink).map(|()| Fields::default()),
                Err(_) => Err(WireError::Malformed(format!("length `{length}`"))),
            },
            (None, None) if !fields.has("transfer-encoding") && !fields.has("content-length") => Ok(Fields::default()),
            _ => Err(WireError::Malformed(format!("framing {fields:?}"))),
        };
        request.trailers = self.noting(outcome)?;
        Some(())
    }

    /// Sends `bytes`; `false` once the device is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.as_mut().is_some_and(|wire| wire.send(bytes.as_ref()).is_ok())
    }

    /// Ends the connection in order.
    pub fn close(&mut self) {
        self.wire = None;
        self.note_closed();
    }

    /// Ends the connection by a reset.
    pub fn reset(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset();
        }
        self.note_closed();
    }

    /// Sends no more, and waits until the device has closed too.
    pub fn finish_sending(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _ = wire.finish_sending();
            let _ = wire.to_end(&mut |_| ());
        }
        self.close();
    }

    /// Reads, and drops, until the device closes.
    pub fn wait_closed(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _ = wire.to_end(&mut |_| ());
        }
        self.close();
    }

    /// The connection itself, for what a script has no word for.
    pub fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("the script has not closed it")
    }

    /// Takes the connection away from the script's words: the socket and what was read ahead.
    pub fn into_parts(&mut self) -> (Socket, Vec<u8>) {
        self.wire.take().expect("the script has not closed it").into_parts()
    }

    fn noting<T>(&self, outcome: Result<T, WireError>) -> Option<T> {
        outcome
            .map_err(|error| {
                if !matches!(error, WireError::Closed) {
                    lock(&self.journal).faults.push(format!("connection {}: {error}", self.index));
                }
            })
            .ok()
    }

    fn note_closed(&self) {
        if let Some(connection) = lock(&self.journal).connections.get_mut(self.index) {
            connection.socket = None;
        }
    }
}

impl Drop for ServerSide {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(journal: &Shared) -> MutexGuard<'_, Journal> {
    journal.lock().expect("the journal")
}

fn parse_request(head: &[u8], connection: usize) -> Result<Request, WireError> {
    let (line, fields) = parse_head(head)?;
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err(WireError::Malformed(format!("request line `{line}`")));
    };
    if fields.all("host").len() > 1 {
        return Err(WireError::Malformed("more than one Host".into()));
    }
    Ok(Request {
        method: (*method).into(),
        target: (*target).into(),
        version: (*version).into(),
        fields,
        content: Vec::new(),
        trailers: Fields::default(),
        connection,
        arrived: Instant::now(),
    })
}
