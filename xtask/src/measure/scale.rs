//! `bench scale`: what a request costs a proxy with one worker and two, and with 64 clients and 10,000.
//!
//! Load generator, proxy and origin share the machine's CPUs, so that requests a second tell little of a worker. What
//! they cost the proxy does: its requests for each second of CPU that it has used.

use anyhow::Result;

use super::Run;
use super::contender::Contender;
use super::many;
use super::meter::Reading;
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::paced::{Clients, Pace, Speech};
use super::proxy::{Proxy, Settings};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;

const FEW: usize = 64;
const MOST_SECONDS: u64 = 2;

/// The names that the report's targets look for.
pub(crate) const BY_WORKERS: &str = "2 workers by 1";
pub(crate) const BY_CLIENTS: &str = "many clients by 64";

/// One proxy, and how many clients it is to have.
#[derive(Debug)]
struct Variant {
    proxy: Proxy,
    clients: usize,
}

/// There are three measurements of each proxy in a round.
fn seconds(run: &Run) -> u64 {
    run.seconds.min(MOST_SECONDS)
}

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::make();
    let mut origin = Origin::start(run, &network)?;
    let many = many::clients(run);
    let variants = [(1, FEW), (2, FEW), (2, many)];
    let mut metrics = vec![
        Metric::new(BY_WORKERS, "requests per CPU second", Better::Higher),
        Metric::new(BY_CLIENTS, "requests per CPU second", Better::Higher),
    ];
    for (workers, clients) in variants {
        let title = |what: &str| format!("{workers} workers, {clients} clients: {what}");
        metrics.push(Metric::new(title("requests per CPU second of the proxy"), "", Better::Higher));
        metrics.push(Metric::new(title("rate"), "requests/s", Better::Higher));
        metrics.push(Metric::new(title("p99"), "ms", Better::Lower));
    }
    let about = format!(
        "Pages of 1 KB; {FEW} requests at a time, by {FEW} clients and by {many} in turn, {} s each round, from a \
         generator of our own. The first two lines are ratios of what follows: 1 is a proxy that does not notice.",
        seconds(run)
    );
    let mut results = Results::new("scale", about, network.shown(), metrics);
    let servers = [origin.address];
    let setup = run.setup(&network, &servers);
    let mut contenders = Vec::new();
    for contender in Contender::PROXIES {
        let started = variants.into_iter().map(|(workers, clients)| {
            let settings = Settings { workers, ..setup.settings };
            let proxy = Proxy::start(contender, &super::Setup { settings, ..setup })?;
            network.within(Side::Client, || origin::verify(proxy.address, origin::SMALL))??;
            Ok(Variant { proxy, clients })
        });
        contenders.push((contender, started.collect::<Result<Vec<Variant>>>()));
    }
    in_turn(run, run.rounds, &mut results, contenders, |_, variants| {
        origin.check()?;
        measure(run, &network, variants, &origin)
    })?;
    Ok(results)
}

fn measure(run: &Run, network: &Network, variants: &mut [Variant], origin: &Origin) -> Result<Sample> {
    let mut each = Vec::new();
    let mut rows = Vec::new();
    for Variant { proxy, clients } in variants {
        let (target, _) = origin::SMALL;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address);
        // Those of the last variant are gone: a process has not the descriptors for all. Pools fill in the first second.
        let mut clients = Clients::open(run, network, proxy.address, *clients, &Speech::Page { request })?;
        clients.ask(run, Pace::Waiting(FEW), 1)?;
        let pids = proxy.pids();
        let before = Reading::take(&pids, &origin.pids())?;
        let outcome = clients.ask(run, Pace::Waiting(FEW), seconds(run));
        proxy.check()?;
        let outcome = outcome?;
        let used = Reading::take(&pids, &origin.pids())?.since(&before);
        let per_second = outcome.replies / used.proxy;
        each.push(per_second);
        rows.extend([Some(per_second), Some(outcome.rate), Some(outcome.p99_ms)]);
    }
    let ratio = |of: usize, by: usize| Some(each.get(of)? / each.get(by)?);
    let mut sample = vec![ratio(1, 0), ratio(2, 1)];
    sample.extend(rows);
    Ok(sample)
}
