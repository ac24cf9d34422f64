//! `bench small`, `medium`, `bulk`, `dynamic` and `connect`: wrk on one page, through each contender in turn.

use anyhow::Result;

use super::Run;
use super::meter::{Reading, resident_kib};
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::proxy::{Contender, Proxy};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;
use super::wrk::{Load, Outcome};
use super::{reconnecting, wrk};

/// Fills pools and caches before the first round.
const WARM_UP_SECONDS: u64 = 1;
const MICRO: f64 = 1_000_000.0;

/// One of these benchmarks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    name: &'static str,
    about: &'static str,
    page: (&'static str, usize),
    connections: usize,
    header: Option<&'static str>,
    generator: Generator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generator {
    Wrk,
    Reconnecting,
}

pub(crate) const SMALL: Work = Work {
    name: "small",
    about: "Pages of 1 KB over 64 client connections that are kept.",
    page: origin::SMALL,
    connections: 64,
    header: None,
    generator: Generator::Wrk,
};
pub(crate) const MEDIUM: Work = Work {
    name: "medium",
    about: "Pages of 100 KB over 64 client connections that are kept.",
    page: origin::MEDIUM,
    ..SMALL
};
pub(crate) const BULK: Work = Work {
    name: "bulk",
    about: "Pages of 10 MB over 16 client connections that are kept.",
    page: origin::BULK,
    connections: 16,
    ..SMALL
};
pub(crate) const DYNAMIC: Work = Work {
    name: "dynamic",
    about: "Pages of 8 KB without a length over 64 client connections; the server closes after each.",
    page: origin::DYNAMIC,
    generator: Generator::Reconnecting,
    ..SMALL
};
pub(crate) const CONNECT: Work = Work {
    name: "connect",
    about: "Pages of 1 KB, a new client connection for each, 64 at a time.",
    header: Some("Connection: close"),
    ..SMALL
};

pub(crate) fn run(run: &Run, work: &Work) -> Result<Results> {
    let network = Network::make();
    let mut origin = Origin::start(run, &network)?;
    let servers = [origin.address];
    let setup = run.setup(&network, &servers);
    let about = format!(
        "{} Load from {}, {} s each round; the origin is nginx. CPU is all of the machine's per request, whoever used it, \
         and the proxy processes' own; what other programs took is told, too.",
        work.about,
        if work.generator == Generator::Wrk { "wrk" } else { "a generator of our own, a thread per connection" },
        run.seconds
    );
    let mut results = Results::new(work.name, about, network.shown(), metrics());
    let mut contenders = Vec::new();
    for contender in Contender::ALL {
        run.check_interrupt()?;
        let started = Proxy::start(contender, &setup).and_then(|proxy| {
            network.within(Side::Client, || origin::verify(proxy.address, work.page))??;
            work.generate(run, &network, &proxy, WARM_UP_SECONDS)?;
            Ok(proxy)
        });
        contenders.push((contender, started));
    }
    in_turn(run, run.rounds, &mut results, contenders, |_, proxy| {
        origin.check()?;
        let sample = measure(run, &network, work, proxy, &origin.pids());
        // An end of the proxy explains its errors better than wrk does.
        proxy.check()?;
        sample
    })?;
    Ok(results)
}

impl Work {
    /// The outcome, and the client connections it took where that is more than one for each client.
    fn generate(&self, run: &Run, network: &Network, proxy: &Proxy, seconds: u64) -> Result<(Outcome, Option<f64>)> {
        let &Self { page: (target, _), connections, header, .. } = self;
        let load = Load { address: proxy.address, target, connections, header, seconds };
        match self.generator {
            Generator::Wrk => wrk::load(run, network, &load).map(|outcome| (outcome, None)),
            Generator::Reconnecting => {
                reconnecting::load(run, network, &load).map(|(outcome, connections)| (outcome, Some(connections)))
            }
        }
    }
}

fn metrics() -> Vec<Metric> {
    vec![
        Metric::new("rate", "requests/s", Better::Higher),
        Metric::new("p50", "ms", Better::Lower),
        Metric::new("p99", "ms", Better::Lower),
        Metric::new("machine's CPU per request", "µs", Better::Lower),
        Metric::new("proxy's CPU per request", "µs", Better::Lower),
        Metric::new("proxy's memory", "MiB", Better::Lower),
        Metric::new("client connections per request", "", Better::Neither),
        Metric::new("failed connections", "", Better::Neither),
        Metric::new("CPU that other programs took", "% of the machine", Better::Neither),
    ]
}

fn measure(run: &Run, network: &Network, work: &Work, proxy: &Proxy, origin: &[u32]) -> Result<Sample> {
    let pids = proxy.pids();
    let before = Reading::take(&pids, origin)?;
    let (outcome, connections) = work.generate(run, network, proxy, run.seconds)?;
    let after = Reading::take(&pids, origin)?;
    let own = |value: f64| (!pids.is_empty()).then_some(value);
    Ok(vec![
        Some(outcome.rate),
        Some(outcome.p50_ms),
        Some(outcome.p99_ms),
        Some(after.machine_since(&before) * MICRO / outcome.requests),
        own(after.proxy_since(&before) * MICRO / outcome.requests),
        own(resident_kib(&pids) / 1024.0),
        connections.map(|connections| connections / outcome.requests),
        Some(outcome.socket_errors),
        Some(after.others_since(&before) * 100.0),
    ])
}
