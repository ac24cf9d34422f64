//! bpf-linker: which ones are here, and building the pinned one into the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use super::bpf_toolchain::{Compiler, version_of};
use super::debian;
use crate::command::{ask, is_program, step, which};
use crate::project::Project;

/// The release that the object has been built and loaded with.
const VERSION: &str = "0.13.0";
/// The newest LLVM that this release can be built with.
const NEWEST_LLVM: u32 = 23;
/// LLVM's headers and libraries for it, of the version that Debian's rustc-web makes bitcode with.
pub(crate) const PACKAGES: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];

/// Linkers of the pinned version, ours first.
pub(crate) fn candidates(project: &Project) -> Vec<PathBuf> {
    let ours = project.tools().join("bin/bpf-linker");
    let mut found = Vec::new();
    if is_program(&ours) {
        found.push(ours);
    }
    found.extend(which("bpf-linker"));
    found.retain(|linker| version_of(linker).is_some_and(|version| version.ends_with(VERSION)));
    found
}

/// Changes whenever the file does.
pub(crate) fn signature(linker: &Path) -> String {
    let stamp = fs::metadata(linker).and_then(|data| Ok((data.len(), data.modified()?)));
    let (length, modified) = stamp.map_or((0, 0), |(length, modified)| {
        (length, modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
    });
    format!("{} {length} {modified}\n", linker.display())
}

/// Builds the pinned linker for a compiler of this LLVM, with that compiler.
pub(crate) fn install(project: &Project, compiler: &Compiler, llvm: u32) -> Result<()> {
    let found = obtain_llvm(llvm)?;
    let tools = project.tools();
    let build = tools.join("build");
    let mut command = compiler.cargo();
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features", "--force"])
        .arg("--features")
        .arg(format!("llvm-{}", found.major))
        .arg("--root")
        .arg(&tools)
        .env("CARGO_TARGET_DIR", &build)
        .env("LLVM_PREFIX", &found.prefix)
        .env(format!("LLVM_SYS_{}1_PREFIX", found.major), &found.prefix);
    step("setup", &format!("bpf-linker {VERSION} with LLVM {} (about 90 s)", found.major), command, |_| {
        format!("built into {}", project.shown(&tools))
    })?;
    fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))
}

/// An LLVM with its headers and libraries.
struct Llvm {
    major: u32,
    prefix: PathBuf,
}

/// An LLVM that reads the compiler's bitcode: the same or a newer one, from apt where none is here.
fn obtain_llvm(compilers: u32) -> Result<Llvm> {
    if compilers > NEWEST_LLVM {
        bail!(
            "bpf-linker {VERSION} reads bitcode up to LLVM {NEWEST_LLVM}, and the BPF compiler has LLVM {compilers}.\n\
             Install an older nightly with rust-src, or build without the kernel part: cargo xtask build --no-bpf"
        );
    }
    let find = || (compilers..=NEWEST_LLVM).find_map(find_llvm);
    if let Some(found) = find() {
        return Ok(found);
    }
    let names = [format!("llvm-{compilers}-dev"), format!("libpolly-{compilers}-dev")];
    let packages: Vec<&str> = names.iter().map(String::as_str).collect();
    if debian::offers(&packages) {
        debian::install(&packages)?;
    }
    match find() {
        Some(found) => Ok(found),
        None => bail!(
            "bpf-linker needs the development files of LLVM {compilers}, the BPF compiler's (a newer one, up \
             to {NEWEST_LLVM}, does as well), and there is neither /usr/lib/llvm-{compilers} nor llvm-config-{compilers}.\n\
             Install them (apt.llvm.org has them for Debian and Ubuntu), or build without the kernel part: cargo xtask \
             build --no-bpf"
        ),
    }
}

fn find_llvm(major: u32) -> Option<Llvm> {
    let header = "include/llvm-c/Core.h";
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if debian.join(header).exists() && debian.join("lib/libPolly.a").exists() {
        return Some(Llvm { major, prefix: debian });
    }
    let prefix = PathBuf::from(ask(format!("llvm-config-{major}"), ["--prefix"])?.trim());
    prefix.join(header).exists().then_some(Llvm { major, prefix })
}
