//! The pin directory: where bpftool finds the maps, and who of several daemons owns it.
//!
//! The owner holds an `flock` on the directory itself. That needs no file beside it (a BPF file system has none), the
//! kernel gives it back however the owner dies, and two daemons with different directories never meet. So pins in a
//! directory whose lock is free are a dead daemon's: they are removed, never reused, and hence need no ABI version in
//! their path yet.
//!
//! Pins are removed through the directory's descriptor: the daemon has mostly dropped root by then, and the file system
//! above may be closed to others.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use cmim_common::names;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, fchmod, fchown, flock, fstat, fstatfs, mkdir, openat, rmdir,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::error::KernelError;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where a host usually has its BPF file system.
const USUAL_MOUNT_POINT: &str = "/sys/fs/bpf";
/// What every pin of a cmim begins with. Other names in the directory are left alone.
const OWN_PREFIX: &str = "CMIM_";
/// Of a directory whose pins a user without root is to remove.
const SHARED_MODE: u32 = 0o775;
/// A daemon that ends removes the directory under a starting one's hands; each try loses to another daemon's end.
const CLAIM_TRIES: usize = 8;

/// A pin directory that this process owns; dropping it removes the pins.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    /// Also carries the lock.
    directory: OwnedFd,
    pinned: Vec<&'static str>,
    /// A dead daemon's steering, in force until [`PinDir::relieve`]: its sockets may live on in other hands.
    inherited: Option<PinnedLink>,
    /// Whether a cmim made it, now or in an earlier life; else it is the operator's and stays.
    own: bool,
}

impl PinDir {
    /// Takes the directory over: made where it is not there, locked, and free of a dead daemon's pins.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirTaken`] while another daemon lives in it, [`KernelError::NotBpffs`] where nothing can be
    /// pinned, [`KernelError::PinDir`] for all else.
    pub fn claim(path: &Path) -> Result<Self, KernelError> {
        let failed = |source: io::Error| KernelError::PinDir { path: path.to_owned(), source };
        require_bpffs(path)?;
        for _ in 0..CLAIM_TRIES {
            let made = make(path).map_err(failed)?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory = match openat(CWD, path, flags, Mode::empty()) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error.into())),
            };
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(KernelError::PinDirTaken { path: path.to_owned(), owner: owner(&directory) });
                }
                Err(error) => return Err(failed(error.into())),
            }
            if !is_at(&directory, path) {
                continue;
            }
            let mut claimed = Self { path: path.to_owned(), directory, pinned: Vec::new(), inherited: None, own: made };
            claimed.remove_left_overs().map_err(failed)?;
            return Ok(claimed);
        }
        Err(failed(io::Error::other("it is removed again and again")))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pins a map under its name.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn pin(&mut self, name: &'static str, map: &Map) -> Result<(), KernelError> {
        map.pin(self.path.join(name)).map_err(|source| KernelError::Pin { name, source })?;
        self.pinned.push(name);
        Ok(())
    }

    /// Notes that something else of the kernel part was pinned under this name, to be removed with the rest.
    pub(super) fn adopt(&mut self, name: &'static str) {
        self.pinned.push(name);
    }

    /// Lets go of what a dead daemon left in force, now that this one's is.
    pub(super) fn relieve(&mut self) {
        self.inherited = None;
    }

    /// Names of what is pinned.
    #[must_use]
    pub fn pinned(&self) -> &[&'static str] {
        &self.pinned
    }

    /// Lets another process have the directory, with the pins as a dead daemon leaves them; what they were is kept, so that
    /// they can be put back.
    pub(super) fn lend(mut self) -> Lent {
        let mut lent = Lent { path: self.path.clone(), maps: Vec::new(), link: None };
        for name in std::mem::take(&mut self.pinned) {
            let path = self.path.join(name);
            if name == names::STEER_LINK {
                lent.link = PinnedLink::from_pin(path).ok().map(FdLink::from);
            } else if let Ok(map) = MapData::from_pin(path) {
                lent.maps.push((name, map));
            }
        }
        self.own = false;
        // Dropping `self` gives the lock back.
        lent
    }

    /// Lets the group of the user that the daemon is about to become write to the directory, so that it can remove the
    /// pins. The owner stays: the next start may be a root that permissions bind (CAP_DAC_OVERRIDE is not among the unit's
    /// rights), and must be able to pin there.
    ///
    /// # Errors
    ///
    /// When this process may not give files away.
    pub fn hand_to(&self, group: Gid) -> Result<(), KernelError> {
        let failed = |error: Errno| KernelError::PinDir { path: self.path.clone(), source: error.into() };
        fchown(&self.directory, None, Some(group)).map_err(failed)?;
        fchmod(&self.directory, Mode::from_raw_mode(SHARED_MODE)).map_err(failed)
    }

    fn remove_left_overs(&mut self) -> io::Result<()> {
        // Held by its descriptor, so that removing its pin does not end it.
        self.inherited = PinnedLink::from_pin(self.path.join(names::STEER_LINK)).ok();
        let mut removed = 0_usize;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()) {
                unlinkat(&self.directory, &name, AtFlags::empty())?;
                removed += 1;
            }
        }
        if removed > 0 {
            self.own = true;
            tracing::info!(pin_dir = %self.path.display(), removed, "removed the pins that a dead daemon left");
        }
        Ok(())
    }
}

/// A pin directory that another process was to have.
#[derive(Debug)]
pub(super) struct Lent {
    path: PathBuf,
    maps: Vec<(&'static str, MapData)>,
    link: Option<FdLink>,
}

impl Lent {
    /// Takes the directory over again and pins what was pinned. The steering link's pin comes back as well.
    ///
    /// # Errors
    ///
    /// As [`PinDir::claim`], or when a pin is refused.
    pub(super) fn take_back(self) -> Result<(PinDir, Option<PinnedLink>), KernelError> {
        let mut pins = PinDir::claim(&self.path)?;
        for (name, map) in self.maps {
            map.pin(self.path.join(name)).map_err(|source| KernelError::Pin { name, source })?;
            pins.pinned.push(name);
        }
        let name = names::STEER_LINK;
        let link = self.link.map(|link| link.pin(self.path.join(name))).transpose();
        let link = link.map_err(|source| KernelError::Pin { name, source })?;
        if link.is_some() {
            pins.pinned.push(name);
        }
        pins.relieve();
        Ok((pins, link))
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        for name in &self.pinned {
            if let Err(error) = unlinkat(&self.directory, *name, AtFlags::empty()) {
                tracing::warn!(pin_dir = %self.path.display(), name, "pin not removed: {error}");
            }
        }
        if !self.own {
            return;
        }
        // Not an error: whoever dropped root cannot write above the directory, and an operator may have put something
        // in it. An empty directory harms no one, and the next start takes it.
        if let Err(error) = rmdir(&self.path) {
            tracing::debug!(pin_dir = %self.path.display(), "directory left: {error}");
        }
    }
}

/// The nearest directory above `path` that is there must be on a BPF file system, or nothing below it is. Where the
/// usual one is not mounted (a container, a small init), it is, as bpftool and ip do as well.
fn require_bpffs(path: &Path) -> Result<(), KernelError> {
    let is_on_bpffs = || path.ancestors().find(|ancestor| ancestor.is_dir()).is_some_and(is_bpffs);
    if is_on_bpffs() {
        return Ok(());
    }
    let usual = Path::new(USUAL_MOUNT_POINT);
    if path.starts_with(usual) && mount("bpf", usual, "bpf", MountFlags::empty(), Some(c"mode=0755")).is_ok() {
        tracing::info!("mounted the BPF file system at {USUAL_MOUNT_POINT}");
        if is_on_bpffs() {
            return Ok(());
        }
    }
    let mount_point = if path.starts_with(usual) { usual } else { path.parent().unwrap_or(path) };
    Err(KernelError::NotBpffs { path: path.to_owned(), mount_point: mount_point.to_owned() })
}

/// Whether something can be pinned in this directory.
#[must_use]
pub fn is_bpffs(directory: &Path) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty())
        .and_then(fstatfs)
        .is_ok_and(|file_system| u64::try_from(file_system.f_type).is_ok_and(|magic| magic == BPF_FS_MAGIC))
}

/// Makes the directory and those above it; `false`: it was there.
fn make(path: &Path) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the open directory is still the one under this name.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (fstat(directory), fs::metadata(path)) else {
        return false;
    };
    opened.st_dev == named.dev() && opened.st_ino == named.ino()
}

/// The process that holds the lock, from /proc/locks; `None` where that is not told (another PID namespace).
fn owner(directory: &OwnedFd) -> Option<u32> {
    let stat = fstat(directory).ok()?;
    let device = stat.st_dev;
    let wanted = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), stat.st_ino);
    find_owner(&fs::read_to_string("/proc/locks").ok()?, &wanted)
}

/// Finds the holder of an flock in the text of /proc/locks: `1: FLOCK ADVISORY WRITE <pid> <major:minor:inode> 0 EOF`.
fn find_owner(locks: &str, wanted: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        if kind == "FLOCK" && file == wanted { pid.parse().ok().filter(|pid| *pid != 0) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::{PinDir, find_owner};
    use crate::kernel::KernelError;
    use std::path::Path;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 17 00:27:41965 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 27991 fe:00:10092551 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 5 fe:00:1 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 30255 00:27:41965 0 EOF\n";

    #[test]
    fn the_owner_is_the_process_with_the_flock_on_this_very_directory() {
        assert_eq!(find_owner(LOCKS, "00:27:41965"), Some(30255));
        assert_eq!(find_owner(LOCKS, "00:27:4196"), None);
        assert_eq!(find_owner("", "00:27:41965"), None);
    }

    #[test]
    fn a_directory_that_can_hold_no_pins_is_refused_with_the_command_that_mends_it() {
        let error = PinDir::claim(Path::new("/proc/cmim-test")).expect_err("/proc holds no pins");
        assert!(matches!(error, KernelError::NotBpffs { .. }), "{error}");
        assert!(error.clause().contains("mount -t bpf bpf /proc"), "{}", error.clause());
    }
}
