//! Traffic beside a test: clients that ask one request after the other and miss none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::client::{Client, Reply, request};
use crate::deadline::{PATIENCE, until_true};

/// Clients under way, until [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub replies: u64,
    /// Connections that ended behind a reply that said so.
    pub closed: u64,
    /// Requests without a whole 200.
    pub failures: Vec<String>,
}

impl Load {
    /// This many clients, each on a connection of its own that it keeps as long as the device does.
    pub fn on(address: SocketAddr, clients: usize) -> Self {
        let (stop, replies) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
            thread::spawn(move || ask_on(address, &stop, &replies))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, replies, clients }
    }

    /// Waits until this many further requests were answered.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        let aim = self.replies.load(Ordering::Relaxed) + count;
        until_true("the load goes on", PATIENCE, || self.replies.load(Ordering::Relaxed) >= aim);
    }

    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let Tally { replies, closed, failures } = client.join().expect("a client's thread");
            all.replies += replies;
            all.closed += closed;
            all.failures.extend(failures);
        }
        all
    }

    /// Stops, and panics if a single request failed.
    #[track_caller]
    pub fn assert_no_failure(self) -> Tally {
        let tally = self.stop();
        assert!(
            tally.failures.is_empty(),
            "{} of {} failed: {:?}",
            tally.failures.len(),
            tally.replies,
            tally.failures
        );
        tally
    }
}

fn ask_on(address: SocketAddr, stop: &AtomicBool, replies: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    let mut connection: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = match connection.take() {
            Some(client) => Ok(client),
            None => Client::try_connect(address).map_err(|error| format!("connecting: {error}")),
        }
        .and_then(ask);
        match asked {
            Ok((client, reply)) => {
                tally.replies += 1;
                replies.fetch_add(1, Ordering::Relaxed);
                if reply.status() != 200 {
                    tally.failures.push(format!("{}: {}", reply.status(), reply.text()));
                }
                if reply.fields().joined("connection").eq_ignore_ascii_case("close") {
                    tally.closed += 1;
                } else {
                    connection = Some(client);
                }
            }
            Err(failure) => tally.failures.push(failure),
        }
    }
    tally
}

fn ask(mut client: Client) -> Result<(Client, Reply), String> {
    client.wire().send(&request("GET", "/", "", b"")).map_err(|error| format!("sending: {error}"))?;
    let reply = client.try_reply("GET").map_err(|error| format!("no reply: {error}"))?;
    Ok((client, reply))
}
