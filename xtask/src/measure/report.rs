//! The report: for each benchmark a JSON file with every round, a Markdown section and a plot; and one page, made of the
//! JSON files, with the targets and how they stand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::circumstances::Circumstances;
use super::contender::{Contender, Program};
use super::kind::Kind;
use super::results::Results;
use super::saved::Saved;
use super::targets::{self, Verdict};
use super::{Run, lanes, plot, proxy};

pub(crate) const PAGE: &str = "README.md";

/// Writes a benchmark's files; its section.
pub(crate) fn write(results: &Results, run: &Run, made_with: &Circumstances) -> Result<String> {
    let mut data = results.json();
    if let Some(object) = data.as_object_mut() {
        object.insert("circumstances".to_owned(), made_with.json(run, results.rounds()));
    }
    let section = section(results, &data);
    let plot = if results.name == Kind::Lanes.name() { lanes::plot(results, run) } else { plot::bars(results) };
    put(&run.out, &format!("{}.json", results.name), &format!("{data:#}\n"))?;
    put(&run.out, &format!("{}.svg", results.name), &plot)?;
    put(&run.out, &format!("{}.md", results.name), &format!("{section}\n![{0}]({0}.svg)\n", results.name))?;
    Ok(section)
}

fn section(results: &Results, data: &Value) -> String {
    let mut text = format!("# {}\n\n{}\n\n{}\n", results.name, results.about, results.table());
    for line in results.troubles().iter().chain(&results.notes) {
        let _ = writeln!(text, "- {line}");
    }
    let circumstances = data.get("circumstances").map(made_with).unwrap_or_default();
    let _ = writeln!(text, "\n{circumstances}; {}.", results.network);
    text
}

/// One line of a run's circumstances.
fn made_with(circumstances: &Value) -> String {
    let text = |key: &str| circumstances.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| circumstances.get(key).and_then(Value::as_u64).unwrap_or_default();
    let quick = circumstances.get("quick").and_then(Value::as_bool).unwrap_or_default();
    format!(
        "`{}` on {}{}, rounds: {}, workers of each proxy: {}, kernel part of cmim: {}",
        text("command"),
        text("date"),
        if quick { " (quick: too short to be more than a hint)" } else { "" },
        number("rounds"),
        number("workers"),
        text("cmim_kernel_mode"),
    )
}

/// The page over all that lies there, also of earlier runs; what it says of the targets is returned, too.
pub(crate) fn index(out: &Path) -> Result<String> {
    let mut saved = Vec::new();
    for kind in Kind::EACH {
        if let Some(found) = Saved::read(out, kind)? {
            saved.push((kind, found));
        }
    }
    let table = table(&saved);
    let newest = saved.iter().map(|(_, saved)| saved).max_by_key(|saved| date(saved));
    let page = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench` out of the JSON files beside it; nothing here was typed in. cmim, HAProxy, \
         nginx and the direct path are measured in turn, round by round, in one run. Compare within a run only: figures of \
         different runs differ by what else the host did.\n\n{}\n## Targets\n\nA ratio is cmim's median by that of the \
         better peer of the same run, or of the one that is named; *rounds* is the spread of the single rounds, each by \
         the peer's next to it. *Total CPU* is all that the machine used (user, nice, system, irq, softirq), load generator \
         and origin with it, but for other programs. Where the time goes in the rows that are not reached, and what was tried, \
         is in [performance.md](../performance.md).\n\n{table}\n## What was measured\n\n{}\n{}",
        newest.map(machine).unwrap_or_default(),
        contents(&saved),
        configurations(),
    );
    put(out, PAGE, &page)?;
    Ok(format!("## Targets\n\n{table}"))
}

fn date(saved: &Saved) -> &str {
    saved.circumstance("date").and_then(Value::as_str).unwrap_or_default()
}

fn table(saved: &[(Kind, Saved)]) -> String {
    let mut text = targets::HEAD.to_owned();
    for target in targets::all() {
        let found = saved.iter().find(|(kind, _)| *kind == target.kind);
        let verdict =
            found.map_or_else(|| Verdict::Missing { why: "not measured".to_owned() }, |(_, saved)| target.judge(saved));
        text.push_str(&target.line(&verdict));
    }
    text
}

/// Of the newest run; each section has its own.
fn machine(saved: &Saved) -> String {
    let text = |key: &str| saved.circumstance(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| saved.circumstance(key).and_then(Value::as_u64).unwrap_or_default();
    let mut lines = format!(
        "- machine: {} CPUs ({}), {} MiB of memory\n- kernel: {}\n",
        number("processors"),
        text("processor"),
        number("memory_mib"),
        text("kernel")
    );
    let versions = saved.circumstance("versions").and_then(Value::as_object);
    let versions: Vec<&str> = versions.into_iter().flatten().filter_map(|(_, version)| version.as_str()).collect();
    let shown: Vec<&str> = versions.into_iter().filter(|version| !version.is_empty()).collect();
    let _ = writeln!(lines, "- programs: {}", shown.join(", "));
    let _ = writeln!(lines, "- newest run: `{}` on {}", text("command"), text("date"));
    lines
}

fn contents(saved: &[(Kind, Saved)]) -> String {
    let mut text = String::new();
    for (kind, saved) in saved {
        let name = kind.name();
        let circumstances = saved.circumstance("date").and_then(Value::as_str).unwrap_or_default();
        let quick = saved.circumstance("quick").and_then(Value::as_bool).unwrap_or_default();
        let _ = writeln!(
            text,
            "- **[{name}]({name}.md)** ([data]({name}.json), [plot]({name}.svg), {circumstances}{}): {}",
            if quick { ", quick: too short to be more than a hint" } else { "" },
            saved.text("about"),
        );
    }
    text
}

/// The configurations of all proxies, as they stand in xtask.
fn configurations() -> String {
    let mut text = "## The configurations\n\nWhat stands between @ signs is filled in by the run.\n".to_owned();
    for (name, program, language) in
        [("cmim", Program::Cmim, "toml"), ("HAProxy", Program::Haproxy, "haproxy"), ("nginx", Program::Nginx, "nginx")]
    {
        let _ = write!(text, "\n### {name}\n\n```{language}\n{}```\n", proxy::template(program));
    }
    let _ = write!(
        text,
        "\n### {}\n\nAt @forwarded@ of HAProxy's:\n\n```haproxy\n{}```\n",
        Contender::HaproxyForwarded,
        proxy::FORWARDED
    );
    text
}

fn put(out: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let path = out.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
