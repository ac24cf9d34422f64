//! `cargo xtask install` and `uninstall`: the binary with its configuration, unit, man pages and completions.
//!
//! What an install wrote stands in a list of its own, so that uninstall removes exactly that, whatever a later version
//! installs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::fs::{Access, access};

use crate::build::{self, build};
use crate::command::{ask, is_root};
use crate::progress::note;
use crate::project::Project;

mod contents;
mod layout;
mod remove;

use layout::Layout;
pub(crate) use remove::uninstall;

const SYSTEMD_RUNS: &str = "/run/systemd/system";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to; /etc/cmim is used with /usr and /usr/local, else PREFIX/etc/cmim
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put before every path: for packages
    #[arg(long)]
    destdir: Option<PathBuf>,
}

impl Options {
    fn layout(&self) -> Result<Layout> {
        ensure!(self.prefix.is_absolute(), "--prefix {} is not an absolute path", self.prefix.display());
        Ok(Layout::new(&self.prefix, self.destdir.as_deref()))
    }

    /// Whether the host's own systemd finds it and is to know.
    fn is_for_this_host(&self) -> bool {
        self.destdir.is_none() && layout::is_hosts_own(&self.prefix) && is_root() && Path::new(SYSTEMD_RUNS).is_dir()
    }
}

pub(crate) fn install(project: &Project, options: &Options) -> Result<()> {
    let layout = options.layout()?;
    ensure_writable(&layout.on_disk(&layout.binary()))?;
    let binary = build_whole(project)?;
    let mut written = write_files(project, &layout, &binary)?;
    let config = contents::default_config(&binary)?;
    written.push(write_config(&layout, &config)?);
    write(&layout.on_disk(&layout.pristine_config()), &config, contents::PLAIN)?;
    written.push(layout.pristine_config());
    layout.record(written)?;
    tell_systemd(options);
    note(
        "install",
        format!("cmim {} is installed; edit {}, then start it", version(&binary), layout.config().display()),
    );
    Ok(())
}

/// Writes what belongs into a package under `stage`, for the prefix /usr and without the list for uninstall; the version.
pub(crate) fn stage(project: &Project, stage: &Path) -> Result<String> {
    let layout = Layout::new(Path::new("/usr"), Some(stage));
    let binary = build_whole(project)?;
    write_files(project, &layout, &binary)?;
    write(&layout.on_disk(&layout.config()), &contents::default_config(&binary)?, contents::PLAIN)?;
    Ok(version(&binary))
}

fn build_whole(project: &Project) -> Result<PathBuf> {
    build(project, &build::Options { no_bpf: false, profile: "release".to_owned() })
}

/// All but the configuration; where it is, as the running system will see it.
fn write_files(project: &Project, layout: &Layout, binary: &Path) -> Result<Vec<PathBuf>> {
    let mut written: Vec<PathBuf> = Vec::new();
    for file in contents::gather(project, layout, binary)? {
        write(&layout.on_disk(&file.path), &file.bytes, file.mode)?;
        note("install", layout.on_disk(&file.path).display().to_string());
        written.push(file.path);
    }
    Ok(written)
}

/// A configuration that is there stays; the new default then lies beside it. Returns what was written or is ours.
fn write_config(layout: &Layout, fresh: &[u8]) -> Result<PathBuf> {
    let config = layout.config();
    let on_disk = layout.on_disk(&config);
    let Ok(present) = fs::read(&on_disk) else {
        write(&on_disk, fresh, contents::PLAIN)?;
        note("install", on_disk.display().to_string());
        return Ok(config);
    };
    if present == fresh {
        note("install", format!("{} (as it was)", on_disk.display()));
        return Ok(config);
    }
    let beside = config.with_extension("toml.new");
    write(&layout.on_disk(&beside), fresh, contents::PLAIN)?;
    note("install", format!("{} (yours stays; the new default is beside it)", layout.on_disk(&beside).display()));
    Ok(beside)
}

/// Beside its place first: a running binary cannot be written to, and nobody sees half a file.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = path.parent().context("a file without a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let mut name = path.file_name().context("a file without a name")?.to_owned();
    name.push(".cmim-install");
    let beside = path.with_file_name(name);
    fs::write(&beside, bytes).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))
}

/// Before the minutes of a build rather than after them.
fn ensure_writable(file: &Path) -> Result<()> {
    let Some(there) = file.ancestors().skip(1).find(|directory| directory.exists()) else { return Ok(()) };
    if access(there, Access::WRITE_OK).is_err() {
        bail!(
            "{} is not writable: run this as root (sudo env PATH=\"$PATH\" cargo xtask …), or choose a --prefix",
            there.display()
        );
    }
    Ok(())
}

fn tell_systemd(options: &Options) {
    if !options.is_for_this_host() {
        return;
    }
    let steps: [&[&str]; 3] = [
        &["systemd-sysusers", "cmim.conf"],
        &["systemd-tmpfiles", "--create", "cmim.conf"],
        &["systemctl", "daemon-reload"],
    ];
    for step in steps {
        let Some((program, arguments)) = step.split_first() else { continue };
        if ask(program, arguments).is_none() {
            note("install", format!("{} failed: run it by hand before the first start", step.join(" ")));
        }
    }
    note("install", "start it with: systemctl enable --now cmim");
}

fn version(binary: &Path) -> String {
    ask(binary, ["--version"]).and_then(|text| text.split_whitespace().last().map(str::to_owned)).unwrap_or_default()
}
