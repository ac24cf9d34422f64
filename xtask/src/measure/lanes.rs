//! `bench lanes`: what each of cmim's lanes costs for each size of content over each path; from this the device's own
//! choice is judged.

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow, bail};

use super::Run;
use super::contender::Contender;
use super::meter::Reading;
use super::network::{Network, Side};
use super::origin::{self, Origin};
use super::plot::{self, Panel};
use super::proxy::Proxy;
use super::results::{Better, Metric, Results, Sample};
use super::rounds::{NotAvailable, in_turn};
use super::wrk::{self, Load};

const KB: usize = 1024;
const MB: usize = 1024 * KB;
const SIZES: [usize; 6] = [KB, 10 * KB, 100 * KB, MB, 10 * MB, 50 * MB];
const QUICK_SIZES: [usize; 2] = [10 * KB, 10 * MB];
const CONNECTIONS: usize = 16;
/// So that replies of the largest are whole within a measurement.
const LARGE_CONNECTIONS: usize = 4;
const SECONDS: u64 = 1;
const ROUNDS: usize = 3;
const SHAPED: &str = "5gbit";
/// How near the device's own choice is to be to the best lane.
const WITHIN: f64 = 1.05;
const MICRO: f64 = 1_000_000.0;

/// In the order of the metrics.
const PATHS: [&str; 3] = ["loopback", "veth", "shaped veth"];
/// What is measured in each place, by its name and unit.
const MEASURES: [(&str, &str); 3] = [("machine's CPU", "µs/MB"), ("daemon's CPU", "µs/MB"), ("p99", "ms")];

/// The contenders: the direct path is the floor.
fn contenders() -> impl Iterator<Item = Contender> {
    [Contender::Direct].into_iter().chain(Contender::LANES)
}

/// One path with its servers.
struct Path {
    name: &'static str,
    network: Network,
    origin: Origin,
}

/// Which lanes a contender took where it was free to choose, or where it took another one than it was told.
type Taken = BTreeMap<String, Vec<String>>;

/// How many single measurements this is.
pub(crate) fn measurements(run: &Run) -> usize {
    rounds(run) * sizes(run).len() * PATHS.len() * (Contender::LANES.len() + 1)
}

fn rounds(run: &Run) -> usize {
    run.rounds_up_to(ROUNDS)
}

fn sizes(run: &Run) -> &'static [usize] {
    if run.quick { &QUICK_SIZES } else { &SIZES }
}

pub(crate) fn run(run: &Run) -> Result<Results> {
    let pages: Vec<(String, Vec<u8>)> =
        sizes(run).iter().map(|size| (format!("/lane-{size}"), origin::content(*size))).collect();
    let mut paths = Vec::new();
    let mut notes = Vec::new();
    for name in PATHS {
        match Path::make(run, name, &pages) {
            Ok(path) => paths.push(path),
            Err(error) => notes.push(format!("the path over {name} is not available: {error:#}")),
        }
    }
    let mut results = Results::new("lanes", about(run), networks(&paths), metrics(run));
    results.notes = notes;
    let mut taken = Taken::new();
    let started = contenders().map(|contender| (contender, start(run, contender, &paths, &pages))).collect();
    in_turn(run, rounds(run), &mut results, started, |contender, proxies| {
        let mut sample = Vec::new();
        for name in PATHS {
            let found = paths.iter_mut().zip(proxies.iter_mut()).find(|(path, _)| path.name == name);
            for (target, _) in &pages {
                let Some((path, proxy)) = &found else {
                    sample.extend([None; MEASURES.len()]);
                    continue;
                };
                sample.extend(measure(run, contender, path, proxy, target, &mut taken)?);
            }
        }
        Ok(sample)
    })?;
    for (who, what) in taken {
        results.notes.push(format!("{who}: {}", what.join(", ")));
    }
    let choice = choice(&results, sizes(run));
    results.notes.extend(choice);
    Ok(results)
}

fn about(run: &Run) -> String {
    format!(
        "Contents of each size over each path, {CONNECTIONS} connections ({LARGE_CONNECTIONS} from 10 MB on), {SECONDS} s \
         each round, with `kernel.splice` forced (`off` is copy) and `local_bypass` off; auto is the device's own choice, the \
         local lane included. CPU is all of the \
         machine's, and the daemon's own, for each MB that the clients read. The kernel part of cmim: {}.",
        run.kernel
    )
}

fn networks(paths: &[Path]) -> String {
    paths.iter().map(|path| format!("{}: {}", path.name, path.network.shown())).collect::<Vec<_>>().join("; ")
}

/// In the order of paths, sizes, measures.
fn metrics(run: &Run) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for path in PATHS {
        for size in sizes(run) {
            for (measure, unit) in MEASURES {
                metrics.push(Metric::new(format!("{path}, {}: {measure}", shown(*size)), unit, Better::Lower));
            }
        }
    }
    metrics
}

/// How much of the machine's CPU the device's own choice takes, by the lane that takes least.
fn choice(results: &Results, sizes: &[usize]) -> Option<String> {
    let mut ratios = Vec::new();
    for (number, path) in PATHS.into_iter().enumerate() {
        for (step, size) in sizes.iter().enumerate() {
            let metric = (number * sizes.len() + step) * MEASURES.len();
            let median = |contender| results.summary(contender, metric).map(|summary| summary.median);
            let lanes = Contender::LANES.into_iter().filter(|contender| contender.lane().is_some());
            let best =
                lanes.filter_map(|lane| Some((lane, median(lane)?))).min_by(|one, other| one.1.total_cmp(&other.1));
            if let (Some((best, least)), Some(auto)) = (best, median(Contender::CmimAuto)) {
                ratios.push((format!("{} over {path}", shown(*size)), auto / least, best));
            }
        }
    }
    let within = ratios.iter().filter(|(_, ratio, _)| *ratio <= WITHIN).count();
    let beyond: Vec<String> = ratios
        .iter()
        .filter(|(_, ratio, _)| *ratio > WITHIN)
        .map(|(place, ratio, best)| format!("{place} {ratio:.2} of {best}"))
        .collect();
    let beyond = if beyond.is_empty() { String::new() } else { format!("; not {}", beyond.join(", ")) };
    (!ratios.is_empty()).then(|| {
        let all = ratios.len();
        format!("The machine's CPU of cmim auto is within 5 % of the best lane's in {within} of {all} places{beyond}")
    })
}

/// A panel for each measure on each path, over the sizes.
pub(crate) fn plot(results: &Results, run: &Run) -> String {
    let sizes = sizes(run);
    let mut panels = Vec::new();
    for (number, path) in PATHS.into_iter().enumerate() {
        for (offset, (measure, unit)) in MEASURES.into_iter().enumerate() {
            let line = |contender| {
                let metric = |step: usize| (number * sizes.len() + step) * MEASURES.len() + offset;
                let median = |step| results.summary(contender, metric(step)).map(|summary| summary.median);
                (contender, (0..sizes.len()).map(median).collect())
            };
            panels.push(Panel {
                title: format!("{path}: {measure}, {unit}, lower is better"),
                steps: sizes.iter().map(|size| shown(*size)).collect(),
                lines: contenders().map(line).collect(),
            });
        }
    }
    plot::lines(&panels)
}

fn shown(size: usize) -> String {
    if size >= MB { format!("{} MB", size / MB) } else { format!("{} KB", size / KB) }
}

impl Path {
    fn make(run: &Run, name: &'static str, pages: &[(String, Vec<u8>)]) -> Result<Self> {
        let mut network = if name == "loopback" { Network::together() } else { Network::make() };
        if name != "loopback" && !network.is_apart() {
            bail!("{}", network.shown());
        }
        if name == "shaped veth" {
            network.shape(SHAPED)?;
        }
        let origin = Origin::start_with(run, &network, pages)?;
        Ok(Self { name, network, origin })
    }
}

/// One proxy on each path, each proven to give every page to the byte.
fn start(run: &Run, contender: Contender, paths: &[Path], pages: &[(String, Vec<u8>)]) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    for path in paths {
        run.check_interrupt()?;
        let servers = [path.origin.address];
        let setup = run.setup(&path.network, &servers);
        let proxy = Proxy::start(contender, &setup).map_err(|error| refused(contender, error))?;
        for (target, content) in pages {
            path.network.within(Side::Client, || origin::verify_content(proxy.address, target, content))??;
        }
        proxies.push(proxy);
    }
    Ok(proxies)
}

/// A device that does not start with a lane that it is told to take is without that lane; whatever else it lacks shows
/// at those that are not told.
pub(crate) fn refused(contender: Contender, error: Error) -> Error {
    match contender.lane() {
        Some(lane) if lane != "copy" => anyhow!(NotAvailable(format!("the device refuses {lane}: {error:#}"))),
        _ => error,
    }
}

impl Contender {
    /// Whether it took the lane that it was told to take, by what `cmim status` counted.
    pub(crate) fn check_lane(self, used: &[(&'static str, u64)]) -> Result<(), NotAvailable> {
        let Some(lane) = self.lane().filter(|lane| *lane != "copy") else { return Ok(()) };
        if used.iter().any(|(used, _)| *used == lane) {
            return Ok(());
        }
        Err(NotAvailable(format!("told to take {lane}, the device took {}", named(used))))
    }
}

/// `pipe`, or `pipe and 3 copy`; nothing counted is the plain copy of a reply, which is no splice.
pub(crate) fn named(used: &[(&'static str, u64)]) -> String {
    match used {
        [] => "copy".to_owned(),
        [(lane, _)] => (*lane).to_owned(),
        [(lane, _), rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|(lane, count)| format!("{count} {lane}")).collect();
            format!("{lane} and {}", rest.join(", "))
        }
    }
}

fn measure(
    run: &Run,
    contender: Contender,
    path: &Path,
    proxy: &Proxy,
    target: &str,
    taken: &mut Taken,
) -> Result<Sample> {
    let pids = proxy.pids();
    let size: usize = target.trim_start_matches("/lane-").parse()?;
    let connections = if size >= 10 * MB { LARGE_CONNECTIONS } else { CONNECTIONS };
    let load = Load { address: proxy.address, target, connections, header: None, seconds: SECONDS };
    let splices = proxy.control.as_ref().map(|control| control.splices()).transpose()?;
    let before = Reading::take(&pids, &path.origin.pids())?;
    let outcome = wrk::load(run, &path.network, &load)?;
    let used = Reading::take(&pids, &path.origin.pids())?.since(&before);
    if let (Some(control), Some(splices)) = (&proxy.control, splices) {
        let used = control.splices()?.used_since(&splices);
        let place = format!("{contender} over {}", path.name);
        if let Err(NotAvailable(reason)) = contender.check_lane(&used) {
            note(taken, format!("{place} is not available ({reason})"), shown(size));
            return Ok(vec![None; MEASURES.len()]);
        }
        if contender == Contender::CmimAuto {
            note(taken, place, format!("{} {}", shown(size), named(&used)));
        }
    }
    let megabytes = outcome.megabytes.filter(|megabytes| *megabytes > 0.0);
    let each = |seconds: f64| megabytes.map(|megabytes| seconds * MICRO / megabytes);
    Ok(vec![each(used.ours()), each(used.proxy).filter(|_| !pids.is_empty()), Some(outcome.p99_ms)])
}

fn note(taken: &mut Taken, place: String, what: String) {
    let notes = taken.entry(place).or_default();
    // The same in the next round is nothing new.
    let first = what.split(" and ").next().unwrap_or_default();
    if !notes.iter().any(|note| note.starts_with(first)) {
        notes.push(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_was_not_taken_is_not_available() {
        assert!(Contender::CmimPipe.check_lane(&[("pipe", 5), ("copy", 1)]).is_ok());
        assert!(Contender::CmimAuto.check_lane(&[]).is_ok());
        assert!(Contender::CmimCopy.check_lane(&[]).is_ok());
        let refusal = Contender::CmimPipe.check_lane(&[("copy", 5)]).map_err(|NotAvailable(reason)| reason);
        assert_eq!(refusal, Err("told to take pipe, the device took copy".to_owned()));
        assert_eq!(named(&[("pipe", 5), ("copy", 1)]), "pipe and 1 copy");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(SIZES.map(shown), ["1 KB", "10 KB", "100 KB", "1 MB", "10 MB", "50 MB"]);
    }
}
