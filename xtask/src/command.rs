//! Running other programs: as a step with its progress line, quietly, or in a clean environment.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// How much of a failed program's output is shown; all of it is rarely what helps.
const SHOWN_LINES: usize = 200;

/// What a program said, both streams as they came, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) success: bool,
}

/// Runs a program to its end, handing each line to `line` as it comes.
pub(crate) fn listen(mut command: Command, mut line: impl FnMut(&str)) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = io::pipe().context("no pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("{name} did not start"))?;
    // It holds our copies of the pipe's writing end.
    drop(command);
    let mut text = String::new();
    for got in BufReader::new(reader).split(b'\n') {
        let bytes = got.with_context(|| format!("reading from {name}"))?;
        let got = String::from_utf8_lossy(&bytes);
        line(&got);
        text.push_str(&got);
        text.push('\n');
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    Ok(Said { text, success: status.success() })
}

/// Runs a program as one step: its output shows live and, when it fails, in full. `found` says what came out.
pub(crate) fn step(
    task: &'static str,
    title: &str,
    command: Command,
    found: impl FnOnce(&str) -> String,
) -> Result<String> {
    let shown = shown(&command);
    let step = Step::start(task, title);
    let said = listen(command, |line| step.live(line))?;
    if said.success {
        step.done(found(&said.text));
        return Ok(said.text);
    }
    step.failed("failed");
    eprint!("{}", tail(&said.text));
    bail!("`{shown}` failed")
}

/// Runs a check as one step: a failure is an answer, shown with its output and the way out.
pub(crate) fn check(task: &'static str, title: &str, command: Command, way_out: &str) -> Result<bool> {
    let step = Step::start(task, title);
    let said = listen(command, |line| step.live(line))?;
    if said.success {
        step.done("ok");
        return Ok(true);
    }
    step.failed("FAILED");
    eprint!("{}", tail(&said.text));
    if !way_out.is_empty() {
        eprintln!("{way_out}");
    }
    Ok(false)
}

/// Runs a program quietly and returns its standard output; `None` when it is absent or fails.
pub(crate) fn ask<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command without what the cargo and rustup around us set for their own toolchain. Where registries, proxies and
/// homes are stays.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let cargo = (text == "CARGO" || text.starts_with("CARGO_")) && !KEPT.iter().any(|kept| text.starts_with(kept));
        // LD_LIBRARY_PATH: cargo run points it at its own toolchain's libraries.
        let rust = text.starts_with("RUSTC")
            || text.starts_with("RUSTFLAGS")
            || text.starts_with("RUSTDOC")
            || text == "RUSTUP_TOOLCHAIN";
        if cargo || rust || text == "LD_LIBRARY_PATH" || text.starts_with("__CARGO") {
            command.env_remove(&name);
        }
    }
    command
}

/// Where a program of this name is on the search path.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Debian keeps bpftool, ip and nginx where a plain user's search path does not look.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|directory| directory.join(name)).find(|file| is_program(file))
}

pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// `directory` put before the search path.
pub(crate) fn path_with(directory: &Path) -> Result<std::ffi::OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(directory.to_owned()).chain(env::split_paths(&rest)))
        .context("PATH cannot be extended")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        text.push(' ');
        // A script is not worth repeating.
        text.push_str(if argument.contains('\n') { "…" } else { &argument });
    }
    text
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    let mut shown = if from > 0 { format!("… {from} lines before these\n") } else { String::new() };
    for line in lines.iter().skip(from) {
        shown.push_str(line);
        shown.push('\n');
    }
    shown
}
