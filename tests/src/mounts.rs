//! Mounts of a test's own: small file systems that no other process sees, gone when the test is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::skip;

/// Runs `act` on a thread whose mounts nobody else sees; threads and processes that it starts see them too. Skips `test`
/// where this process may not mount.
pub fn in_own_mounts(test: &str, act: impl FnOnce() + Send) {
    if skip::without_root(test) {
        return;
    }
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                if let Err(error) = separate() {
                    skip::skipped(test, &format!("no mount namespace: {error}"));
                    return;
                }
                act();
            })
            .join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Gives this thread mounts of its own.
fn separate() -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no safe way to leave a mount namespace")]
    // SAFETY: no descriptor table is left, only the mounts and the working directory, which nothing here relies on.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// A file system in RAM, of a fixed size.
#[derive(Debug)]
pub struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// To be called inside [`in_own_mounts`].
    #[track_caller]
    pub fn new(size: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("cmim-tmpfs-").tempdir().expect("a directory");
        // Without huge pages, which would round what a file takes.
        let options = std::ffi::CString::new(format!("size={size},huge=never")).expect("options");
        mount("cmim-test", directory.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .unwrap_or_else(|error| panic!("mounting a tmpfs: {error}"));
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Bytes that are taken, as `df` says.
    #[track_caller]
    pub fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("statvfs");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// The names in it.
    #[track_caller]
    pub fn names(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.path()).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
    }

    /// Takes all the room there is, until it is dropped.
    #[track_caller]
    pub fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let file = File::create(&path).expect("a file");
        let mut length = 0;
        loop {
            let stat = rustix::fs::statvfs(self.path()).expect("statvfs");
            let free = stat.f_bfree * stat.f_frsize;
            if free == 0 {
                break;
            }
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), length, free) {
                Ok(()) => length += free,
                // Somebody else was faster; he leaves less to take.
                Err(Errno::NOSPC) => {}
                Err(error) => panic!("filling a tmpfs: {error}"),
            }
        }
        Filler { path }
    }

    #[track_caller]
    pub fn make_read_only(&self) {
        rustix::mount::mount_remount(self.path(), MountFlags::RDONLY, "").expect("a remount");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // It goes with the thread in any case; this lets the directory go too.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// What fills a file system.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
