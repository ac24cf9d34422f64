//! Where things are: the project's root, cargo's target directory and what the tasks put there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The checkout that this task works on.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
}

impl Project {
    /// Asks cargo, so that `CARGO_TARGET_DIR` and `build.target-dir` are honoured.
    pub(crate) fn find() -> Result<Self> {
        // At run time first: a target directory shared by two checkouts keeps only one path from compile time.
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let manifest = manifest_dir.join("Cargo.toml");
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(&manifest)
            .output()
            .context("cargo metadata did not start")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let path = |key: &str| metadata.get(key).and_then(|value| value.as_str()).map(PathBuf::from);
        Ok(Self {
            root: path("workspace_root").context("cargo metadata names no workspace_root")?,
            target: path("target_directory").context("cargo metadata names no target_directory")?,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory for the host build.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// `cargo install --root` of the tools that the BPF build needs; nothing goes into the user's `~/.cargo/bin`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/cmim-ebpf.o")
    }

    /// The `cmim` binary that a profile's build leaves.
    pub(crate) fn binary(&self, profile: &str) -> PathBuf {
        let directory = if profile == "dev" { "debug" } else { profile };
        self.target.join(directory).join("cmim")
    }

    /// A path as people read it: relative to where they stand, where that is shorter.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The cargo that runs us, so that a `+toolchain` given outside holds inside.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
