//! The other direction: removes what the list names and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::Layout;
use super::{Options, ensure_writable};
use crate::command::ask;
use crate::progress::note;

pub(crate) fn uninstall(options: &Options) -> Result<()> {
    let layout = options.layout()?;
    let paths = layout.recorded()?;
    ensure_writable(&layout.on_disk(&layout.list()))?;
    if options.is_for_this_host() {
        // Not enabled and not running is just as well.
        let _ = ask("systemctl", ["disable", "--now", "cmim.service"]);
    }
    let keep = changed_config(&layout);
    let list = layout.list();
    for path in paths.iter().filter(|path| keep.as_ref() != Some(path) && **path != list) {
        remove(&layout.on_disk(path))?;
    }
    // The list last, so that an uninstall that was cut short can be run again.
    remove(&layout.on_disk(&list))?;
    if options.is_for_this_host() {
        let _ = ask("systemctl", ["daemon-reload"]);
    }
    match keep {
        Some(config) => note("remove", format!("{} stays: it is not the default", layout.on_disk(&config).display())),
        None => note("remove", "nothing is left"),
    }
    Ok(())
}

/// The configuration, when it is no longer the default that was installed.
fn changed_config(layout: &Layout) -> Option<PathBuf> {
    let config = layout.config();
    let own = fs::read(layout.on_disk(&config)).ok()?;
    let unchanged = fs::read(layout.on_disk(&layout.pristine_config())).is_ok_and(|pristine| pristine == own);
    (!unchanged).then_some(config)
}

/// Removes a file, and its directories as far as they are ours and empty.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => note("remove", path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
    }
    for directory in path.ancestors().skip(1).take_while(|directory| directory.file_name() == Some(OsStr::new("cmim")))
    {
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
    Ok(())
}
