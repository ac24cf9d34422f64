//! `cargo xtask bench`: cmim, its peers and the direct path measured side by side, round by round in one run.
//!
//! Peers are tuned as their own documents advise (measure/peers); a win over a badly configured peer is none. A peer that
//! is not installed or fails is reported as failed; if cmim fails or answers wrongly, the exit code is 1. A target that is
//! not reached is shown as such in the report; it is no failure of the run.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::build::{self, build};
use crate::progress::{Mark, note, painted};
use crate::project::Project;
use crate::setup;

mod circumstances;
mod clock;
mod contender;
mod device;
mod echo;
mod guard;
mod idle;
mod kind;
mod lanes;
mod load;
mod many;
mod meter;
mod network;
mod origin;
mod paced;
mod page_server;
mod plot;
pub(crate) mod process;
mod proxy;
mod reconnecting;
mod report;
mod results;
mod rounds;
mod saved;
mod scale;
mod slow;
mod stacked;
mod stacked_client;
mod statistics;
mod targets;
mod tunnel;
mod wrk;

use circumstances::Circumstances;
use clock::Clock;
use kind::Kind;
use network::{Allowance, Network};
use proxy::{Settings, Setup};
use rounds::NotAvailable;

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 1;
const SECONDS: u64 = 3;
const QUICK_SECONDS: u64 = 1;
/// More than any benchmark needs, where the limit on descriptors is "unlimited".
const MAX_DESCRIPTORS: u64 = 200_000;

const AFTER_HELP: &str =
    "Root gives namespaces joined by veth pairs; without it all is on loopback, and the report says so. \
The machine should have nothing else to do: what other programs take is shown and not counted, but they still \
disturb. What lies in the report's directory from other kinds stays and is on the page.

Examples:
  cargo xtask bench
  cargo xtask bench small --quick --out /tmp/trial
  cargo xtask bench lanes --bin target/release/cmim --rounds 3";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: Kind,
    /// Measure nothing: make the page of the JSON files that lie there
    #[arg(long, conflicts_with_all = ["quick", "rounds", "bin"])]
    only_page: bool,
    /// One round of one second: all of it in 4 minutes, to see that it works rather than how well
    #[arg(long)]
    quick: bool,
    /// Rounds of each measurement [default: 5, of lanes and idle 3; all of it in half an hour]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// A cmim binary to measure; without it one is built
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Workers of each proxy, where a benchmark does not set them itself (many, scale)
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// cmim's kernel part
    #[arg(long, default_value = "auto", value_name = "MODE", value_parser = ["auto", "required", "off"])]
    kernel: String,
    /// Where the report goes [default: docs/benchmarks]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    #[command(flatten)]
    build: build::Options,
}

/// What all benchmarks of this run share. Dropped, its directory goes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rounds: usize,
    /// Somebody wants so many, however long it takes.
    rounds_are_asked: bool,
    pub(crate) seconds: u64,
    pub(crate) quick: bool,
    pub(crate) workers: usize,
    pub(crate) kernel: String,
    pub(crate) out: PathBuf,
    pub(crate) descriptors: u64,
    pub(crate) clock: Clock,
    binary: PathBuf,
    directory: PathBuf,
    /// Proxies that were started, so that each has its own files.
    started: AtomicUsize,
    interrupted: Arc<AtomicBool>,
    _cubic: Allowance,
}

impl Run {
    fn prepare(project: &Project, options: &Options, out: PathBuf) -> Result<Self> {
        let binary = match &options.bin {
            Some(path) => fs::canonicalize(path).with_context(|| format!("no binary at {}", path.display()))?,
            None => build(project, &options.build)?,
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("no signal handler")?;
        }
        let directory = std::env::temp_dir().join(format!("cmim-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let (rounds, seconds) = if options.quick { (QUICK_ROUNDS, QUICK_SECONDS) } else { (ROUNDS, SECONDS) };
        let mut run = Self {
            rounds: options.rounds.map_or(rounds, usize::from),
            rounds_are_asked: options.rounds.is_some(),
            seconds,
            quick: options.quick,
            workers: usize::from(options.workers),
            kernel: options.kernel.clone(),
            out,
            descriptors: raise_descriptors(),
            clock: Clock::start(0.0),
            binary,
            directory,
            started: AtomicUsize::new(0),
            interrupted,
            _cubic: Allowance::give(),
        };
        run.clock = Clock::start(options.what.expected(&run));
        Ok(run)
    }

    /// The contenders' setup before these servers.
    pub(crate) fn setup<'a>(&'a self, network: &'a Network, servers: &'a [SocketAddr]) -> Setup<'a> {
        Setup {
            binary: &self.binary,
            descriptors: self.descriptors,
            directory: &self.directory,
            started: &self.started,
            network,
            servers,
            settings: Settings::of(self),
        }
    }

    /// The rounds of what takes long.
    pub(crate) fn rounds_up_to(&self, most: usize) -> usize {
        if self.rounds_are_asked { self.rounds } else { self.rounds.min(most) }
    }

    /// An error after Ctrl-C or SIGTERM, so that everything on the way out is dropped, children with it.
    pub(crate) fn check_interrupt(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        proxy::remove_pins();
    }
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let out = options.out.clone().unwrap_or_else(|| project.root().join("docs/benchmarks"));
    if options.only_page {
        println!("{}", report::index(&out)?);
        return Ok(ExitCode::SUCCESS);
    }
    setup::bench()?;
    setup::mount_bpffs();
    let run = Run::prepare(project, options, out)?;
    let made_with = Circumstances::look(&run.binary);
    let kinds = if options.what == Kind::All { Kind::EACH.to_vec() } else { vec![options.what] };
    note("bench", format!("{}: {}, {} rounds of {} s", options.what.name(), run.clock, run.rounds, run.seconds));
    let mut good = true;
    let mut sections = Vec::new();
    for kind in kinds {
        run.clock.begin(kind.expected(&run));
        match kind.measure(&run) {
            Ok(results) => {
                if let Some(reason) = results.failure() {
                    good = false;
                    note("bench", painted(Mark::Bad, &format!("{}: cmim failed: {reason}", results.name)));
                }
                sections.push(report::write(&results, &run, &made_with)?);
            }
            Err(error) if error.is::<NotAvailable>() => {
                note("bench", format!("{} is not available here: {error:#}", kind.name()));
            }
            Err(error) => {
                run.check_interrupt()?;
                good = false;
                note("bench", painted(Mark::Bad, &format!("{}: {error:#}", kind.name())));
            }
        }
    }
    let page = report::index(&run.out)?;
    println!("{}\n{page}", sections.join("\n"));
    note("bench", format!("the report: {}", project.shown(&run.out.join(report::PAGE))));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes as many descriptors as are allowed, for us and the programs that we start.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // With CAP_SYS_RESOURCE one may go over the limit, up to the kernel's own.
    for most in [MAX_DESCRIPTORS, limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS)] {
        let maximum = limit.maximum.map(|maximum| maximum.max(most));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).is_ok() {
            return most;
        }
    }
    limit.current.unwrap_or(MAX_DESCRIPTORS)
}
