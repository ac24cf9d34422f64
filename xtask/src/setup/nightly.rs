//! The way to BPF where Debian's packages are not: a rustup nightly with rust-src, which builds `core` itself.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{ask, clean, step, which};

/// An installed nightly that has the sources of `core`.
pub(crate) fn find() -> Option<String> {
    let list = ask("rustup", ["toolchain", "list"])?;
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .find(|name| has_sources(name))
        .map(str::to_owned)
}

pub(crate) fn install() -> Result<String> {
    if which("rustup").is_none() {
        bail!(
            "no BPF toolchain, and no way to get one:\n\
             - apt offers no rustc-web with libstd-rust-web-dev-bpf (Debian 12 and later have them), and\n\
             - there is no rustup to install a nightly with rust-src.\n\
             Install rustup (https://rustup.rs), or build without the kernel part: cargo xtask build --no-bpf"
        );
    }
    let mut command = clean("rustup");
    command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    step("setup", "rustup nightly with rust-src", command, |_| "installed".to_owned())?;
    match find() {
        Some(name) => Ok(name),
        None => bail!("rustup installed a nightly, but its rust-src is not where it should be"),
    }
}

/// Adds clippy to a toolchain that has none.
pub(crate) fn ensure_clippy(toolchain: &str) -> Result<()> {
    if ask("rustup", ["run", toolchain, "cargo-clippy", "--version"]).is_some() {
        return Ok(());
    }
    let mut command = clean("rustup");
    command.args(["component", "add", "clippy", "--toolchain", toolchain]);
    step("setup", "clippy of the rustup nightly", command, |_| "installed".to_owned())?;
    Ok(())
}

fn has_sources(toolchain: &str) -> bool {
    ask("rustup", ["run", toolchain, "rustc", "--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}
