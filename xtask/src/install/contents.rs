//! What is installed besides the configuration: the binary and all that it prints of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::layout::Layout;
use crate::project::Project;

pub(crate) const PLAIN: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// Shells and where they look for completions, under the prefix.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/cmim"),
    ("zsh", "share/zsh/site-functions/_cmim"),
    ("fish", "share/fish/vendor_completions.d/cmim.fish"),
];

/// Files of packaging/ and where they go, under the prefix.
const PACKAGING: [(&str, &str); 3] = [
    ("cmim.service", "lib/systemd/system/cmim.service"),
    ("cmim.sysusers", "lib/sysusers.d/cmim.conf"),
    ("cmim.tmpfiles", "lib/tmpfiles.d/cmim.conf"),
];

const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

#[derive(Debug)]
pub(crate) struct File {
    /// As the running system will see it.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

pub(crate) fn gather(project: &Project, layout: &Layout, binary: &Path) -> Result<Vec<File>> {
    let bytes = read(binary)?;
    ensure_whole(project, &bytes)?;
    let mut files = vec![File { path: layout.binary(), bytes, mode: PROGRAM }];
    for (name, place) in PACKAGING {
        let text = fs::read_to_string(project.root().join("packaging").join(name))
            .with_context(|| format!("packaging/{name}"))?;
        files.push(plain(layout.under(place), filled(&text, layout).into_bytes()));
    }
    files.extend(man_pages(project, layout, binary)?);
    for (shell, place) in COMPLETIONS {
        files.push(plain(layout.under(place), says(binary, &["completions", shell])?));
    }
    for name in LICENCES {
        files.push(plain(layout.under("share/doc/cmim").join(name), read(&project.root().join(name))?));
    }
    Ok(files)
}

pub(crate) fn default_config(binary: &Path) -> Result<Vec<u8>> {
    says(binary, &["config", "defaults"])
}

/// A device without its kernel part is for development: it is not shipped.
fn ensure_whole(project: &Project, binary: &[u8]) -> Result<()> {
    let object = read(&project.bpf_object())?;
    ensure!(!object.is_empty(), "the BPF object is empty");
    ensure!(
        binary.windows(object.len()).any(|part| part == object),
        "the binary does not hold the BPF object: it is not shipped without"
    );
    Ok(())
}

fn filled(text: &str, layout: &Layout) -> String {
    let directory = layout.under("bin");
    text.replace("@BINDIR@", &directory.display().to_string())
        .replace("@CONFIG@", &layout.config().display().to_string())
}

fn man_pages(project: &Project, layout: &Layout, binary: &Path) -> Result<Vec<File>> {
    let directory = project.target().join("man");
    // Pages of commands that are no more.
    let _ = fs::remove_dir_all(&directory);
    let text = directory.display().to_string();
    says(binary, &["man", "--dir", &text])?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("reading {text}"))? {
        let path = entry?.path();
        let name = path.file_name().context("a page without a name")?;
        pages.push(plain(layout.under("share/man/man1").join(name), read(&path)?));
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    ensure!(!pages.is_empty(), "cmim man wrote no page");
    Ok(pages)
}

fn plain(path: PathBuf, bytes: Vec<u8>) -> File {
    File { path, bytes, mode: PLAIN }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// What the binary prints.
fn says(binary: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output =
        Command::new(binary).args(arguments).output().with_context(|| format!("{} did not start", binary.display()))?;
    if !output.status.success() {
        bail!("cmim {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
