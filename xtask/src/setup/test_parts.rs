//! What the tests run against and with: real servers, clients and inspection tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::debian;
use crate::command::{ask, is_root, step, which};
use crate::progress::note;
use crate::project::cargo;

/// A program and the Debian package that has it.
const PARTS: [(&str, &str); 13] = [
    ("php", "php-cli"),
    ("php-cgi", "php-cgi"),
    ("nginx", "nginx-light"),
    ("lighttpd", "lighttpd"),
    ("wrk", "wrk"),
    ("ab", "apache2-utils"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("bpftool", "bpftool"),
    ("haproxy", "haproxy"),
    ("h2load", "nghttp2-client"),
];

/// What `cargo xtask bench` measures with and against.
const BENCH_PARTS: [(&str, &str); 7] = [
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("nft", "nftables"),
];

/// What `cargo xtask lint --perf` counts with.
const COUNT_PARTS: [(&str, &str); 1] = [("valgrind", "valgrind")];

pub(crate) fn ensure() -> Result<()> {
    install(&PARTS, "tests that need them are skipped")
}

/// For `cargo xtask bench`.
pub(crate) fn ensure_bench() -> Result<()> {
    install(&BENCH_PARTS, "what needs them is reported as not there")
}

/// For `cargo xtask lint --perf`.
pub(crate) fn ensure_count() -> Result<()> {
    install(&COUNT_PARTS, "instructions cannot be counted without")
}

fn install(parts: &[(&str, &str)], without: &str) -> Result<()> {
    let missing: Vec<&(&str, &str)> = parts.iter().filter(|(program, _)| which(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if debian::offers(&packages) {
        return debian::install(&packages);
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    note("setup", format!("not here and not to be had from apt: {}; {without}", programs.join(", ")));
    Ok(())
}

/// rustfmt and clippy: a minimal rustup toolchain is without.
pub(crate) fn rust_components() -> Result<()> {
    let absent = |tool: &str| ask(cargo(), [tool, "--version"]).is_none();
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(tool, _)| absent(tool))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if which("rustup").is_none() {
        bail!(
            "{} missing and no rustup here to add it: install it the way your Rust was installed",
            missing.join(" and ")
        );
    }
    let mut command = Command::new("rustup");
    command.args(["component", "add"]).args(&missing);
    step("setup", &format!("rustup components {}", missing.join(", ")), command, |_| "added".to_owned())?;
    Ok(())
}

/// The kernel part pins its maps on bpffs. systemd mounts it at boot; containers and small hosts are without.
pub(crate) fn mount_bpffs() {
    const BPFFS: &str = "/sys/fs/bpf";
    let mounted = fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf")));
    if mounted || !is_root() || !Path::new(BPFFS).is_dir() {
        return;
    }
    if ask("mount", ["-t", "bpf", "bpf", BPFFS]).is_some() {
        note("setup", format!("bpffs was not mounted: mounted it at {BPFFS}"));
    }
}
