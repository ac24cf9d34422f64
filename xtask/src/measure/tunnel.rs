//! `bench tunnel`: upgraded connections (as WebSocket's) on which a small message goes to the server and comes back now
//! and then; cmim's lanes beside each other and beside the peers.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Run;
use super::contender::Contender;
use super::device::Control;
use super::echo;
use super::lanes::{named, refused};
use super::meter::{self, Reading, resident_kib};
use super::network::{Network, Side};
use super::paced::{Clients, Pace, Speech};
use super::proxy::{Proxy, most_clients};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::in_turn;

const TUNNELS: usize = 10_000;
const QUICK_TUNNELS: usize = 1000;
/// Messages a second, all tunnels together; as many come back.
const RATE: f64 = 5000.0;
const MESSAGE: usize = 64;
const WARM_UP_SECONDS: u64 = 1;
const CONTENDERS: [Contender; 5] =
    [Contender::Cmim, Contender::CmimCopy, Contender::CmimSockmap, Contender::Haproxy, Contender::Nginx];

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::make();
    let server = network.within(Side::Server, || echo::start(network.address(Side::Server)))??;
    let servers = [server];
    let setup = run.setup(&network, &servers);
    // A proxy needs two descriptors for each.
    let count = (most_clients(run.descriptors) / 2).min(if run.quick { QUICK_TUNNELS } else { TUNNELS });
    let mut metrics = vec![Metric::new("p99", "ms", Better::Lower), Metric::new("p50", "ms", Better::Lower)];
    metrics.extend(meter::metrics());
    metrics.push(Metric::new("proxy's memory for each tunnel", "KiB", Better::Lower));
    let about = format!(
        "{count} upgraded connections, {RATE:.0} messages of {MESSAGE} bytes a second in all, each sent back by the server: a \
         request here is a message there and back. Generator and server are one program (limit of descriptors of each and of \
         the proxy: {}). A time counts from the moment at \
         which the message was due.",
        run.descriptors
    );
    let mut results = Results::new("tunnel", about, network.shown(), metrics);
    let mut contenders = Vec::new();
    for contender in CONTENDERS {
        run.check_interrupt()?;
        let started = Proxy::start(contender, &setup).map_err(|error| refused(contender, error));
        contenders.push((contender, started));
    }
    let mut taken = BTreeMap::new();
    in_turn(run, run.rounds, &mut results, contenders, |contender, proxy| {
        let sample = measure(run, &network, contender, proxy, count, &mut taken);
        proxy.check()?;
        sample
    })?;
    results.notes = taken.iter().map(|(contender, lanes)| format!("{contender} took {lanes}")).collect();
    Ok(results)
}

fn measure(
    run: &Run,
    network: &Network,
    contender: Contender,
    proxy: &Proxy,
    count: usize,
    taken: &mut BTreeMap<&'static str, String>,
) -> Result<Sample> {
    let splices = proxy.control.as_ref().map(Control::splices).transpose()?;
    let speech = Speech::Tunnel { request: echo::upgrade(proxy.address), message: vec![b'm'; MESSAGE] };
    let mut clients = Clients::open(run, network, proxy.address, count, &speech)?;
    clients.ask(run, Pace::Rate(RATE), WARM_UP_SECONDS)?;
    // A tunnel may begin on one lane and go on on another.
    if let (Some(control), Some(splices)) = (&proxy.control, splices) {
        let used = control.splices()?.used_since(&splices);
        contender.check_lane(&used)?;
        taken.insert(contender.name(), named(&used));
    }
    let pids = proxy.pids();
    let before = Reading::take(&pids, &[])?;
    let outcome = clients.ask(run, Pace::Rate(RATE), run.seconds)?;
    let used = Reading::take(&pids, &[])?.since(&before);
    let mut sample = vec![Some(outcome.p99_ms), Some(outcome.p50_ms)];
    sample.extend(used.row(outcome.replies, false));
    sample.push(Some(resident_kib(&pids) / f64::from(u32::try_from(count)?)));
    Ok(sample)
}
