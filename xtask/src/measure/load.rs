//! `bench small`, `medium`, `bulk`, `dynamic` and `connect`: wrk on one page, through each contender in turn.

use anyhow::Result;

use super::Run;
use super::contender::Contender;
use super::meter::{Reading, resident_kib};
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::proxy::Proxy;
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;
use super::wrk::{Load, Outcome};
use super::{meter, reconnecting, wrk};

/// Fills pools and caches before the first round.
const WARM_UP_SECONDS: u64 = 1;

const MB: f64 = 1_048_576.0;
/// From here on a head is nothing beside the content.
const LARGE: usize = 1024 * 1024;

/// The names that the report's targets look for.
pub(crate) const RATE: &str = "rate";
pub(crate) const P99: &str = "p99";
pub(crate) const CONNECTIONS: &str = "connections of each client";

/// One of these benchmarks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    name: &'static str,
    about: &'static str,
    page: (&'static str, usize),
    connections: usize,
    header: Option<&'static str>,
    generator: Generator,
    contenders: &'static [Contender],
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Apart,
    OneHost,
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
    contenders: &[
        Contender::Direct,
        Contender::Cmim,
        Contender::CmimPipelined,
        Contender::Haproxy,
        Contender::HaproxyForwarded,
        Contender::Nginx,
    ],
    place: Place::Apart,
};
pub(crate) const LOCAL: Work = Work {
    name: "local",
    about: "Pages of 1 KB over 64 client connections that are kept; the server is on the device's host.",
    contenders: &[Contender::Direct, Contender::Cmim, Contender::CmimNoBypass, Contender::Haproxy, Contender::Nginx],
    place: Place::OneHost,
    ..SMALL
};
pub(crate) const MEDIUM: Work = Work {
    name: "medium",
    about: "Pages of 100 KB over 64 client connections that are kept.",
    page: origin::MEDIUM,
    contenders: &Contender::ALL,
    ..SMALL
};
pub(crate) const BULK: Work = Work {
    name: "bulk",
    about: "Pages of 10 MB over 16 client connections that are kept.",
    page: origin::BULK,
    connections: 16,
    contenders: &Contender::ALL,
    ..SMALL
};
pub(crate) const DYNAMIC: Work = Work {
    name: "dynamic",
    about: "Pages of 8 KB without a length over 64 client connections; the server closes after each.",
    page: origin::DYNAMIC,
    generator: Generator::Reconnecting,
    contenders: &Contender::ALL,
    ..SMALL
};
pub(crate) const CONNECT: Work = Work {
    name: "connect",
    about: "Pages of 1 KB, a new client connection for each, 64 at a time.",
    header: Some("Connection: close"),
    contenders: &Contender::ALL,
    ..SMALL
};

pub(crate) fn run(run: &Run, work: &Work) -> Result<Results> {
    let network = match work.place {
        Place::Apart => Network::make(),
        Place::OneHost => Network::together(),
    };
    let mut origin = Origin::start(run, &network)?;
    let servers = [origin.address];
    let setup = run.setup(&network, &servers);
    let about = format!(
        "{} Load from {}, {} s each round; the origin is nginx. CPU is all of the machine's per request, whoever used it, \
         and its parts; what other programs took is told, too, and not counted.",
        work.about,
        if work.generator == Generator::Wrk { "wrk" } else { "a generator of our own, a thread per connection" },
        run.seconds
    );
    let mut results = Results::new(work.name, about, network.shown(), metrics());
    let mut contenders = Vec::new();
    for contender in work.contenders {
        run.check_interrupt()?;
        let started = Proxy::start(*contender, &setup).and_then(|proxy| {
            network.within(Side::Client, || origin::verify(proxy.address, work.page))??;
            work.generate(run, &network, &proxy, WARM_UP_SECONDS)?;
            Ok(proxy)
        });
        contenders.push((*contender, started));
    }
    let mut bypassed = None;
    in_turn(run, run.rounds, &mut results, contenders, |contender, proxy| {
        origin.check()?;
        let sample = measure(run, &network, work, proxy, &origin.pids());
        // An end of the proxy explains its errors better than wrk does.
        proxy.check()?;
        if let (Contender::Cmim, Some(control)) = (contender, &proxy.control) {
            bypassed = control.local_splices().ok();
        }
        sample
    })?;
    if work.place == Place::OneHost && bypassed == Some(0) {
        results.notes.push("cmim's lane `local` was not used: this build or kernel is without it.".to_owned());
    }
    Ok(results)
}

impl Work {
    /// How many replies the bytes are that were read: of large ones some are not whole at the end.
    fn worth(&self, outcome: &Outcome) -> f64 {
        let (_, length) = self.page;
        match outcome.megabytes {
            Some(megabytes) if length >= LARGE => megabytes / (f64::from(u32::try_from(length).unwrap_or(1)) / MB),
            _ => outcome.requests,
        }
    }

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
    let mut metrics = vec![
        Metric::new(RATE, "requests/s", Better::Higher),
        Metric::new("p50", "ms", Better::Lower),
        Metric::new(P99, "ms", Better::Lower),
    ];
    metrics.extend(meter::metrics());
    metrics.push(Metric::new("proxy's memory", "MiB", Better::Lower));
    metrics.push(Metric::new(CONNECTIONS, "", Better::Neither));
    metrics
}

fn measure(run: &Run, network: &Network, work: &Work, proxy: &Proxy, origin: &[u32]) -> Result<Sample> {
    let pids = proxy.pids();
    let before = Reading::take(&pids, origin)?;
    let (outcome, connections) = work.generate(run, network, proxy, run.seconds)?;
    let used = Reading::take(&pids, origin)?.since(&before);
    let clients = f64::from(u32::try_from(work.connections)?);
    let mut sample = vec![Some(outcome.rate), Some(outcome.p50_ms), Some(outcome.p99_ms)];
    sample.extend(used.row(work.worth(&outcome), pids.is_empty()));
    sample.push((!pids.is_empty()).then(|| resident_kib(&pids) / 1024.0));
    sample.push(connections.map(|connections| connections / clients));
    Ok(sample)
}
