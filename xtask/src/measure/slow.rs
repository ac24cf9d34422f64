//! `bench slow`: whether clients that read slowly are felt by those beside them, and how many server connections they
//! hold.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::Run;
use super::contender::Contender;
use super::meter::Reading;
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::proxy::Proxy;
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;
use super::wrk::{Load, Outcome, load};

const SLOW: usize = 500;
const FAST: usize = 32;
/// What a slow reader takes at a time, and how often: 20 KB/s.
const SIP: usize = 2048;
const PAUSE: Duration = Duration::from_millis(100);
/// They do not do so all at the same moment, as no crowd of clients does: in so many groups, one after the other.
const GROUPS: usize = 20;
/// A small window, so that the rest of the reply waits in the proxy and not in our kernel.
const WINDOW: usize = 8192;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the fast ones are looked at while the slow ones begin.
const BEGIN_SECONDS: u64 = 2;
/// The slow ones have begun, at least; then a proxy has taken what it can take from the server once it uses little CPU.
const SETTLING: Duration = Duration::from_secs(1);
const SETTLED_AT_LAST: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// In parts of one CPU; feeding all slow readers takes less.
const SETTLED_SHARE: f64 = 0.3;

/// The name that the report's targets look for.
pub(crate) const GROWTH: &str = "p99, growth";

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::make();
    let mut origin = Origin::start(run, &network)?;
    let servers = [origin.address];
    let setup = run.setup(&network, &servers);
    let metrics = vec![
        Metric::new("p99 beside slow readers", "ms", Better::Lower),
        Metric::new("p99 without them", "ms", Better::Lower),
        Metric::new(GROWTH, "times", Better::Lower),
        Metric::new("p99 while they begin", "ms", Better::Lower),
        Metric::new("rate beside slow readers", "requests/s", Better::Higher),
        Metric::new("rate without them", "requests/s", Better::Higher),
        Metric::new("server connections beside slow readers", "", Better::Lower),
    ];
    let about = format!(
        "{FAST} clients of 1 KB pages: alone, then while {SLOW} others begin to read a page of 1 MB without a length at \
         20 KB/s each, then beside them once the proxy has taken from the server what it takes ahead. Server connections \
         are counted then."
    );
    let mut results = Results::new("slow", about, network.shown(), metrics);
    let mut contenders = Vec::new();
    for contender in Contender::ALL {
        let started = Proxy::start(contender, &setup).and_then(|proxy| {
            network.within(Side::Client, || origin::verify(proxy.address, origin::DYNAMIC_LARGE))??;
            fast(run, &network, proxy.address, 1)?;
            Ok(proxy)
        });
        contenders.push((contender, started));
    }
    in_turn(run, run.rounds, &mut results, contenders, |_, proxy| {
        origin.check()?;
        let sample = measure(run, &network, proxy, servers[0]);
        proxy.check()?;
        sample
    })?;
    Ok(results)
}

fn measure(run: &Run, network: &Network, proxy: &Proxy, server: SocketAddr) -> Result<Sample> {
    let (address, pids) = (proxy.address, proxy.pids());
    let alone = fast(run, network, address, run.seconds)?;
    let end = AtomicBool::new(false);
    let (begin, beside, held) = thread::scope(|scope| {
        let slow = scope.spawn(|| network.within(Side::Client, || read_slowly(address, &end)));
        let measured = (|| {
            let begin = fast(run, network, address, BEGIN_SECONDS).context("while the slow readers begin")?;
            settle(run, &pids)?;
            let held = network.within(Side::Device, || origin::connections_to(server, &pids))?;
            let beside = fast(run, network, address, run.seconds).context("beside the slow readers")?;
            Ok::<_, anyhow::Error>((begin, beside, held))
        })();
        end.store(true, Ordering::Relaxed);
        slow.join().map_err(|_| anyhow!("the slow readers panicked"))???;
        measured
    })?;
    Ok(vec![
        Some(beside.p99_ms),
        Some(alone.p99_ms),
        Some(beside.p99_ms / alone.p99_ms),
        Some(begin.p99_ms),
        Some(beside.rate),
        Some(alone.rate),
        held.filter(|_| !pids.is_empty()),
    ])
}

/// Waits until the proxy does little; one that does not come to rest is measured as it is.
fn settle(run: &Run, pids: &[u32]) -> Result<()> {
    thread::sleep(SETTLING);
    let deadline = Instant::now() + SETTLED_AT_LAST;
    let mut last = Reading::take(pids, &[])?;
    while Instant::now() < deadline {
        run.check_interrupt()?;
        thread::sleep(LOOK_EVERY);
        let now = Reading::take(pids, &[])?;
        if now.since(&last).proxy < SETTLED_SHARE * LOOK_EVERY.as_secs_f64() {
            break;
        }
        last = now;
    }
    Ok(())
}

fn fast(run: &Run, network: &Network, address: SocketAddr, seconds: u64) -> Result<Outcome> {
    let (target, _) = origin::SMALL;
    load(run, network, &Load { address, target, connections: FAST, header: None, seconds })
}

/// Reads many replies at a time, a little of each now and then, until told to end.
fn read_slowly(address: SocketAddr, end: &AtomicBool) -> Result<()> {
    let mut readers = Vec::with_capacity(SLOW);
    while readers.len() < SLOW && !end.load(Ordering::Relaxed) {
        readers.push(ask(address).context("a slow reader")?);
    }
    let mut sip = [0; SIP];
    while !end.load(Ordering::Relaxed) {
        for group in readers.chunks_mut(SLOW / GROUPS) {
            let next = Instant::now() + PAUSE / GROUPS as u32;
            for reader in group {
                // Nothing there yet is all right. One that has read all asks again.
                if matches!(reader.read(&mut sip), Ok(0)) {
                    *reader = ask(address).context("a slow reader")?;
                }
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}

fn ask(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    set_socket_recv_buffer_size(&stream, WINDOW)?;
    let (target, _) = origin::DYNAMIC_LARGE;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
