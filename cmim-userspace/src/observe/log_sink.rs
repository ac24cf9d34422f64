//! Where access log lines go: a file or standard output.
//!
//! Owns the opened file and what became of the last write; called from the log's own thread, so that it may wait. Knows
//! nothing of what a line says.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A stdout that is non-blocking and full is tried again this often…
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);
/// … and given up after this many times.
const FULL_PIPE_TRIES: u32 = 100;
/// Readable for the operators' group, as log files are on Debian.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o755;
/// The same where the daemon becomes another user: root stays the owner, so that it can open them again without the
/// right to overrule modes, and the user writes as the group.
const SHARED_FILE_MODE: u32 = 0o660;
const SHARED_DIRECTORY_MODE: u32 = 0o775;

#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    #[error("access_log.path: cannot open {} for writing: {source} (another path, \"stdout\" or \"off\" will do)", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("access_log.path: standard output cannot be written: {source} (name a file, or \"off\")")]
    Stdout { source: io::Error },
    #[error("access_log.path: cannot share {} with daemon.user: {source}", path.display())]
    Share { path: PathBuf, source: io::Error },
    #[error("cannot start the access log's thread: {source}")]
    Thread { source: io::Error },
}

/// The file that lines go to, and what became of the last write.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// The last write ended within a line.
    torn: bool,
    failing: bool,
}

/// A file that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) sink: Sink,
    /// Its directory was made for it.
    pub(super) made_directory: bool,
}

/// Lets this group write to the file at `path`, and make it anew in its directory.
pub(super) fn share(path: &Path, group: u32) -> Result<(), AccessLogError> {
    let share = |path: &Path, mode| {
        let shared =
            chown(path, None, Some(group)).and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
        shared.map_err(|source| AccessLogError::Share { path: path.to_owned(), source })
    };
    share(path, SHARED_FILE_MODE)?;
    path.parent().map_or(Ok(()), |directory| share(directory, SHARED_DIRECTORY_MODE))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Makes the directory of `path`, and none above it: a slip in a path is an error and no tree. True: there was none.
fn make_directory(path: &Path) -> io::Result<bool> {
    let Some(directory) = path.parent() else { return Ok(false) };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

impl Sink {
    /// Appends to the file at `path`, making it where there is none, in a directory that is made as well.
    pub(super) fn file(path: &Path) -> Result<Opened, AccessLogError> {
        let (opened, made_directory) = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match make_directory(path) {
                Ok(made) => (open(path), made),
                Err(error) => (Err(error), false),
            },
            opened => (opened, false),
        };
        let file = opened.map_err(|source| AccessLogError::Open { path: path.to_owned(), source })?;
        Ok(Opened { sink: Self::new(file), made_directory })
    }

    /// Writes to a descriptor of its own for standard output: std's flushes at every line.
    pub(super) fn stdout() -> Result<Self, AccessLogError> {
        let copied = io::stdout().as_fd().try_clone_to_owned();
        let descriptor = copied.map_err(|source| AccessLogError::Stdout { source })?;
        Ok(Self::new(File::from(descriptor)))
    }

    fn new(file: File) -> Self {
        Self { file, torn: false, failing: false }
    }

    /// Writes whole lines and returns how many were lost.
    pub(super) fn write(&mut self, text: &[u8]) -> u64 {
        if text.is_empty() {
            return 0;
        }
        if self.torn && write_some(&mut self.file, b"\n").0 == 1 {
            self.torn = false;
        }
        let (written, error) = write_some(&mut self.file, text);
        let (done, rest) = text.split_at(written.min(text.len()));
        if let Some(last) = done.last() {
            self.torn = *last != b'\n';
        }
        match error {
            Some(error) if !self.failing => {
                tracing::warn!("the access log cannot be written: {error}; lines are lost until it can");
                self.failing = true;
            }
            None if self.failing => {
                tracing::info!("the access log is written again");
                self.failing = false;
            }
            _ => {}
        }
        memchr::memchr_iter(b'\n', rest).count() as u64
    }
}

/// Writes as much as the file takes: the bytes written, and the error that stopped it.
fn write_some(file: &mut File, text: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    let mut full_pipe_tries = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                written += n;
                full_pipe_tries = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && full_pipe_tries < FULL_PIPE_TRIES => {
                full_pipe_tries += 1;
                thread::sleep(FULL_PIPE_PAUSE);
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}
