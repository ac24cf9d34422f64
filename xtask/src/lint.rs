//! `cargo xtask lint`: format, clippy, and the architecture check, which reads the sources themselves. With `--perf`:
//! instruction counts instead.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::command::check;
use crate::progress::Step;
use crate::project::{Project, cargo};
use crate::setup;

mod arrows;
mod finding;
mod lexer;
mod paths;
mod perf;
mod shape;

use finding::Finding;
use lexer::Source;

/// Crates whose own sources are read. tests/ may be long and blunt.
const CRATES: [&str; 4] = ["cmim-common", "cmim-ebpf", "cmim-userspace", "xtask"];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Count instructions under callgrind instead, and compare them to docs/benchmarks/instructions.json: over 3 % more
    /// fails
    #[arg(long)]
    perf: bool,
    /// Write that file
    #[arg(long, requires = "perf")]
    record: bool,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    if options.perf {
        return perf::run(project, options.record);
    }
    let good = checks(project)?.iter().all(|passed| *passed);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every check, also after one that failed; whether each passed.
pub(crate) fn checks(project: &Project) -> Result<Vec<bool>> {
    setup::rust_components()?;
    Ok(vec![format(project)?, clippy(project)?, architecture(project)?])
}

fn format(project: &Project) -> Result<bool> {
    let mut workspace = Command::new(cargo());
    workspace.args(["fmt", "--all", "--check", "--", "-l"]).current_dir(project.root());
    let mut kernel = Command::new(cargo());
    kernel.args(["fmt", "--check", "--", "-l"]).current_dir(project.root().join("cmim-ebpf"));
    let host = check("lint", "format", workspace, "mend it with: cargo fmt --all")?;
    Ok(check("lint", "format of cmim-ebpf", kernel, "mend it with: cd cmim-ebpf && cargo fmt")? && host)
}

fn clippy(project: &Project) -> Result<bool> {
    let mut command = Command::new(cargo());
    command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).current_dir(project.root());
    build::embed(project, &mut command);
    let host = check("lint", "clippy, all targets, no warnings", command, "")?;
    Ok(clippy_of_kernel_part(project)? && host)
}

/// The same for cmim-ebpf, which is a workspace of its own with a compiler of its own.
fn clippy_of_kernel_part(project: &Project) -> Result<bool> {
    let mut command = setup::bpf(project)?.clippy()?;
    command
        .args(["--release", "--", "-D", "warnings"])
        .current_dir(project.root().join("cmim-ebpf"))
        .env("CARGO_TARGET_DIR", project.target().join("bpf/clippy"))
        .env("CLIPPY_CONF_DIR", project.root());
    check("lint", "clippy of cmim-ebpf, no warnings", command, "")
}

/// Reads every source file of the project's crates.
fn architecture(project: &Project) -> Result<bool> {
    let step = Step::start("lint", "architecture: arrows, pure modules, lengths, marks");
    let mut findings = Vec::new();
    let mut count = 0_usize;
    for name in CRATES {
        let sources = project.root().join(name).join("src");
        for file in rust_files(&sources)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let source = Source::read(&text);
            let place =
                Place { shown: project.shown(&file), inside: file.strip_prefix(&sources).unwrap_or(&file).to_owned() };
            findings.extend(shape::check(&place, &source));
            if name == "cmim-userspace" {
                findings.extend(arrows::check(&place, &source));
            }
            count += 1;
        }
    }
    if findings.is_empty() {
        step.done(format!("{count} files, nothing found"));
        return Ok(true);
    }
    step.failed(format!("{} in {count} files", findings.len()));
    for finding in &findings {
        eprintln!("{finding}");
    }
    Ok(false)
}

/// A file as messages name it, and its path under the crate's `src`.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shown: String,
    pub(crate) inside: PathBuf,
}

impl Place {
    /// Whether the whole file is tests: `tests.rs`, `model_tests.rs`, or anything under a `tests` directory.
    pub(crate) fn is_test(&self) -> bool {
        self.inside
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy())
            .any(|part| part == "tests" || part.ends_with("_tests"))
    }

    pub(crate) fn finding(&self, line: usize, what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { file: self.shown.clone(), line, what: what.into(), why: why.into() }
    }
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
