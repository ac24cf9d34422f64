//! `cargo xtask setup`: finds what a build needs and installs what is not there.
//!
//! Every other task calls [`bpf`] or [`tests`] itself, so nobody has to run this first; both are silent and fast when
//! nothing is to do.

use anyhow::Result;
use clap::Args;

use crate::progress::note;
use crate::project::Project;

mod bpf_linker;
mod bpf_toolchain;
mod debian;
mod nightly;
mod test_parts;

pub(crate) use bpf_toolchain::Toolchain;
pub(crate) use test_parts::{ensure_bench as bench, ensure_count as count, mount_bpffs, rust_components};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also what the tests need: PHP, nginx, lighttpd, wrk and their like (their services are not started)
    #[arg(long)]
    tests: bool,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let toolchain = bpf(project)?;
    note("setup", format!("BPF toolchain: {toolchain}"));
    if options.tests {
        tests()?;
        note("setup", "what the tests need: all here");
    }
    Ok(())
}

/// The BPF toolchain, installed if need be.
pub(crate) fn bpf(project: &Project) -> Result<Toolchain> {
    bpf_toolchain::ensure(project)
}

/// The servers, clients and tools that the tests run, installed if need be.
pub(crate) fn tests() -> Result<()> {
    rust_components()?;
    test_parts::ensure()?;
    mount_bpffs();
    Ok(())
}
