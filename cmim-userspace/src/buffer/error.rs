//! Why the tiers cannot be opened. Each message names the key and the way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Nothing was opened; trying again is safe once the reason is gone.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    #[error("buffer.tier[{tier}].path: {}: {}", path.display(), Told { fault, path })]
    Directory {
        tier: usize,
        path: PathBuf,
        #[source]
        fault: Fault,
    },
    #[error("buffer.tier[{tier}].path: {}: the same directory as buffer.tier[{other}].path; give each tier its own", path.display())]
    Same { tier: usize, other: usize, path: PathBuf },
    #[error("buffer.tier[{tier}].size: {size} bytes hold nothing; a tier at {} needs at least {least} bytes", path.display())]
    TooSmall { tier: usize, path: PathBuf, size: u64, least: u64 },
    #[error(
        "buffer.tier[{tier}].size: {size} bytes, but this process may write files of at most {limit} bytes (LimitFSIZE=, ulimit -f)"
    )]
    FileLimit { tier: usize, size: u64, limit: u64 },
    #[error("buffer.tier[{tier}]: cannot start its threads: {source}")]
    Thread { tier: usize, source: io::Error },
}

/// What is wrong with a tier's directory.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("no such directory")]
    Missing,
    #[error("not a directory")]
    NotADirectory,
    #[error("not writable for uid {user}")]
    NotWritable { user: u32 },
    #[error("read-only file system")]
    ReadOnly,
    #[error("in use by {}", owner.as_deref().unwrap_or("another process"))]
    InUse { owner: Option<String> },
    #[error("this file system cannot give back parts of a file (fallocate with FALLOC_FL_PUNCH_HOLE)")]
    NoHoles,
    #[error("cannot make a file: {0}")]
    Other(io::Error),
}

/// A fault with its way out.
struct Told<'a> {
    fault: &'a Fault,
    path: &'a PathBuf,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{}", self.fault)?;
        match self.fault {
            Fault::Missing => write!(f, " (mkdir -p {path})"),
            Fault::NotADirectory => write!(f, "; a tier's path is a directory of its own"),
            Fault::NotWritable { user } => write!(f, " (chown {user} {path})"),
            Fault::ReadOnly => write!(f, "; mount it read-write or choose another path"),
            Fault::InUse { .. } => write!(f, "; each running cmim needs a directory of its own"),
            Fault::NoHoles => write!(f, "; ext4, xfs, btrfs, f2fs and tmpfs can"),
            Fault::Other(_) => Ok(()),
        }
    }
}
