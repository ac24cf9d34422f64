//! `bench stacked`: one client stacks requests for slow pages of several small origins.
//!
//! A proxy that takes a connection's requests one by one needs as many page times as there are requests; the reply's
//! order and bytes are checked, since speed is nothing without them.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::Run;
use super::contender::Contender;
use super::network::{Network, Side};
use super::page_server;
use super::proxy::Proxy;
use super::results::{Better, Metric, Results};
use super::rounds::in_turn;
use super::stacked_client::{Answer, ask};

const ORIGINS: usize = 4;
/// Pages that one origin makes at the same time.
const AT_A_TIME: usize = 4;
const REQUESTS: usize = 16;
const PAGES_MS: [u64; 2] = [100, SHORT_MS];
/// The pages that the report's target is about.
pub(crate) const SHORT_MS: u64 = 20;

/// The name of the metric, for the report's targets as well.
pub(crate) fn metric(milliseconds: u64) -> String {
    format!("{REQUESTS} pages of {milliseconds} ms")
}

pub(crate) fn run(run: &Run) -> Result<Results> {
    let network = Network::together();
    let origins = network.within(Side::Server, || {
        (0..ORIGINS).map(|_| page_server::start(AT_A_TIME)).collect::<Result<Vec<SocketAddr>>>()
    })??;
    let metrics = PAGES_MS.map(|time| Metric::new(metric(time), "ms", Better::Lower));
    let about = format!(
        "One client connection stacks {REQUESTS} GETs; behind the proxy are {ORIGINS} origins that make {AT_A_TIME} pages at \
         a time each. Time from the last request byte to the last reply byte; every reply is checked, its place too."
    );
    let mut results = Results::new("stacked", about, network.shown(), metrics.into());
    let setup = run.setup(&network, &origins);
    let contenders = Contender::PROXIES.map(|contender| {
        let started = Proxy::start(contender, &setup).and_then(|proxy| {
            // Once, so that no figure has the first connections to the origins in it.
            all_pages(&network, &proxy)?;
            Ok(proxy)
        });
        (contender, started)
    });
    in_turn(run, run.rounds, &mut results, contenders.into(), |_, proxy| {
        proxy.check()?;
        all_pages(&network, proxy)
    })?;
    Ok(results)
}

fn all_pages(network: &Network, proxy: &Proxy) -> Result<Vec<Option<f64>>> {
    let mut sample = Vec::new();
    for milliseconds in PAGES_MS {
        match network.within(Side::Client, || ask(proxy.address, milliseconds, REQUESTS))?? {
            Answer::Right { time } => sample.push(Some(time.as_secs_f64() * 1000.0)),
            Answer::Wrong { what } => bail!("WRONG REPLY: {what}"),
        }
    }
    Ok(sample)
}
