//! `cargo xtask bench`: cmim, its peers and the direct path measured side by side, round by round in one run.
//!
//! Peers are tuned as their own documents advise (measure/peers); a win over a badly configured peer is none. A peer that
//! is not installed or fails is reported as failed; if cmim fails or answers wrongly, the exit code is 1.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::build::{self, build};
use crate::progress::{Mark, note, painted};
use crate::project::Project;

mod idle;
mod load;
mod meter;
mod network;
mod origin;
mod page_server;
mod plot;
mod process;
mod proxy;
mod reconnecting;
mod report;
mod results;
mod rounds;
mod slow;
mod stacked;
mod stacked_client;
mod statistics;
mod wrk;

use network::Network;
use proxy::Setup;
use report::Circumstances;
use results::Results;

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;
const SECONDS: u64 = 5;
const QUICK_SECONDS: u64 = 2;
/// More than any benchmark needs, where the limit on descriptors is "unlimited".
const MAX_DESCRIPTORS: u64 = 200_000;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(value_enum, default_value = "all")]
    what: Kind,
    /// Few short rounds
    #[arg(long)]
    quick: bool,
    /// Rounds of each measurement
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// A cmim binary to measure; without it one is built
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Workers of each proxy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// cmim's kernel part: `auto` or `off`
    #[arg(long, default_value = "auto", value_name = "MODE")]
    kernel: String,
    /// Where the report goes; without it docs/benchmarks
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    #[command(flatten)]
    build: build::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    All,
    /// Stacked requests for slow pages
    Stacked,
    /// Pages of 1 KB
    Small,
    /// Pages of 100 KB
    Medium,
    /// Pages of 10 MB
    Bulk,
    /// Pages of 8 KB without a length, of a server that closes after each
    Dynamic,
    /// A new client connection for each request
    Connect,
    /// Slow readers beside fast ones
    Slow,
    /// Memory of connections on which nothing is asked
    Idle,
}

impl Kind {
    /// In the order of the report.
    pub(crate) const EACH: [Self; 8] =
        [Self::Stacked, Self::Small, Self::Medium, Self::Bulk, Self::Dynamic, Self::Connect, Self::Slow, Self::Idle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Stacked => "stacked",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Bulk => "bulk",
            Self::Dynamic => "dynamic",
            Self::Connect => "connect",
            Self::Slow => "slow",
            Self::Idle => "idle",
        }
    }

    fn measure(self, run: &Run) -> Result<Results> {
        match self {
            Self::All => bail!("all is every benchmark, not one"),
            Self::Stacked => stacked::run(run),
            Self::Small => load::run(run, &load::SMALL),
            Self::Medium => load::run(run, &load::MEDIUM),
            Self::Bulk => load::run(run, &load::BULK),
            Self::Dynamic => load::run(run, &load::DYNAMIC),
            Self::Connect => load::run(run, &load::CONNECT),
            Self::Slow => slow::run(run),
            Self::Idle => idle::run(run),
        }
    }
}

/// What all benchmarks of this run share. Dropped, its directory goes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) workers: usize,
    pub(crate) kernel: String,
    pub(crate) out: PathBuf,
    pub(crate) descriptors: u64,
    binary: PathBuf,
    directory: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Run {
    fn prepare(project: &Project, options: &Options) -> Result<Self> {
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
        Ok(Self {
            rounds: options.rounds.map_or(rounds, usize::from),
            seconds,
            workers: usize::from(options.workers),
            kernel: options.kernel.clone(),
            out: options.out.clone().unwrap_or_else(|| project.root().join("docs/benchmarks")),
            descriptors: raise_descriptors(),
            binary,
            directory,
            interrupted,
        })
    }

    /// The contenders' setup before these servers.
    pub(crate) fn setup<'a>(&'a self, network: &'a Network, servers: &'a [SocketAddr]) -> Setup<'a> {
        Setup {
            binary: &self.binary,
            kernel: &self.kernel,
            workers: self.workers,
            descriptors: self.descriptors,
            directory: &self.directory,
            network,
            servers,
        }
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
    }
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let run = Run::prepare(project, options)?;
    let made_with = Circumstances::look(&run.binary);
    let kinds = if options.what == Kind::All { Kind::EACH.to_vec() } else { vec![options.what] };
    let mut good = true;
    let mut sections = Vec::new();
    for kind in kinds {
        match kind.measure(&run) {
            Ok(results) => {
                if let Some(reason) = results.failure() {
                    good = false;
                    note("bench", painted(Mark::Bad, &format!("{}: cmim failed: {reason}", results.name)));
                }
                let section = report::section(&results, &run, &made_with);
                report::write(&results, &section, &run, &made_with)?;
                sections.push(section);
            }
            Err(error) => {
                run.check_interrupt()?;
                good = false;
                note("bench", painted(Mark::Bad, &format!("{}: {error:#}", kind.name())));
            }
        }
    }
    report::index(&run)?;
    println!();
    println!("{}", sections.join("\n"));
    note("bench", format!("the report: {}", project.shown(&run.out)));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes as many descriptors as are allowed, for us and the programs that we start.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() { most } else { limit.current.unwrap_or(most) }
}
