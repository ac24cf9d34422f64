//! What the measured cmim tells of itself, and what it is told: over its control socket, with its own binary.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The lanes of `cmim status`.
pub(crate) const LANES: [&str; 4] = ["copy", "pipe", "sockmap", "local"];

#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) binary: PathBuf,
    pub(crate) socket: PathBuf,
}

/// Splices so far, by lane, those under way included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Splices([Counted; LANES.len()]);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    total: u64,
    active: u64,
}

impl Control {
    /// What a `cmim` command prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .arg("--control")
            .arg(&self.socket)
            .args(arguments)
            .output()
            .with_context(|| format!("cmim {} did not start", arguments.join(" ")))?;
        if !output.status.success() {
            bail!("cmim {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn ask_json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.ask(arguments)?).with_context(|| format!("cmim {} is no JSON", arguments.join(" ")))
    }

    pub(crate) fn splices(&self) -> Result<Splices> {
        Splices::find(&self.ask_json(&["status", "--json"])?).context("cmim status --json tells nothing of its lanes")
    }
}

impl Control {
    /// How often the lane `local` was taken so far.
    pub(crate) fn local_splices(&self) -> Result<u64> {
        self.splices().map(|Splices([.., local])| local.total.max(local.active))
    }
}

impl Splices {
    fn find(status: &Value) -> Option<Self> {
        let mut counts = [Counted::default(); LANES.len()];
        for (count, lane) in counts.iter_mut().zip(LANES) {
            let told = |what: &str| status.get("lanes")?.get(lane)?.get(what)?.as_u64();
            *count = Counted { total: told("splices_total")?, active: told("active").unwrap_or(0) };
        }
        Some(Self(counts))
    }

    /// The lanes that were used since `earlier`, the most used first. A splice may be in the total when it begins or when
    /// it ends; one under way counts either way.
    pub(crate) fn used_since(&self, earlier: &Self) -> Vec<(&'static str, u64)> {
        let mut used: Vec<(&str, u64)> = LANES
            .into_iter()
            .zip(self.0.iter().zip(earlier.0))
            .map(|(lane, (now, before))| (lane, now.total.saturating_sub(before.total).max(now.active)))
            .filter(|(_, count)| *count > 0)
            .collect();
        used.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        used
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lanes_used_in_between_are_told_by_their_number() {
        let status = |copy: u64, pipe: u64| {
            json!({ "lanes": {
                "copy": { "splices_total": copy }, "pipe": { "splices_total": pipe },
                "sockmap": { "splices_total": 0, "active": 2 }, "local": { "splices_total": 3 },
            }})
        };
        let counts = [status(5, 1), status(6, 10)].map(|status| Splices::find(&status));
        let [Some(before), Some(after)] = counts else { panic!("{counts:?}") };
        assert_eq!(after.used_since(&before), [("pipe", 9), ("sockmap", 2), ("copy", 1)]);
        assert_eq!(Splices::find(&json!({ "lanes": {} })), None);
    }
}
