//! `cargo xtask deb`: what install writes, as a Debian package.
//!
//! dpkg owns what it unpacks, so the list for `cargo xtask uninstall` is not in it. The service is neither enabled nor
//! started: its configuration has no servers yet. The scripts are those of packaging/deb.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{ask, step, which};
use crate::install;
use crate::progress::note;
use crate::project::Project;

const CONFIG: &str = "/etc/cmim/cmim.toml";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const PLAIN: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const DESCRIPTION: &str = "HTTP connection manager with its lanes in the kernel
 A device between many HTTP clients and many HTTP servers that manages the
 connections on both sides: it buffers, pools, queues and distributes requests,
 and admits, steers and splices TCP connections with BPF programs.";

/// What the package says of itself.
#[derive(Debug)]
struct Facts {
    version: String,
    architecture: String,
    /// Of the host that it was built on: the least one that the binary is known to run with.
    libc: String,
    maintainer: String,
}

pub(crate) fn run(project: &Project) -> Result<()> {
    ensure!(
        which("dpkg-deb").is_some(),
        "there is no dpkg-deb here: build the package on Debian or one of its children"
    );
    let directory = project.target().join("deb");
    let stage = directory.join("stage");
    // Files of an earlier version.
    let _ = fs::remove_dir_all(&stage);
    let version = install::stage(project, &stage)?;
    let package = pack(project, &stage, &Facts::of_this_host(version)?, &directory)?;
    note("deb", format!("install it with: apt install {}", package.display()));
    Ok(())
}

impl Facts {
    fn of_this_host(version: String) -> Result<Self> {
        let said = |program: &str, arguments: &[&str]| {
            let said = ask(program, arguments).with_context(|| format!("{program} {} failed", arguments.join(" ")))?;
            Ok::<_, anyhow::Error>(said.trim().to_owned())
        };
        // As Debian's own tools have it.
        let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let libc = said("dpkg-query", &["--show", "--showformat=${Version}", "libc6"])?;
        Ok(Self {
            version,
            architecture: said("dpkg", &["--print-architecture"])?,
            libc: libc.split('-').next().unwrap_or_default().to_owned(),
            maintainer: format!("{} <{}>", variable("DEBFULLNAME", "cmim"), variable("DEBEMAIL", "root@localhost")),
        })
    }

    fn control(&self, kibibytes: u64) -> String {
        let Self { version, architecture, libc, maintainer } = self;
        format!(
            "Package: cmim\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {maintainer}\n\
             Installed-Size: {kibibytes}\nSection: httpd\nPriority: optional\n\
             Depends: libc6 (>= {libc}), libgcc-s1, systemd | systemd-standalone-sysusers, \
             systemd | systemd-standalone-tmpfiles\nRecommends: bpftool\nDescription: {DESCRIPTION}\n"
        )
    }
}

/// Makes a package of the files under `stage`; returns its path, in `directory`.
fn pack(project: &Project, stage: &Path, facts: &Facts, directory: &Path) -> Result<PathBuf> {
    let bytes = settle(stage)?;
    let own = stage.join("DEBIAN");
    fs::create_dir(&own).with_context(|| format!("making {}", own.display()))?;
    let put = |name: &str, text: &str, mode| {
        let path = own.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(anyhow::Error::from)
    };
    put("control", &facts.control(bytes.div_ceil(1024)), PLAIN)?;
    put("conffiles", &format!("{CONFIG}\n"), PLAIN)?;
    for name in SCRIPTS {
        let source = project.root().join("packaging/deb").join(name);
        let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        put(name, &text, PROGRAM)?;
    }
    fs::set_permissions(&own, Permissions::from_mode(PROGRAM))?;
    let package = directory.join(format!("cmim_{}_{}.deb", facts.version, facts.architecture));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "--build"]).arg(stage).arg(&package);
    step("deb", "package", command, |_| project.shown(&package))?;
    Ok(package)
}

/// Makes the directories everybody's to enter, whatever the umask was; the bytes of all files.
fn settle(directory: &Path) -> Result<u64> {
    fs::set_permissions(directory, Permissions::from_mode(PROGRAM))?;
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let data = fs::symlink_metadata(&path)?;
        bytes += if data.is_dir() { settle(&path)? } else { data.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What `dpkg-deb ARGUMENTS` says.
    fn dpkg_deb(arguments: &[&str]) -> String {
        ask("dpkg-deb", arguments).unwrap_or_else(|| panic!("dpkg-deb {arguments:?} failed"))
    }

    /// A stage with a binary and a configuration, as [`install::stage`] leaves it.
    fn stage(directory: &Path) -> PathBuf {
        let stage = directory.join("stage");
        for (file, text, mode) in [("usr/bin/cmim", "a binary", 0o755), ("etc/cmim/cmim.toml", "# empty\n", 0o644)] {
            let path = stage.join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        }
        // As a umask of 077 has it.
        fs::set_permissions(stage.join("etc"), Permissions::from_mode(0o700)).expect("its mode");
        stage
    }

    #[test]
    fn a_package_unpacks_to_what_was_staged_and_knows_its_configuration() {
        if which("dpkg-deb").is_none() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: a_package_unpacks_…: `dpkg-deb` is not installed");
            return;
        }
        let directory = std::env::temp_dir().join(format!("cmim-deb-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let facts = Facts {
            version: "1.2.3".to_owned(),
            architecture: "amd64".to_owned(),
            libc: "2.36".to_owned(),
            maintainer: "A Tester <tester@localhost>".to_owned(),
        };
        let project = Project::find().expect("this one");
        let package = pack(&project, &stage(&directory), &facts, &directory).expect("packed");
        assert_eq!(package, directory.join("cmim_1.2.3_amd64.deb"));
        let package = package.display().to_string();
        assert_eq!(dpkg_deb(&["--field", &package, "Package", "Version"]), "Package: cmim\nVersion: 1.2.3\n");
        let listed = dpkg_deb(&["--contents", &package]);
        for line in ["-rwxr-xr-x root/root", "./usr/bin/cmim", "-rw-r--r-- root/root", "./etc/cmim/cmim.toml"] {
            assert!(listed.contains(line), "no {line} in {listed}");
        }
        assert!(
            listed.lines().filter(|line| line.starts_with('d')).all(|line| line.starts_with("drwxr-xr-x")),
            "{listed}"
        );
        let unpacked = directory.join("unpacked").display().to_string();
        dpkg_deb(&["--raw-extract", &package, &unpacked]);
        let read = |file: &str| fs::read_to_string(Path::new(&unpacked).join(file)).expect("in the package");
        assert_eq!(read("usr/bin/cmim"), "a binary");
        assert_eq!(read("DEBIAN/conffiles"), "/etc/cmim/cmim.toml\n");
        for name in SCRIPTS {
            let script = Path::new(&unpacked).join("DEBIAN").join(name);
            assert!(ask("sh", [Path::new("-n"), script.as_path()]).is_some(), "{name} is no shell script");
        }
        assert!(!read("DEBIAN/postinst").contains("systemctl start"), "the operator starts it");
        fs::remove_dir_all(directory).expect("removed");
    }
}
