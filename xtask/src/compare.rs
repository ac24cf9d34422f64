//! `cargo xtask bench`: the device beside its peers, in one run and in turn.

mod origins;
mod peers;
mod stacked;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::build;
use crate::project::Project;
use crate::setup;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What is measured
    #[arg(value_enum, default_value_t = Work::Stacked)]
    work: Work,
    /// Fewer rounds, for a first look
    #[arg(long)]
    quick: bool,
    /// Rounds; each measures every device in turn [default: 7, with --quick 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// A binary that is there already, instead of a fresh release build
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Where the report goes [default: docs/benchmarks]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Requests made back to back on one client connection, for slow pages of four servers
    Stacked,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 7 }).max(1)
    }
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    setup::tests()?;
    let binary = match &options.bin {
        Some(binary) => binary.clone(),
        None => build::build(project, &build::Options { no_bpf: false, profile: "release".to_owned() })?,
    };
    let out = options.out.clone().unwrap_or_else(|| project.root().join("docs/benchmarks"));
    match options.work {
        Work::Stacked => stacked::run(&binary, options.rounds(), &out),
    }
}
