//! `cargo xtask build`: the BPF object, then the `cmim` binary with the object embedded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::step;
use crate::progress::{note, size};
use crate::project::{Project, cargo};
use crate::setup;

/// Tells cmim-userspace's build script which object to embed.
const BPF_OBJECT: &str = "CMIM_BPF_OBJECT";
const BPF_TARGET: &str = "bpfel-unknown-none";

// Other tasks take these options among their own, which are called Options, too.
#[derive(Debug, Clone, Args)]
#[group(id = "build")]
pub(crate) struct Options {
    /// Without the kernel part: no BPF toolchain needed, userspace lanes only
    #[arg(long)]
    pub(crate) no_bpf: bool,
    /// Cargo profile of the binary (`release`, `dev`, `test-device`)
    #[arg(long, default_value = "release")]
    pub(crate) profile: String,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let binary = build(project, options)?;
    note("build", format!("{} is ready", project.shown(&binary)));
    Ok(())
}

/// Builds and returns the binary's path.
pub(crate) fn build(project: &Project, options: &Options) -> Result<PathBuf> {
    if options.no_bpf {
        // cmim-userspace's build script embeds what it finds there.
        let _ = fs::remove_file(project.bpf_object());
        return binary(project, &options.profile, None);
    }
    let object = bpf_object(project)?;
    binary(project, &options.profile, Some(&object))
}

/// The BPF object, fresh. It lies under the target directory with a name that does not change.
pub(crate) fn bpf_object(project: &Project) -> Result<PathBuf> {
    let toolchain = setup::bpf(project)?;
    let build = project.target().join("bpf/build");
    let mut command = toolchain.build()?;
    command.arg("--release").current_dir(project.root().join("cmim-ebpf")).env("CARGO_TARGET_DIR", &build);
    let built = build.join(BPF_TARGET).join("release/cmim-ebpf");
    let object = project.bpf_object();
    step("build", "BPF object", command, |_| format!("{}, {}", project.shown(&object), length(&built)))?;
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// The `cmim` binary with this object embedded. Without one it is a device without kernel part.
pub(crate) fn binary(project: &Project, profile: &str, object: Option<&Path>) -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.args(["build", "--package", "cmim-userspace", "--profile", profile]).current_dir(project.root());
    match object {
        Some(object) => command.env(BPF_OBJECT, object),
        None => command.env_remove(BPF_OBJECT),
    };
    let binary = project.binary(profile);
    let parts = if object.is_some() { "with the BPF object" } else { "without BPF: userspace lanes only" };
    step("build", &format!("cmim ({profile}, {parts})"), command, |_| {
        format!("{}, {}", project.shown(&binary), length(&binary))
    })?;
    Ok(binary)
}

/// Has a cargo command over cmim-userspace see the BPF object, where one has been built.
pub(crate) fn embed(project: &Project, command: &mut Command) {
    let object = project.bpf_object();
    if object.is_file() {
        command.env(BPF_OBJECT, object);
    }
}

/// An object that is the same keeps its time stamp, so that nothing is rebuilt for it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let fresh = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == fresh) {
        return Ok(());
    }
    fs::write(to, fresh).with_context(|| format!("writing {}", to.display()))
}

fn length(path: &Path) -> String {
    fs::metadata(path).map_or_else(|_| "not there".to_owned(), |data| size(data.len()))
}
