//! A tier's directory: made where only its own name is missing, checked, and locked so that no other cmim uses it at the
//! same time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::error::{BufferError, Fault};
use super::spool::NAME_PREFIX;
use crate::config::model::Buffer;

/// Directories that this process has made, empty as yet.
#[derive(Debug, Default)]
pub struct MadeDirectories(Vec<OwnedFd>);

/// Makes the tiers' directories of which nothing but the last name is missing. What cannot be made is missing still when
/// the tiers are opened, and that says so. A path of which more is missing may be on a file system that is not mounted.
pub fn make_directories(buffer: &Buffer) -> MadeDirectories {
    let mut made = Vec::new();
    for (tier, model) in buffer.tiers.iter().enumerate() {
        if let Ok(directory) = make(&model.path) {
            tracing::info!("buffer.tier[{tier}].path: made {}", model.path.display());
            made.push(directory);
        }
    }
    MadeDirectories(made)
}

fn make(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(path, Mode::RWXU)?;
    // Not what a link leads to, by which somebody else may have replaced it since.
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl MadeDirectories {
    /// Gives them to the user that the daemon becomes.
    pub fn hand_to(self, uid: u32, gid: u32) {
        for directory in self.0 {
            // One that stays as it is cannot be written to by that user, and opening the tier says so.
            let _: Result<(), Errno> =
                rustix::fs::fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

/// Opens and locks the directory of the tier of this number. The lock lasts as long as the descriptor.
pub(super) fn open(tier: usize, path: &Path) -> Result<OwnedFd, BufferError> {
    let unfit = |fault| BufferError::Directory { tier, path: path.to_owned(), fault };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        unfit(match errno {
            Errno::NOENT => Fault::Missing,
            Errno::NOTDIR => Fault::NotADirectory,
            Errno::ACCESS | Errno::PERM => Fault::NotWritable { user: user() },
            other => Fault::Other(other.into()),
        })
    })?;
    // The effective user's rights: a daemon that has changed its user asks for the new one's.
    match rustix::fs::accessat(&directory, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ROFS) => return Err(unfit(Fault::ReadOnly)),
        Err(Errno::ACCESS | Errno::PERM) => return Err(unfit(Fault::NotWritable { user: user() })),
        // A kernel that cannot answer lets the first file be the test.
        Ok(()) | Err(_) => {}
    }
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(unfit(Fault::InUse { owner: owner(&directory) })),
        // A file system without locks: then nobody can be warned.
        Err(errno) => tracing::warn!("buffer.tier[{tier}].path: {} cannot be locked: {errno}", path.display()),
    }
    sweep(path);
    Ok(directory)
}

/// Whether the directory of this path is `directory`.
pub(super) fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(directory), fs::metadata(path)) {
        (Ok(held), Ok(found)) => (held.st_dev, held.st_ino) == (found.dev(), found.ino()),
        _ => false,
    }
}

/// Removes what a process left that was killed between making a file and unlinking it.
fn sweep(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(NAME_PREFIX.as_bytes()) {
            // Gone already, or somebody else's: it only takes room.
            let _: io::Result<()> = fs::remove_file(entry.path());
        }
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Who holds the lock on `directory`, from /proc/locks.
fn owner(directory: &OwnedFd) -> Option<String> {
    let stat = rustix::fs::fstat(directory).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| holder(line, &file))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim_end()))
}

/// The process that holds a flock on `file`, if `line` says so: `7: FLOCK  ADVISORY  WRITE 812 fe:00:1234 0 EOF`.
fn holder(line: &str, file: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
    let pid = words.next()?.parse().ok()?;
    (words.next()? == file).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_read_from_its_line() {
        let line = "7: FLOCK  ADVISORY  WRITE 812 fe:00:1234 0 EOF";
        assert_eq!(holder(line, "fe:00:1234"), Some(812));
        assert_eq!(holder(line, "fe:00:123"), None);
        assert_eq!(holder("8: POSIX  ADVISORY  WRITE 812 fe:00:1234 0 EOF", "fe:00:1234"), None);
        assert_eq!(holder("9: FLOCK", "fe:00:1234"), None);
    }
}
