//! What the figures were made with: machine, kernel, programs, command.

use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use serde_json::{Value, json};

use super::Run;
use super::network::host_congestion_control;
use crate::command::{ask, which};

/// What the figures were made with.
#[derive(Debug)]
pub(crate) struct Circumstances {
    command: String,
    date: String,
    kernel: String,
    processor: String,
    processors: usize,
    memory_mib: u64,
    congestion_control: String,
    versions: Vec<(&'static str, String)>,
}

impl Circumstances {
    pub(crate) fn look(binary: &Path) -> Self {
        let arguments = worth_repeating(std::env::args().skip(1));
        let asked = |program: &str, argument: &str| ask(program, [argument]).unwrap_or_default().trim().to_owned();
        let versions = [
            ("cmim", said(binary, "--version")),
            ("HAProxy", which("haproxy").map_or_else(String::new, |path| said(&path, "-v"))),
            ("nginx", which("nginx").map_or_else(String::new, |path| said(&path, "-v"))),
            ("wrk", which("wrk").map_or_else(String::new, |path| said(&path, "-v"))),
            ("nft", which("nft").map_or_else(String::new, |path| said(&path, "--version"))),
        ];
        Self {
            command: format!("cargo xtask {}", arguments.join(" ")),
            date: asked("date", "-uIseconds"),
            kernel: asked("uname", "-sr"),
            processor: field("/proc/cpuinfo", "model name"),
            processors: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
            congestion_control: host_congestion_control(),
            versions: versions.into(),
        }
    }

    pub(crate) fn json(&self, run: &Run, rounds: usize) -> Value {
        json!({
            "command": self.command,
            "date": self.date,
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "memory_mib": self.memory_mib,
            "host_congestion_control": self.congestion_control,
            "versions": self.versions.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect::<Value>(),
            "workers": run.workers,
            "cmim_kernel_mode": run.kernel,
            "rounds": rounds,
            "quick": run.quick,
            "seconds_per_measurement": run.seconds,
        })
    }
}

/// The arguments without those that say where things lay on this host.
fn worth_repeating(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const PLACES: [&str; 2] = ["--bin", "--out"];
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if PLACES.contains(&argument.as_str()) {
            arguments.next();
        } else if !PLACES.iter().any(|place| argument.starts_with(&format!("{place}="))) {
            kept.push(argument);
        }
    }
    kept
}

/// `name : value` in a file of /proc.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

/// The first line of what a program says of its version; nginx says it on standard error, wrk with an exit code.
fn said(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().next().unwrap_or_default();
    line.split(" - ").next().unwrap_or_default().split(" Copyright").next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_told_without_places_on_this_host() {
        let given = ["bench", "small", "--bin", "/tmp/x", "--quick", "--out=/tmp/y"].map(str::to_owned);
        assert_eq!(worth_repeating(given.into_iter()), ["bench", "small", "--quick"]);
    }
}
