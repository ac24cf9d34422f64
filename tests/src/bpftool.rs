//! What bpftool sees of a device.
//!
//! Programs and maps are found by the descriptors of the process, so that other devices on this host do not matter.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::skip;

#[track_caller]
pub fn bpftool(arguments: &[&str]) -> Value {
    let output = Command::new(skip::find("bpftool").expect("bpftool")).arg("-j").args(arguments).output();
    let output = output.expect("running bpftool");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "bpftool {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("bpftool {arguments:?}: {error}: {text}"))
}

/// The ids of `what` ("prog" or "map") behind the descriptors of a process.
pub fn ids(what: &str, pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("{what}_id:")))?;
            value.trim().parse().ok()
        })
        .collect()
}

/// The ids of `what` that the kernel has, of whoever.
pub fn all_ids(what: &str) -> BTreeSet<u64> {
    let list = bpftool(&[what, "show"]);
    list.as_array().into_iter().flatten().filter_map(|entry| entry["id"].as_u64()).collect()
}

pub fn program_names(pid: u32) -> BTreeSet<String> {
    names_of(&ids("prog", pid))
}

/// The names of those of these programs that the kernel has.
pub fn names_of(own: &BTreeSet<u64>) -> BTreeSet<String> {
    let list = bpftool(&["prog", "show"]);
    let entries = list.as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["id"].as_u64().is_some_and(|id| own.contains(&id)))
        .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect()
}

/// The entries of a pinned map, each as named fields.
#[track_caller]
pub fn dump(pin_dir: &Path, map: &str) -> Vec<Value> {
    let path = pin_dir.join(map).display().to_string();
    let entries = bpftool(&["map", "dump", "pinned", &path]);
    let entries = entries.as_array().unwrap_or_else(|| panic!("no entries: {entries}"));
    entries.iter().map(|entry| entry.get("formatted").unwrap_or(entry).clone()).collect()
}

/// A number, also where bpftool writes it as "0x1f".
pub fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    })
}

pub fn pins(pin_dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(pin_dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
