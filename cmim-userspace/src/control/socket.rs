//! The daemon's control socket as a file: bound, handed on, and removed.
//!
//! Owns the file, and the count of answers that are owed to whoever asked; what is said over the socket is
//! [`super::server`]'s.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ControlError;

/// The owner and its group may control the daemon, nobody else.
const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o755;

/// A bound control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
    pub(super) answering: Answering,
}

/// Requests that were read and whose answers are not out yet.
#[derive(Debug, Clone, Default)]
pub struct Answering(Arc<AtomicUsize>);

impl Answering {
    /// Whether every request has its answer, so that the daemon may end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    pub(super) fn begin(&self) -> Owed {
        self.0.fetch_add(1, Ordering::Relaxed);
        Owed(self.clone())
    }
}

/// One of them, until it is dropped.
pub(super) struct Owed(Answering);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

/// Binds the socket, replacing the file of a daemon that is gone.
pub fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
    let failed = |source| ControlError::Bind { path: path.to_owned(), source };
    make_directory(path)?;
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let made = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(ControlSocket { listener, file, answering: Answering::default() })
}

/// Binds a socket beside the one at `path`, for a daemon that takes another's place: [`ControlSocket::take_place`] puts
/// it there. The configuration leaves room for the longer name.
pub fn bind_beside(path: &Path) -> Result<ControlSocket, ControlError> {
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(".new");
    bind(&beside)
}

impl ControlSocket {
    /// Moves the socket to `path` in one step; whoever connects there finds the one or the other.
    pub fn take_place(&mut self, path: &Path) -> Result<(), ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        fs::rename(self.path(), path).map_err(failed)?;
        self.file.path = path.to_owned();
        Ok(())
    }

    /// Gives the socket to the user that the daemon is about to become.
    ///
    /// # Errors
    ///
    /// When this process may not give files away.
    pub fn hand_to(&self, user: u32, group: u32) -> Result<(), ControlError> {
        let path = self.path();
        chown(path, Some(user), Some(group)).map_err(|source| ControlError::Bind { path: path.to_owned(), source })
    }

    /// To be asked before the daemon ends.
    #[must_use]
    pub fn answering(&self) -> Answering {
        self.answering.clone()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The file of a bound socket, known by its inode: a successor's file under the same name is not ours to remove.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours {
            // A user without rights on the directory leaves it; the next start replaces it.
            let _: io::Result<()> = fs::remove_file(&self.path);
        }
    }
}

fn make_directory(path: &Path) -> Result<(), ControlError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        .map_err(|source| ControlError::Directory { path: parent.to_owned(), source })
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Bind { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ControlError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::control) fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cmim-control-{}-{name}", std::process::id()));
        let _: io::Result<()> = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_successors_socket_takes_the_place_in_one_step() {
        let dir = scratch("place");
        let path = dir.join("control.sock");
        let old = bind(&path).expect("binds");
        let mut new = bind_beside(&path).expect("binds");
        new.take_place(&path).expect("moves");
        drop(old);
        assert!(UnixStream::connect(&path).is_ok(), "the new one's stays and listens");
        drop(new);
        assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn the_longest_path_that_a_configuration_may_have_leaves_room_for_a_successor() {
        let dir = scratch("long");
        let name = "s".repeat(103 - dir.as_os_str().len() - 1);
        let path = dir.join(name);
        let _old = bind(&path).expect("binds");
        let mut new = bind_beside(&path).expect("binds");
        new.take_place(&path).expect("moves");
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced() {
        let dir = scratch("stale");
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("control.sock");
        drop(UnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "std leaves the file, as a killed daemon does");
        let socket = bind(&path).expect("replaces it");
        let mode = fs::metadata(&path).expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop(socket);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = scratch("file");
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("control.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind(&path), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_successors_file_under_the_same_name_stays() {
        let dir = scratch("successor");
        let path = dir.join("control.sock");
        let old = bind(&path).expect("binds");
        fs::rename(&path, dir.join("old.sock")).expect("moved away");
        let new = bind(&path).expect("binds");
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
        fs::remove_dir_all(dir).expect("removed");
    }
}
