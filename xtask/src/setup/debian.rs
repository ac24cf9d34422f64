//! Debian packages: whether apt can give them, and installing them without leaving a service running.

use std::io::{self, IsTerminal};
use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};

use crate::command::{ask, clean, is_root, step, which};

/// What apt-get is run with. `--no-remove`: we never take a package away from the host (rustc-web, for one, conflicts
/// with Debian's own rustc and rustup packages).
const INSTALL: &str = "apt-get install -y --no-install-recommends --no-remove";

/// Runs as root with the packages as its arguments. A policy-rc.d that says 101 keeps package scripts from starting
/// services; one that is already there stays as it is. Services that came with this run are also not started by the
/// next boot: port 80 is the operator's.
const SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
options="-q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
fresh=
for service in nginx lighttpd haproxy; do
    [ -e "/lib/systemd/system/$service.service" ] || fresh="$fresh $service"
done
# Lists that are days old name files that the mirror no longer has.
@INSTALL@ $options "$@" || { apt-get update $options; @INSTALL@ $options "$@"; }
for service in $fresh; do
    if [ -e "/lib/systemd/system/$service.service" ]; then
        rm -f "/etc/systemd/system/multi-user.target.wants/$service.service"
        update-rc.d "$service" disable || true
    fi
done
"#;

/// How a command becomes root's.
enum Root {
    Already,
    Sudo,
    No,
}

/// Whether this host has apt and apt has every one of these packages.
pub(crate) fn offers(packages: &[&str]) -> bool {
    if which("apt-get").is_none() {
        return false;
    }
    if knows(packages) {
        return true;
    }
    match root() {
        // The way out that `install` tells begins with an update.
        Root::No => lists_are_empty() && is_debian(),
        Root::Already | Root::Sudo => {
            fetch_lists();
            knows(packages)
        }
    }
}

fn knows(packages: &[&str]) -> bool {
    packages.iter().all(|package| ask("apt-cache", ["policy", package]).is_some_and(|text| has_candidate(&text)))
}

/// Fetches apt's lists, once a run: an image's are as old as the image, and what Debian has brought since is not in them.
fn fetch_lists() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(mut command) = as_root("apt-get") else { return };
        command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "update"]);
        // The step has said why it failed; with the lists as they were, there may be another way.
        let _ = step("setup", "Debian's package lists", command, |_| "fetched".to_owned());
    });
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let script = SCRIPT.replace("@INSTALL@", INSTALL);
    let Some(mut command) = as_root("sh") else {
        bail!(
            "these Debian packages are missing and need root to install. Run:\n\n    su -c 'apt-get update && {INSTALL} {names}'\n"
        );
    };
    command.args(["-c", &script, "apt"]).args(packages);
    step("setup", &format!("Debian packages {names}"), command, |_| "installed".to_owned())?;
    Ok(())
}

fn is_debian() -> bool {
    std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

fn lists_are_empty() -> bool {
    let Ok(entries) = std::fs::read_dir("/var/lib/apt/lists") else { return true };
    !entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().any(|line| line.trim().strip_prefix("Candidate: ").is_some_and(|version| !version.starts_with('(')))
}

/// A command that runs this program as root, where there is a way.
fn as_root(program: &str) -> Option<Command> {
    match root() {
        Root::Already => Some(clean(program)),
        Root::Sudo => {
            let mut command = Command::new("sudo");
            command.arg(program);
            Some(command)
        }
        Root::No => None,
    }
}

fn root() -> Root {
    if is_root() {
        return Root::Already;
    }
    // sudo may ask for its password only where somebody sits.
    let usable = which("sudo").is_some() && (ask("sudo", ["-n", "true"]).is_some() || io::stdin().is_terminal());
    if usable { Root::Sudo } else { Root::No }
}

#[cfg(test)]
mod tests {
    use super::has_candidate;

    #[test]
    fn a_package_without_candidate_is_not_offered() {
        assert!(has_candidate("wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3+b2\n"));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
