//! What a run says past the runner's capture: tests that this host cannot run, counted and never passed in silence, and
//! figures that were measured.

use std::io::{self, Write};
use std::path::Path;

/// Says that `test` is skipped and why. Goes round the test runner's capture, so that it is seen without `--nocapture`.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Tells a figure that `test` measured, for whoever reads the run; seen like [`skipped`].
pub fn measured(test: &str, figure: &str) {
    let _ = writeln!(io::stderr(), "MEASURED: {test}: {figure}");
}

/// Whether `test` has to be skipped because this process is not root.
pub fn without_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(test, "needs root");
    }
    !root
}

/// Whether `test` has to be skipped because one of `tools` is not installed.
pub fn without_tools(test: &str, tools: &[&str]) -> bool {
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| find(tool).is_none()).collect();
    for tool in &missing {
        skipped(test, &format!("`{tool}` is not installed"));
    }
    !missing.is_empty()
}

/// The path of a program, also where a plain user's PATH lacks the system directories.
pub fn find(tool: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|directory| Path::new(directory).join(tool))
        .find(|candidate| candidate.is_file())
        .map(|found| found.display().to_string())
}
