//! `bench idle`: what a client's kept connection costs in memory while nothing is asked on it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::Run;
use super::contender::Contender;
use super::meter::settled_kib;
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::proxy::{Proxy, most_clients};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;

const WANTED: usize = 10_000;
/// Connections are opened by so many threads, as by many clients.
const OPENERS: usize = 8;
/// Asked before the count begins, so that what the first requests cost once is not counted.
const FIRST: usize = 64;
/// Every proxy has this time to notice that nothing happens.
const IDLING: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_secs(10);
/// Each round has new processes: memory that was once taken is not given back.
const ROUNDS: usize = 3;

/// The name that the report's targets look for.
pub(crate) const EACH: &str = "memory per idle connection";

/// How often it is measured: what differs between rounds is little, and each takes its time.
pub(crate) fn rounds(run: &Run) -> usize {
    run.rounds_up_to(ROUNDS)
}

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::make();
    let count = WANTED.min(most_clients(run.descriptors));
    let mut origin = Origin::start(run, &network)?;
    let servers = [origin.address];
    let setup = run.setup(&network, &servers);
    let metrics =
        vec![Metric::new(EACH, "KiB", Better::Lower), Metric::new("memory with all of them", "MiB", Better::Lower)];
    let about = format!(
        "{count} client connections, each of which has had one reply of 1 KB and has been idle for {} s (limit of descriptors: {}). \
         Memory is the proxy processes' resident memory; each round starts new ones.",
        IDLING.as_secs(),
        run.descriptors
    );
    let mut results = Results::new("idle", about, network.shown(), metrics);
    let contenders = Contender::PROXIES.map(|contender| (contender, Ok(()))).into();
    in_turn(run, rounds(run), &mut results, contenders, |contender, ()| {
        origin.check()?;
        let mut proxy = Proxy::start(contender, &setup)?;
        let sample = measure(&network, &proxy, count);
        proxy.check()?;
        sample
    })?;
    Ok(results)
}

fn measure(network: &Network, proxy: &Proxy, count: usize) -> Result<Sample> {
    drop(open(network, proxy.address, FIRST)?);
    let pids = proxy.pids();
    let before = settled_kib(&pids);
    let connections = open(network, proxy.address, count)?;
    thread::sleep(IDLING);
    let after = settled_kib(&pids);
    let mut alive = 0_usize;
    for connection in &connections {
        connection.set_nonblocking(true)?;
        // Nothing to read and no end: still there.
        let peeked = connection.peek(&mut [0]);
        alive += usize::from(peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    if alive < count {
        bail!("only {alive} of {count} connections were kept");
    }
    let connections = f64::from(u32::try_from(count)?);
    Ok(vec![Some((after - before) / connections), Some(after / 1024.0)])
}

/// Opens `count` connections and has one reply on each.
fn open(network: &Network, address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let share = |opener: usize| count / OPENERS + usize::from(opener < count % OPENERS);
    network.within(Side::Client, || {
        thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS)
                .map(|opener| {
                    scope.spawn(move || (0..share(opener)).map(|_| asked(address)).collect::<Result<Vec<_>>>())
                })
                .collect();
            let mut all = Vec::with_capacity(count);
            for opener in openers {
                all.extend(opener.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            Ok(all)
        })
    })?
}

fn asked(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (target, length) = origin::SMALL;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut reply = [0; 8192];
    let mut filled = 0;
    loop {
        let free = reply.get_mut(filled..).filter(|free| !free.is_empty()).context("a reply that does not end")?;
        match stream.read(free).context("reading a reply")? {
            0 => bail!("a connection ended in its first reply"),
            read => filled += read,
        }
        let so_far = reply.get(..filled).unwrap_or_default();
        let head = so_far.windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| filled >= head + 4 + length) {
            return Ok(stream);
        }
    }
}
