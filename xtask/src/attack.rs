//! `cargo xtask attack`: the attacks of `tests/tests/attack_*.rs` at full scale. The suite has them in their short form.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build;
use crate::progress::{note, seconds};
use crate::project::{Project, cargo};
use crate::setup;
use crate::test::report::Report;
use crate::test::{DEVICE_BINARY, DEVICE_PROFILE, DEVICE_TESTS};

const PREFIX: &str = "attack_";
/// Tells an attack to run in full.
const FULL: &str = "CMIM_ATTACK";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// One attack by its name, as `--list` has it; without a name all of them
    name: Option<String>,
    /// Only list the attacks
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let all = attacks(&project.root().join("tests/tests"))?;
    if options.list {
        all.iter().for_each(|(name, about)| println!("{name:<14} {about}"));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<_> = match &options.name {
        Some(wanted) => all.iter().filter(|(name, _)| name == wanted).collect(),
        None => all.iter().collect(),
    };
    if chosen.is_empty() {
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        bail!("there is no such attack; there are: {}", names.join(", "));
    }
    let started = Instant::now();
    setup::bpf(project)?;
    setup::tests()?;
    let object = build::bpf_object(project)?;
    let binary = build::binary(project, DEVICE_PROFILE, Some(&object))?;
    let mut command = Command::new(cargo());
    command.args(["test", "--no-fail-fast", "--package", DEVICE_TESTS]);
    for (name, _) in &chosen {
        command.arg("--test").arg(format!("{PREFIX}{name}"));
    }
    command.current_dir(project.root()).env(DEVICE_BINARY, &binary).env(FULL, "1");
    // One at a time: each asserts what a lone attack may cost. Behind all that is cargo's, where a name filter stands.
    command.args(["--", "--test-threads=1"]);
    let totals = Report::new("attacks").run(command, None)?;
    totals.show_measured();
    totals.show_skipped();
    note("attack", format!("all of it took {}", seconds(started.elapsed())));
    println!("{totals}");
    Ok(if totals.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every attack's name and what the first line of its file says.
fn attacks(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(name) = stem.and_then(|stem| stem.strip_prefix(PREFIX)) else { continue };
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let first = text.lines().next().unwrap_or_default().trim_start_matches("//!").trim();
        found.push((name.to_owned(), first.to_owned()));
    }
    found.sort();
    Ok(found)
}
