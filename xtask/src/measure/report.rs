//! The report: per benchmark a JSON file with every round, a Markdown section and a plot; and one page of all sections.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::host_congestion_control;
use super::proxy::Contender;
use super::results::Results;
use super::{Kind, Run, plot};
use crate::command::{ask, which};

/// What the figures were made with.
#[derive(Debug)]
pub(crate) struct Circumstances {
    command: String,
    date: String,
    kernel: String,
    processors: usize,
    congestion_control: String,
    versions: Vec<(&'static str, String)>,
}

impl Circumstances {
    pub(crate) fn look(binary: &Path) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let asked = |program: &str, argument: &str| ask(program, [argument]).unwrap_or_default().trim().to_owned();
        let versions = [
            ("cmim", said(binary, "--version")),
            ("HAProxy", which("haproxy").map_or_else(String::new, |path| said(&path, "-v"))),
            ("nginx", which("nginx").map_or_else(String::new, |path| said(&path, "-v"))),
            ("wrk", which("wrk").map_or_else(String::new, |path| said(&path, "-v"))),
        ];
        Self {
            command: format!("cargo xtask {}", arguments.join(" ")),
            date: asked("date", "-uIseconds"),
            kernel: asked("uname", "-sr"),
            processors: thread::available_parallelism().map_or(1, usize::from),
            congestion_control: host_congestion_control(),
            versions: versions.into(),
        }
    }

    fn json(&self, run: &Run) -> Value {
        json!({
            "command": self.command,
            "date": self.date,
            "kernel": self.kernel,
            "processors": self.processors,
            "host_congestion_control": self.congestion_control,
            "versions": self.versions.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect::<Value>(),
            "workers": run.workers,
            "cmim_kernel_mode": run.kernel,
            "rounds": run.rounds,
            "seconds_per_measurement": run.seconds,
        })
    }
}

/// The section of one benchmark.
pub(crate) fn section(results: &Results, run: &Run, made_with: &Circumstances) -> String {
    let mut text = format!("## {}\n\n{}\n\n{}\n", results.name, results.about, results.table());
    for column in &results.columns {
        if let Some(reason) = &column.failed {
            let _ = writeln!(text, "{} failed: {reason}\n", column.contender.name());
        }
    }
    let versions = made_with.versions.iter().filter(|(_, version)| !version.is_empty());
    let versions: Vec<&str> = versions.map(|(_, version)| version.as_str()).collect();
    let _ = writeln!(
        text,
        "`{}` on {}, {}, {} CPUs, workers of each proxy: {}, rounds: {}, kernel part of cmim: {}; {}; {}.",
        made_with.command,
        made_with.date,
        made_with.kernel,
        made_with.processors,
        run.workers,
        run.rounds,
        run.kernel,
        results.network,
        versions.join(", "),
    );
    text
}

/// Writes a benchmark's files.
pub(crate) fn write(results: &Results, section: &str, run: &Run, made_with: &Circumstances) -> Result<()> {
    let mut data = results.json();
    if let Some(object) = data.as_object_mut() {
        object.insert("circumstances".to_owned(), made_with.json(run));
    }
    put(run, &format!("{}.json", results.name), &format!("{data:#}\n"))?;
    put(run, &format!("{}.svg", results.name), &plot::bars(results))?;
    let plotted = format!("{section}\n![{0}]({0}.svg)\n", results.name);
    put(run, &format!("{}.md", results.name), &plotted)
}

/// One page of every section that lies there, also of earlier runs.
pub(crate) fn index(run: &Run) -> Result<()> {
    let proxies: Vec<&str> = Contender::PROXIES.map(Contender::name).into();
    let mut page = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`. The paths ({} and direct) are measured in turn, round by round, in \
         one run; each section says on what. Compare within a section only: figures of different runs differ by what else \
         the host did. A ratio below 1 is good where lower is better, above 1 where higher is. The data of every round lie \
         beside this page as JSON.\n",
        proxies.join(", ")
    );
    for kind in Kind::EACH {
        if let Ok(section) = fs::read_to_string(run.out.join(format!("{}.md", kind.name()))) {
            page.push('\n');
            page.push_str(&section);
        }
    }
    put(run, "README.md", &page)
}

fn put(run: &Run, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(&run.out).with_context(|| format!("making {}", run.out.display()))?;
    let path = run.out.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The first line of what a program says of its version; nginx says it on standard error, wrk with an exit code.
fn said(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().next().unwrap_or_default();
    line.split(" - ").next().unwrap_or_default().split(" Copyright").next().unwrap_or_default().trim().to_owned()
}
