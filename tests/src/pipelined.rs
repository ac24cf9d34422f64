//! Requests of different clients behind one another on one server connection: a device, its clients and servers that
//! show it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::request;
use crate::deadline::{PATIENCE, until_true};
use crate::origin::faulty::with_length;
use crate::{Client, Device, Request, ScriptedServer, ServerSide, Setup};

/// How many requests went out behind another one.
pub const PIPELINED: &str = "/server_connections/pipelined_total";

/// One worker, so that all clients are on the same.
pub fn device(server: &ScriptedServer, lines: &str) -> Device {
    Setup::before(&[server.address()]).workers(1).upstream("server_pipeline = 8").upstream(lines).start()
}

/// Clients that are there already; the server has one idle connection.
pub fn clients(device: &Device, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| device.client()).collect();
    clients.iter_mut().for_each(|client| client.get("/before").assert_whole(b"/before"));
    clients
}

/// Sends one request of each client so that the device finds all of them at once, in this order.
pub fn at_once(device: &Device, clients: &mut [Client], requests: &[(&str, &str)]) {
    device.paused(|| {
        for (client, (method, target)) in clients.iter_mut().zip(requests) {
            client.send(request(method, target, "", b""));
        }
    });
}

/// `GET /0`, `GET /1` ….
pub fn gets(device: &Device, clients: &mut [Client]) {
    let targets: Vec<String> = (0..clients.len()).map(|number| format!("/{number}")).collect();
    let requests: Vec<(&str, &str)> = targets.iter().map(|target| ("GET", target.as_str())).collect();
    at_once(device, clients, &requests);
}

/// Client n sent `GET /n`.
#[track_caller]
pub fn assert_each_its_own(clients: &mut [Client]) {
    assert_its_own_from(0, clients);
}

/// `clients` begin with the one that sent `GET /FIRST`.
#[track_caller]
pub fn assert_its_own_from(first: usize, clients: &mut [Client]) {
    for (client, number) in clients.iter_mut().zip(first..) {
        client.reply().assert_whole(format!("/{number}").as_bytes());
    }
}

/// A content in which bytes that are missing or in a wrong place show.
pub fn bytes(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) + at / 251) as u8).collect()
}

/// A reply that tells its request.
pub fn own(request: &Request) -> Vec<u8> {
    with_length(request.target.as_bytes())
}

/// Answers every request with [`own`] and keeps the connection.
pub fn answers(side: &mut ServerSide) {
    while let Some(request) = side.request() {
        if !side.send(own(&request)) {
            return;
        }
    }
}

/// Answers what comes before the requests that a test is about; the first of those.
pub fn first(side: &mut ServerSide) -> Option<Request> {
    loop {
        let request = side.request()?;
        if request.target != "/before" {
            return Some(request);
        }
        side.send(own(&request));
    }
}

/// On the connection that had the requests before: all `count` requests, before one of them is answered. On others, which
/// get what is sent again, answers all.
pub fn batch(side: &mut ServerSide, count: usize) -> Option<Vec<Request>> {
    if side.index() > 0 {
        answers(side);
        return None;
    }
    let mut requests = vec![first(side)?];
    while requests.len() < count {
        requests.push(side.request()?);
    }
    Some(requests)
}

/// Answers a [`batch`] all at once when the gate opens. `false`: there was none.
pub fn answer_batch(side: &mut ServerSide, count: usize, gate: &Gate) -> bool {
    let Some(requests) = batch(side, count) else { return false };
    gate.wait();
    side.send(requests.iter().flat_map(own).collect::<Vec<u8>>())
}

/// How often each target came to the server.
pub fn times_asked(server: &ScriptedServer) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for request in server.requests() {
        *times.entry(request.target).or_default() += 1;
    }
    times
}

/// Holds a server's replies back until the test says so.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Lets the server answer.
    pub fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// In the server: until the test opens it.
    pub fn wait(&self) {
        until_true("the gate opens", PATIENCE, || self.0.load(Ordering::Relaxed));
    }
}
