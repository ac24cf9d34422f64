//! The tour's lines about the kernel part: what the device says is there, checked with bpftool; and that it is gone after.

use std::net::TcpStream;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Found;
use crate::command::{ask, is_root, which};
use crate::device::Device;

/// For the kernel to let go of what nobody uses any more.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The kernel keeps this many bytes of a program's name.
const NAME_LENGTH: usize = 15;
/// Maps whose fields are shown by name.
const SHOWN_MAPS: [&str; 2] = ["CMIM_LISTENERS", COUNTERS];
const COUNTERS: &str = "CMIM_COUNTERS";
/// Counts the packets to a listener; not shown while it is 0.
const TO_LISTENER: &str = "\"to_listener\"";
/// Where the demo's configuration has the guard.
const LOOPBACK: &str = "lo";

/// Ids of the programs in the kernel before the device started; `None`: nobody may ask.
#[derive(Debug)]
pub(crate) struct Before {
    programs: Option<Vec<u64>>,
}

impl Before {
    pub(crate) fn look() -> Self {
        Self { programs: listed().map(|list| list.into_iter().map(|(id, _)| id).collect()) }
    }
}

/// What the device has in the kernel: the ids of its programs, and what to show. Without the rights it has nothing there,
/// and the line says why.
pub(crate) fn loaded(device: &Device, before: &Before) -> Result<(Vec<u64>, Vec<String>)> {
    let status = device.status()?;
    let kernel = status.get("kernel").context("cmim status --json has no \"kernel\"")?;
    let missing = texts(kernel, "missing");
    let mode = text(kernel, "mode");
    if mode == "off" {
        return Ok((Vec::new(), excused(missing, before)?));
    }
    let programs: Vec<&Value> = kernel.get("programs").and_then(Value::as_array).into_iter().flatten().collect();
    ensure!(!programs.is_empty(), "{mode}, but cmim status names no program");
    let mut shown =
        vec![format!("{mode}; {}", programs.iter().map(|program| described(program)).collect::<Vec<_>>().join(", "))];
    shown.extend(missing.iter().map(|what| format!("not here: {what}")));
    let ids = program_ids(&programs, before, &mut shown)?;
    let guarded = programs.iter().any(|program| texts(program, "attached_to").iter().any(|at| at == LOOPBACK));
    shown.extend(maps(kernel, guarded)?);
    Ok((ids, shown))
}

/// A kernel part that is off is right where the host does not allow it, and only there.
fn excused(missing: Vec<String>, before: &Before) -> Found {
    ensure!(!missing.is_empty(), "off, and cmim status does not say why");
    ensure!(!may_load(before), "off although this user may load programs: {}", missing.join("; "));
    Ok(std::iter::once("off, userspace carries everything:".to_owned()).chain(missing).collect())
}

fn described(program: &Value) -> String {
    let at = texts(program, "attached_to");
    let at = if at.is_empty() { "loaded".to_owned() } else { format!("on {}", at.join(", ")) };
    format!("{} ({}, {at})", text(program, "name"), text(program, "kind"))
}

/// Each map is pinned; bpftool reads those that a person looks at first.
fn maps(kernel: &Value, guarded: bool) -> Found {
    let pin_dir = Path::new(text(kernel, "pin_dir"));
    let maps = texts(kernel, "maps");
    for map in &maps {
        ensure!(pin_dir.join(map).exists(), "{map} is not pinned in {}", pin_dir.display());
    }
    let mut shown = vec![format!("maps pinned in {}: {}", pin_dir.display(), maps.join(", "))];
    if which("bpftool").is_some() {
        for map in SHOWN_MAPS.into_iter().filter(|map| maps.iter().any(|own| own == map)) {
            let lines = dump(&pin_dir.join(map))?;
            let idle = map == COUNTERS && guarded && !lines.iter().any(|line| line.contains(TO_LISTENER));
            ensure!(!idle, "the guard is on {LOOPBACK} and counted no packet of the tour");
            shown.extend(lines);
        }
    }
    Ok(shown)
}

/// Finds each program in bpftool's own list.
fn program_ids(programs: &[&Value], before: &Before, shown: &mut Vec<String>) -> Result<Vec<u64>> {
    let (Some(list), Some(old)) = (listed(), &before.programs) else {
        shown.push("bpftool is not here to look: cargo xtask setup --tests installs it".to_owned());
        return Ok(Vec::new());
    };
    let mut ids = Vec::new();
    for program in programs {
        let cut: String = text(program, "name").chars().take(NAME_LENGTH).collect();
        let found = list.iter().find(|(id, own)| *own == cut && !old.contains(id) && !ids.contains(id));
        let Some((id, _)) = found else { bail!("bpftool prog show does not list {cut}") };
        ids.push(*id);
    }
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    shown.push(format!("bpftool prog show      lists them (ids {})", list.join(", ")));
    Ok(ids)
}

/// The first entry of a map, as bpftool reads it.
fn dump(path: &Path) -> Result<Vec<String>> {
    let path = path.display().to_string();
    let Some(json) = ask("bpftool", ["-j", "map", "dump", "pinned", &path]) else {
        bail!("bpftool map dump pinned {path} failed")
    };
    let entries: Value = serde_json::from_str(&json).with_context(|| format!("bpftool map dump pinned {path}"))?;
    let first = entries.get(0).with_context(|| format!("{path} is empty"))?;
    // With BTF the fields have names; without, bpftool has only the bytes.
    let named = first.get("formatted").with_context(|| format!("{path} has no BTF: bpftool cannot name its fields"))?;
    let mut shown = vec![format!("bpftool map dump pinned {path}")];
    match named.get("values").and_then(Value::as_array) {
        None => shown.push(format!("    {named}")),
        Some(values) => shown.push(format!("    all CPUs: {}", Value::Object(summed(values)))),
    }
    Ok(shown)
}

/// A per-CPU value's fields, added up.
fn summed(values: &[Value]) -> serde_json::Map<String, Value> {
    let mut sums = serde_json::Map::new();
    let fields = values.iter().filter_map(|cpu| cpu.get("value")?.as_object()).flatten();
    for (name, value) in fields {
        let sum = sums.get(name).and_then(Value::as_u64).unwrap_or(0);
        sums.insert(name.clone(), Value::from(sum.saturating_add(value.as_u64().unwrap_or(0))));
    }
    sums.retain(|_, sum| sum.as_u64() != Some(0));
    sums
}

/// Whether all of it is gone: programs, pins, control socket, listener.
pub(crate) fn gone(device: &Device, ids: &[u64], status: ExitStatus) -> Found {
    ensure!(status.success(), "cmim ended with {status}");
    ensure!(!device.control.exists(), "the control socket {} is still there", device.control.display());
    ensure!(!device.pin_dir.exists(), "{} is still there", device.pin_dir.display());
    ensure!(TcpStream::connect(device.address).is_err(), "something still listens on {}", device.address);
    // The kernel lets go of a program behind the last socket that it was on, which takes a moment.
    let end = Instant::now() + PATIENCE;
    let left = || listed().unwrap_or_default().iter().filter(|(id, _)| ids.contains(id)).count();
    while left() > 0 && Instant::now() < end {
        thread::sleep(LOOK_EVERY);
    }
    ensure!(left() == 0, "{} of its programs are still in the kernel after {} s", left(), PATIENCE.as_secs());
    Ok(vec!["exit code 0; no listener, no control socket, no pins, no programs".to_owned()])
}

/// Whether the kernel part has no excuse: root, with bpffs, in a kernel that lists programs to us.
fn may_load(before: &Before) -> bool {
    is_root()
        && before.programs.is_some()
        && std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" bpf "))
}

/// Id and name of every program, from bpftool.
fn listed() -> Option<Vec<(u64, String)>> {
    let list: Value = serde_json::from_str(&ask(which("bpftool")?, ["-j", "prog", "show"])?).ok()?;
    let entry = |program: &Value| Some((program.get("id")?.as_u64()?, text(program, "name").to_owned()));
    Some(list.as_array()?.iter().filter_map(entry).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
