//! `cmim doctor`: what this host allows, and how to look at what is in the kernel.

use std::path::{Path, PathBuf};

use cmim_common::names;

use super::screen::{Form, Look, Paint};
use super::{CliError, Screen, run};
use crate::config::{self, Config, Quick, model};
use crate::kernel::{self, Finding};

const EXAMPLES: &str = "\
Examples:
  cmim doctor
  sudo cmim doctor --config ./cmim.toml
  cmim doctor --json | jq '.[] | select(.ok | not)'";

/// Say what this kernel and user allow: each program type, map, helper, capability and sysctl that the device wants,
/// and the way out where something is missing; which lanes there are, and the bpftool commands to look. Needs no running
/// daemon; run it as the user that runs the daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Look for what this file wants [default: /etc/cmim/cmim.toml where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let wanted = wanted(args.config.as_deref())?;
    let findings = kernel::doctor(&wanted.kernel, wanted.limits.request_head);
    screen.show(findings.as_slice(), args.form, |findings, look| {
        format!("{}{}", report(findings, look), bpftool(&wanted.kernel, look))
    })
}

fn wanted(file: Option<&Path>) -> Result<Config, CliError> {
    let default = Path::new(run::DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    match file {
        Some(file) => config::load(file).map_err(CliError::File),
        None => config::quick(&any_device()).map_err(CliError::Flags),
    }
}

/// A device with the defaults; its addresses are not used.
fn any_device() -> Quick {
    Quick { listen: vec!["127.0.0.1:8080".to_owned()], servers: vec!["127.0.0.1:9001".to_owned()], ..Quick::default() }
}

/// Grouped by kind, in the order in which the kinds come.
fn report(findings: &[Finding], look: Look) -> String {
    let mut text = String::new();
    let mut kinds: Vec<&str> = Vec::new();
    for finding in findings {
        if !kinds.contains(&finding.kind) {
            kinds.push(finding.kind);
        }
    }
    let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
    for kind in kinds {
        text.push_str(&look.paint(Paint::Heading, &kind.to_uppercase()));
        text.push('\n');
        for finding in findings.iter().filter(|finding| finding.kind == kind) {
            text.push_str(&line(finding, width, look));
        }
        text.push('\n');
    }
    text.push_str(&verdict(findings));
    text
}

fn line(finding: &Finding, width: usize, look: Look) -> String {
    let mark = if finding.ok { look.paint(Paint::Good, "ok") } else { look.paint(Paint::Bad, "no") };
    let mut text = format!("  {mark}  {:width$}  {}\n", finding.name, finding.detail);
    if let Some(way_out) = finding.way_out.as_deref().filter(|_| !finding.ok) {
        let way_out = look.paint(Paint::Warning, &format!("-> {way_out}"));
        text.push_str(&format!("      {:width$}  {way_out}\n", ""));
    }
    text
}

fn verdict(findings: &[Finding]) -> String {
    let missing = findings.iter().filter(|finding| !finding.ok).count();
    match missing {
        0 => format!("all {} are there\n", findings.len()),
        _ => format!(
            "{missing} of {} missing; the device runs without what needs them (kernel.mode = \"auto\")\n",
            findings.len()
        ),
    }
}

/// The commands that matter while a daemon with this table runs, for people: they are no findings.
fn bpftool(kernel: &model::Kernel, look: Look) -> String {
    if kernel.mode == model::KernelMode::Off {
        return String::new();
    }
    let dump = |map: &str| format!("bpftool map dump pinned {}", kernel.pin_dir.join(map).display());
    let commands = [
        (format!("bpftool prog show name {}", names::GUARD), "the guard; `cmim status` names the other programs"),
        ("bpftool net show".to_owned(), "what is attached to the interfaces"),
        (dump(names::LISTENERS), "the listeners, and what the guard counted for each"),
        (dump(names::COUNTERS), "all that the programs count, by CPU"),
        (dump(names::CONNECTIONS), "the connections that the kernel carries"),
        (dump(names::DENY_V4), "the deny list; CMIM_DENY_V6 has the IPv6 one"),
    ];
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let mut text = format!("\n{}\n", look.paint(Paint::Heading, "BPFTOOL"));
    for (command, shows) in commands {
        text.push_str(&format!("  {command:width$}  {}\n", look.paint(Paint::Aside, shows)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, kind: &'static str, ok: bool, way_out: Option<&str>) -> Finding {
        Finding {
            name: name.to_owned(),
            kind,
            ok,
            detail: "for the guard".to_owned(),
            way_out: way_out.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_missing_stands_with_its_way_out_under_its_kind() {
        let findings = [
            finding("CAP_BPF", "capability", false, Some("run as root")),
            finding("xdp", "program", true, None),
            finding("CAP_NET_ADMIN", "capability", true, None),
        ];
        assert_eq!(
            report(&findings, Look::default()),
            "\
CAPABILITY
  no  CAP_BPF        for the guard
                     -> run as root
  ok  CAP_NET_ADMIN  for the guard

PROGRAM
  ok  xdp            for the guard

1 of 3 missing; the device runs without what needs them (kernel.mode = \"auto\")
"
        );
    }

    #[test]
    fn the_bpftool_commands_have_the_pin_directory_of_the_file() {
        let mut kernel = config::quick(&any_device()).expect("a device").kernel;
        kernel.pin_dir = "/sys/fs/bpf/other".into();
        let text = bpftool(&kernel, Look::default());
        assert!(text.contains("bpftool prog show name cmim_guard "), "{text}");
        assert!(text.contains("bpftool map dump pinned /sys/fs/bpf/other/CMIM_CONNECTIONS "), "{text}");
        kernel.mode = model::KernelMode::Off;
        assert_eq!(bpftool(&kernel, Look::default()), "", "there is nothing to look at");
    }
}
