//! The compiler and linker of the BPF object: Debian's rustc, which brings `core` for BPF, or a rustup nightly that
//! builds it; each with a bpf-linker that reads that compiler's bitcode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use super::{bpf_linker, debian, nightly};
use crate::command::{ask, clean, path_with};
use crate::project::Project;

const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// By its path: cargo would take rustup's, which is of another version and reads nothing that this compiler makes.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const CLIPPY_PACKAGE: &str = "rust-web-clippy";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// A compiler that can make BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compiler {
    Debian,
    Nightly { toolchain: String },
}

/// A compiler and a linker that have been seen to work together.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
    version: String,
}

impl Toolchain {
    /// A `cargo build` for the BPF crate: the caller adds directory, profile and target directory.
    pub(crate) fn build(&self) -> Result<Command> {
        let mut command = self.compiler.cargo();
        command.arg("build");
        self.complete(command)
    }

    /// A `cargo clippy` for the BPF crate, likewise. Installs clippy if need be.
    pub(crate) fn clippy(&self) -> Result<Command> {
        let mut command = self.compiler.clippy()?;
        command.arg("clippy");
        self.complete(command)
    }

    fn complete(&self, mut command: Command) -> Result<Command> {
        if matches!(self.compiler, Compiler::Nightly { .. }) {
            command.args(["-Z", "build-std=core"]);
        }
        // The crate names its linker "bpf-linker"; the one that was probed has to be the first on the path.
        let directory = self.linker.parent().context("a linker without a directory")?;
        command.env("PATH", path_with(directory)?);
        Ok(command)
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match &self.compiler {
            Compiler::Debian => "Debian's",
            Compiler::Nightly { .. } => "rustup's",
        };
        write!(
            f,
            "{origin} {}, bpf-linker in {}",
            self.version,
            self.linker.parent().unwrap_or(Path::new("")).display()
        )
    }
}

impl Compiler {
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Debian => {
                let mut command = clean(DEBIAN_CARGO);
                // aya-ebpf uses unstable features of core; Debian's compiler is a stable one.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly { toolchain } => {
                let mut command = clean("rustup");
                command.args(["run", toolchain, "cargo"]);
                command
            }
        }
    }

    /// What runs `clippy`: cargo, or Debian's cargo-clippy, which runs cargo.
    fn clippy(&self) -> Result<Command> {
        match self {
            Self::Debian => {
                if !Path::new(DEBIAN_CLIPPY).is_file() {
                    debian::install(&[CLIPPY_PACKAGE])?;
                }
                let mut command = clean(DEBIAN_CLIPPY);
                command.env("CARGO", DEBIAN_CARGO).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                Ok(command)
            }
            Self::Nightly { toolchain } => {
                nightly::ensure_clippy(toolchain)?;
                Ok(self.cargo())
            }
        }
    }

    pub(crate) fn rustc(&self) -> Command {
        match self {
            Self::Debian => {
                let mut command = clean(DEBIAN_RUSTC);
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly { toolchain } => {
                let mut command = clean("rustup");
                command.args(["run", toolchain, "rustc"]);
                command
            }
        }
    }

    /// What `rustc -vV` says: its first line names the version, the last one LLVM's.
    fn identity(&self) -> Result<String> {
        let output = self.rustc().arg("-vV").output().context("the BPF compiler did not start")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Finds a toolchain that works, or makes one.
pub(crate) fn ensure(project: &Project) -> Result<Toolchain> {
    if let Some(toolchain) = working(project, debian_compiler())? {
        return Ok(toolchain);
    }
    let rustup = nightly::find().map(|toolchain| Compiler::Nightly { toolchain });
    if let Some(toolchain) = working(project, rustup.clone())? {
        return Ok(toolchain);
    }
    let compiler = obtain(rustup)?;
    let identity = compiler.identity()?;
    let llvm = llvm_major(&identity).context("the BPF compiler does not say its LLVM version")?;
    bpf_linker::install(project, &compiler, llvm)?;
    match working(project, Some(compiler))? {
        Some(toolchain) => Ok(toolchain),
        None => bail!("bpf-linker was built but cannot link what {} makes", first_line(&identity)),
    }
}

/// A compiler, by the shortest way: one that is here, Debian's packages, a rustup nightly.
fn obtain(rustup: Option<Compiler>) -> Result<Compiler> {
    if let Some(compiler) = debian_compiler() {
        return Ok(compiler);
    }
    if debian::offers(&COMPILER_PACKAGES) {
        let packages: Vec<&str> = COMPILER_PACKAGES.into_iter().chain(bpf_linker::PACKAGES).collect();
        debian::install(&packages)?;
        return debian_compiler()
            .with_context(|| format!("the packages are installed, but there is no core for BPF in {DEBIAN_CORE}"));
    }
    match rustup {
        Some(compiler) => Ok(compiler),
        None => Ok(Compiler::Nightly { toolchain: nightly::install()? }),
    }
}

fn debian_compiler() -> Option<Compiler> {
    let core = fs::read_dir(DEBIAN_CORE)
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    let tools = Path::new(DEBIAN_RUSTC).is_file() && Path::new(DEBIAN_CARGO).is_file();
    (core && tools).then_some(Compiler::Debian)
}

/// The compiler with a linker that reads its bitcode, if one is here. What was seen to work is written down, so that it
/// is tried only once.
fn working(project: &Project, compiler: Option<Compiler>) -> Result<Option<Toolchain>> {
    let Some(compiler) = compiler else { return Ok(None) };
    let stamp = project.tools().join("bpf-toolchain.stamp");
    let known = fs::read_to_string(&stamp).unwrap_or_default();
    let identity = compiler.identity()?;
    for linker in bpf_linker::candidates(project) {
        let signature = format!("{identity}{}", bpf_linker::signature(&linker));
        if signature != known {
            if !links(project, &compiler, &linker)? {
                continue;
            }
            fs::write(&stamp, &signature).with_context(|| format!("writing {}", stamp.display()))?;
        }
        return Ok(Some(Toolchain { compiler, linker, version: first_line(&identity).to_owned() }));
    }
    Ok(None)
}

/// Whether `linker` links what `compiler` makes: an empty object without even `core`, a tenth of a second.
fn links(project: &Project, compiler: &Compiler, linker: &Path) -> Result<bool> {
    let directory = project.tools().join("probe");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let source = directory.join("probe.rs");
    fs::write(&source, "#![feature(no_core)]\n#![no_core]\n")?;
    let output = compiler
        .rustc()
        .args(["--target", "bpfel-unknown-none", "--crate-type", "cdylib", "-C", "panic=abort", "-C", "link-arg=--btf"])
        .arg("-C")
        .arg(format!("linker={}", linker.display()))
        .arg("-o")
        .arg(directory.join("probe.o"))
        .arg(&source)
        .output()
        .context("the BPF compiler did not start")?;
    Ok(output.status.success())
}

fn llvm_major(identity: &str) -> Option<u32> {
    identity.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

fn first_line(identity: &str) -> &str {
    let line = identity.lines().next().unwrap_or("rustc");
    line.split(" (").next().unwrap_or(line)
}

/// What a program calls itself; for messages.
pub(crate) fn version_of(program: &Path) -> Option<String> {
    ask(program, ["--version"]).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_compilers_llvm_is_read_from_its_version() {
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}
