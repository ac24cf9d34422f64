//! What can go wrong on the control socket, on either side.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no daemon answers at {} (is it running? --control names another socket)", path.display())]
    NoDaemon { path: PathBuf, source: io::Error },
    #[error("not allowed to use {} (try as root, or as a member of its group)", path.display())]
    NotAllowed { path: PathBuf, source: io::Error },
    #[error("the daemon at {} did not answer within {seconds} s (it may be stopped or stuck)", path.display())]
    TimedOut { path: PathBuf, seconds: u64 },
    #[error("the daemon at {} ended the connection without an answer", path.display())]
    NoAnswer { path: PathBuf },
    #[error("the daemon at {} gave an answer that this cmim cannot read: {source} (are both of one version?)", path.display())]
    Garbled { path: PathBuf, source: serde_json::Error },
    #[error("the control socket {} failed: {source}", path.display())]
    Failed { path: PathBuf, source: io::Error },

    #[error("another cmim answers at {} (stop it, or set daemon.control_socket or --control)", path.display())]
    Taken { path: PathBuf },
    #[error("{} exists and is not a socket (move it away, or set daemon.control_socket or --control)", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot make the directory {} for the control socket: {source} (set daemon.control_socket or --control)", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot open the control socket {}: {source} (set daemon.control_socket or --control)", path.display())]
    Bind { path: PathBuf, source: io::Error },
}
