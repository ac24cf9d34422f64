//! `bench many`: 10,000 clients that ask seldom. How many server connections they need, and how long they wait.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Run;
use super::contender::Contender;
use super::meter::{self, Reading, resident_kib};
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::paced::{Clients, Pace, Speech};
use super::proxy::{Proxy, Settings, most_clients};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;

pub(crate) const CLIENTS: usize = 10_000;
/// Requests a second of all of them: each asks every 2.5 s, and no proxy is at its limit.
const RATE: f64 = 4000.0;
const WORKERS: usize = 2;
const WARM_UP_SECONDS: u64 = 1;
/// The table that is read is as long as there are server connections.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The names that the report's targets look for.
pub(crate) const P99: &str = "p99";
pub(crate) const HELD: &str = "server connections, the most";

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::make();
    let mut origin = Origin::start(run, &network)?;
    let servers = [origin.address];
    let mut setup = run.setup(&network, &servers);
    setup.settings = Settings { workers: WORKERS, ..setup.settings };
    let mut metrics = vec![
        Metric::new(P99, "ms", Better::Lower),
        Metric::new("p50", "ms", Better::Lower),
        Metric::new(HELD, "", Better::Lower),
        Metric::new("rate", "requests/s", Better::Neither),
    ];
    metrics.extend(meter::metrics());
    metrics.push(Metric::new("proxy's memory", "MiB", Better::Lower));
    let count = clients(run);
    let about = format!(
        "{count} client connections, all open, ask for pages of 1 KB in turn, {RATE:.0} requests a second in all; \
         {WORKERS} workers. A time counts from the moment at which the request was due."
    );
    let mut results = Results::new("many", about, network.shown(), metrics);
    let contenders = Contender::PROXIES.map(|contender| (contender, Ok(()))).into();
    in_turn(run, run.rounds, &mut results, contenders, |contender, ()| {
        origin.check()?;
        // A new one each round: the server connections are all its own.
        let mut proxy = Proxy::start(contender, &setup)?;
        let sample = measure(run, &network, &proxy, count, &origin);
        proxy.check()?;
        sample
    })?;
    Ok(results)
}

/// As many as the descriptors allow.
pub(crate) fn clients(run: &Run) -> usize {
    CLIENTS.min(most_clients(run.descriptors))
}

fn measure(run: &Run, network: &Network, proxy: &Proxy, count: usize, origin: &Origin) -> Result<Sample> {
    network.within(Side::Client, || origin::verify(proxy.address, origin::SMALL))??;
    let (target, _) = origin::SMALL;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address);
    let mut clients = Clients::open(run, network, proxy.address, count, &Speech::Page { request })?;
    clients.ask(run, Pace::Rate(RATE), WARM_UP_SECONDS)?;
    let (pids, server) = (proxy.pids(), origin.address);
    let before = Reading::take(&pids, &origin.pids())?;
    let end = AtomicBool::new(false);
    let (outcome, held) = thread::scope(|scope| {
        let held = scope.spawn(|| network.within(Side::Server, || most_held(server, &end)));
        let outcome = clients.ask(run, Pace::Rate(RATE), run.seconds);
        end.store(true, Ordering::Relaxed);
        Ok::<_, anyhow::Error>((outcome?, held.join().map_err(|_| anyhow!("a thread panicked"))??))
    })?;
    let used = Reading::take(&pids, &origin.pids())?.since(&before);
    let mut sample = vec![Some(outcome.p99_ms), Some(outcome.p50_ms), held, Some(outcome.rate)];
    sample.extend(used.row(outcome.replies, false));
    sample.push(Some(resident_kib(&pids) / 1024.0));
    Ok(sample)
}

/// The most server connections at any look until told to end.
fn most_held(server: SocketAddr, end: &AtomicBool) -> Option<f64> {
    let mut most = None;
    while !end.load(Ordering::Relaxed) {
        most = [most, origin::connections_of(server)].into_iter().flatten().reduce(f64::max);
        thread::sleep(LOOK_EVERY);
    }
    most
}
