//! Requests made back to back on one client connection: how long until the last reply.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::origins;
use super::peers::{Kind, Peer};
use super::statistics::{Summary, milliseconds};
use crate::command::ask;
use crate::demo::client::Client;
use crate::progress::Step;

/// Requests of one stack.
const STACK: usize = 16;
const SERVERS: usize = 4;
/// How long one page takes, in milliseconds.
const PAGES: [u64; 2] = [100, 20];

/// One device's rounds for one kind of page.
#[derive(Debug)]
struct Series {
    kind: Kind,
    page: u64,
    rounds: Vec<Duration>,
}

pub(super) fn run(binary: &Path, rounds: usize, out: &Path) -> Result<ExitCode> {
    let servers: Vec<SocketAddr> = (0..SERVERS).map(|_| origins::start()).collect::<Result<_>>()?;
    let (mut peers, mut failed) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        match Peer::start(kind, binary, &servers) {
            Ok(peer) => peers.push(peer),
            Err(error) if kind == Kind::Cmim => return Err(error),
            Err(error) => failed.push(format!("{}: {error:#}", kind.name())),
        }
    }
    let mut all = Vec::new();
    for page in PAGES {
        let mut series: Vec<Series> =
            peers.iter().map(|peer| Series { kind: peer.kind, page, rounds: Vec::new() }).collect();
        for round in 1..=rounds {
            let step = Step::start("bench", format!("{STACK} stacked {page} ms pages, round {round} of {rounds}"));
            let mut found = Vec::new();
            for (peer, series) in peers.iter().zip(&mut series) {
                let took = stack(peer.address, page).with_context(|| format!("through {}", peer.kind.name()))?;
                found.push(format!("{} {} ms", peer.kind.name(), milliseconds(took)));
                series.rounds.push(took);
            }
            step.done(found.join(", "));
        }
        all.append(&mut series);
    }
    let table = table(&all);
    println!("\n{table}");
    for failure in &failed {
        println!("not measured: {failure}");
    }
    write(binary, out, &table, &all, &failed)?;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends a whole stack in one write and reads its replies; each must be there, whole and in its place.
fn stack(address: SocketAddr, page: u64) -> Result<Duration> {
    let mut client = Client::connect(address)?;
    let requests: String =
        (0..STACK).map(|number| format!("GET /{page}/{number} HTTP/1.1\r\nHost: bench\r\n\r\n")).collect();
    let began = Instant::now();
    client.send(&requests)?;
    for number in 0..STACK {
        let reply = client.read().with_context(|| format!("reply {number}"))?;
        let wanted = format!("/{page}/{number}");
        if reply.status() != "200" || reply.content != wanted.as_bytes() {
            bail!("reply {number} is {} with {} bytes, and not the page {wanted}", reply.status(), reply.content.len());
        }
    }
    Ok(began.elapsed())
}

/// Medians and spreads, and how many page times the stack took.
fn table(all: &[Series]) -> String {
    let mut text = format!(
        "| {STACK} stacked pages of | through | median ms | least to most | page times |\n|---|---|---:|---:|---:|\n"
    );
    for series in all {
        let Some(summary) = Summary::of(&series.rounds) else { continue };
        let pages = summary.median.as_secs_f64() * 1000.0 / series.page as f64;
        text.push_str(&format!(
            "| {} ms | {} | {} | {} to {} | {pages:.2} |\n",
            series.page,
            series.kind.name(),
            milliseconds(summary.median),
            milliseconds(summary.least),
            milliseconds(summary.most),
        ));
    }
    text
}

/// The report: the table with what it was measured on, and every round as data.
fn write(binary: &Path, out: &Path, table: &str, all: &[Series], failed: &[String]) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let kernel = ask("uname", ["-sr"]).unwrap_or_default();
    let versions: Vec<String> = Kind::ALL.iter().map(|kind| kind.version(binary)).collect();
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let text = format!(
        "# Stacked requests\n\n{STACK} GETs in one write on one client connection, over {SERVERS} servers that work on {} \
         pages at once each; loopback, all in one run and in turn, {} rounds.\n\n{table}\n`cargo xtask {command}` on {}; {}.\n",
        origins::AT_ONCE,
        all.first().map_or(0, |series| series.rounds.len()),
        kernel.trim(),
        versions.join("; "),
    );
    fs::write(out.join("stacked.md"), text)?;
    let series: Vec<Value> = all
        .iter()
        .map(|series| {
            let rounds: Vec<f64> = series.rounds.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
            json!({ "through": series.kind.name(), "page_ms": series.page, "rounds_ms": rounds })
        })
        .collect();
    let data = json!({
        "work": "stacked", "stack": STACK, "servers": SERVERS, "at_once": origins::AT_ONCE, "kernel": kernel.trim(),
        "versions": versions, "command": command, "series": series, "not_measured": failed,
    });
    fs::write(out.join("stacked.json"), format!("{data:#}\n"))?;
    Ok(())
}
