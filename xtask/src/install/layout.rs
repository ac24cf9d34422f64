//! Where each file goes, and the list of what an install wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Paths as the running system will see them; [`Layout::on_disk`] says where they are now.
#[derive(Debug)]
pub(crate) struct Layout {
    prefix: PathBuf,
    destdir: Option<PathBuf>,
}

impl Layout {
    pub(crate) fn new(prefix: &Path, destdir: Option<&Path>) -> Self {
        Self { prefix: prefix.to_owned(), destdir: destdir.map(Path::to_owned) }
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.under("bin/cmim")
    }

    /// The host's own /etc for the two prefixes that belong to the host.
    pub(crate) fn config(&self) -> PathBuf {
        if is_hosts_own(&self.prefix) { PathBuf::from("/etc/cmim/cmim.toml") } else { self.under("etc/cmim/cmim.toml") }
    }

    /// The default as it was installed: tells uninstall whether the configuration was changed.
    pub(crate) fn pristine_config(&self) -> PathBuf {
        self.under("share/cmim/cmim.toml")
    }

    pub(crate) fn list(&self) -> PathBuf {
        self.under("share/cmim/installed")
    }

    pub(crate) fn under(&self, path: &str) -> PathBuf {
        self.prefix.join(path)
    }

    pub(crate) fn on_disk(&self, path: &Path) -> PathBuf {
        match &self.destdir {
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Writes the list; what an earlier install wrote and is still there stays on it.
    pub(crate) fn record(&self, written: Vec<PathBuf>) -> Result<()> {
        let earlier = self.recorded().unwrap_or_default();
        let still = earlier.into_iter().filter(|path| self.on_disk(path).exists());
        let all: BTreeSet<PathBuf> = written.into_iter().chain(still).chain([self.list()]).collect();
        let text: String = all.iter().map(|path| format!("{}\n", path.display())).collect();
        let file = self.on_disk(&self.list());
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }

    pub(crate) fn recorded(&self) -> Result<Vec<PathBuf>> {
        let file = self.on_disk(&self.list());
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
            Err(_) => bail!("cmim is not installed under {}: there is no {}", self.prefix.display(), file.display()),
        }
    }
}

/// The two prefixes under which the host itself looks for units and the like.
pub(crate) fn is_hosts_own(prefix: &Path) -> bool {
    ["/usr", "/usr/local"].iter().any(|host| prefix == Path::new(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_configuration_is_in_its_etc() {
        let config = |prefix: &str| Layout::new(Path::new(prefix), None).config();
        assert_eq!(config("/usr"), Path::new("/etc/cmim/cmim.toml"));
        assert_eq!(config("/usr/local/"), Path::new("/etc/cmim/cmim.toml"));
        assert_eq!(config("/opt/cmim"), Path::new("/opt/cmim/etc/cmim/cmim.toml"));
    }

    #[test]
    fn destdir_stands_before_every_path() {
        let layout = Layout::new(Path::new("/usr"), Some(Path::new("/tmp/package")));
        assert_eq!(layout.on_disk(&layout.binary()), Path::new("/tmp/package/usr/bin/cmim"));
        assert_eq!(layout.on_disk(&layout.config()), Path::new("/tmp/package/etc/cmim/cmim.toml"));
    }
}
