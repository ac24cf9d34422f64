//! `cargo xtask test`: everything. Format, clippy, architecture, unit tests, then the tests of the whole device.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::build;
use crate::progress::{note, seconds};
use crate::project::{Project, cargo};
use crate::{lint, setup};

pub(crate) mod report;

use report::{Report, Totals};

/// Optimised, but linked in seconds rather than minutes.
pub(crate) const DEVICE_PROFILE: &str = "test-device";
pub(crate) const DEVICE_TESTS: &str = "cmim-tests";
/// Tells the tests of the whole device which binary to run.
pub(crate) const DEVICE_BINARY: &str = "CMIM_BIN";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this; no format, clippy or architecture checks
    name: Option<String>,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let filter = options.name.as_deref();
    setup::bpf(project)?;
    setup::tests()?;
    let mut totals = Totals::default();
    // First, for clippy and the unit tests see the code around it only where it is there.
    let object = build::bpf_object(project);
    if filter.is_none() {
        for passed in lint::checks(project)? {
            totals.count(passed);
        }
    }
    totals.add(unit(project, filter)?);
    match object.and_then(|object| device(project, &object, filter)) {
        Ok(device) => totals.add(device),
        Err(error) => {
            eprintln!("{error:#}");
            totals.count(false);
        }
    }
    totals.show_skipped();
    note("test", format!("all of it took {}", seconds(started.elapsed())));
    println!("{totals}");
    Ok(if totals.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tests that stand beside the code, and its examples.
fn unit(project: &Project, filter: Option<&str>) -> Result<Totals> {
    let mut command = Command::new(cargo());
    command.args(["test", "--no-fail-fast", "--workspace", "--exclude", DEVICE_TESTS]).current_dir(project.root());
    build::embed(project, &mut command);
    Report::new("unit tests").run(command, filter)
}

/// Tests that run the built binary between real clients and servers, some in network namespaces of their own.
fn device(project: &Project, object: &Path, filter: Option<&str>) -> Result<Totals> {
    let binary = build::binary(project, DEVICE_PROFILE, Some(object))?;
    let mut command = Command::new(cargo());
    command.args(["test", "--no-fail-fast", "--package", DEVICE_TESTS]).current_dir(project.root());
    command.env(DEVICE_BINARY, &binary);
    Report::new("device tests").run(command, filter)
}
