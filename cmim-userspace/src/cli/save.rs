//! `--save`: the daemon's configuration file, edited.
//!
//! The new text is written beside the file before the daemon is asked for the change, so that whatever can fail does so
//! while nothing has changed; then it takes the file's place in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::CliError;
use super::ask::Daemon;
use crate::config::ServerError;

/// A file's new text, not in its place yet. Dropped before that, it leaves nothing behind.
pub(super) struct Edited {
    path: PathBuf,
    new: PathBuf,
    is_in_place: bool,
}

impl Edited {
    /// Edits the file that the daemon was started with.
    pub(super) fn prepare(
        daemon: &Daemon,
        edit: impl FnOnce(&str, &str) -> Result<String, ServerError>,
    ) -> Result<Self, CliError> {
        let named = daemon.config_file()?;
        let failed = |source| CliError::CannotSave { path: named.clone(), source };
        // What a symbolic link points to is the file, and the link stays.
        let path = fs::canonicalize(&named).map_err(failed)?;
        let text = fs::read_to_string(&path).map_err(failed)?;
        let edited = edit(&text, &named.display().to_string())?;
        let new = beside(&path);
        let prepared = Self { path, new, is_in_place: false };
        prepared.write(&edited).map_err(failed)?;
        Ok(prepared)
    }

    /// Puts it in the file's place.
    pub(super) fn commit(mut self) -> Result<PathBuf, CliError> {
        let path = self.path.clone();
        fs::rename(&self.new, &path).map_err(|source| CliError::NotSaved { path: path.clone(), source })?;
        self.is_in_place = true;
        Ok(path)
    }

    /// With the rights and the owner of the file.
    fn write(&self, text: &str) -> io::Result<()> {
        let old = fs::metadata(&self.path)?;
        // Left by one that was killed.
        let _: io::Result<()> = fs::remove_file(&self.new);
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(old.mode() & 0o7777).open(&self.new)?;
        if let Err(error) = fchown(&file, Some(old.uid()), Some(old.gid())) {
            tracing::warn!("{} will have another owner: {error}", self.path.display());
        }
        file.set_permissions(old.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

impl Drop for Edited {
    fn drop(&mut self) {
        if !self.is_in_place {
            // It may not have come to be.
            let _: io::Result<()> = fs::remove_file(&self.new);
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".cmim-new");
    path.with_file_name(name)
}
