//! What ends a command other than well, what stderr says then, and the exit code.

use std::io;
use std::path::PathBuf;

use crate::config::{ConfigErrors, ServerError};
use crate::control::ControlError;
use crate::worker::RunError;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A configuration file is wrong; one line an error.
    #[error("{0}")]
    File(#[source] ConfigErrors),
    /// The flags that stand for a file are wrong; one line an error.
    #[error("{0}")]
    Flags(#[source] ConfigErrors),
    /// The daemon's file is wrong, or cannot be put in force; one line a reason.
    #[error("{}\ncmim: nothing was changed", .0.join("\n"))]
    NotReloaded(Vec<String>),
    /// `--save` after the daemon has made the change.
    #[error("cmim: the change is in force, but not saved: cannot write {}: {source}", path.display())]
    NotSaved { path: PathBuf, source: io::Error },
    #[error("cmim: cannot save to {}: {source} (nothing was changed; leave out --save, or run it as a user who may write there)", path.display())]
    CannotSave { path: PathBuf, source: io::Error },
    #[error("cmim: {0}")]
    Server(#[from] ServerError),
    #[error("cmim: {0}")]
    Control(#[from] ControlError),
    #[error("cmim: {0}")]
    Refused(String),
    #[error("cmim: the daemon answered something that was not asked (are both of one version?)")]
    WrongAnswer,
    #[error("cmim: {0}")]
    Run(#[from] RunError),
    /// `--json` in front of a change.
    #[error("cmim: --json is for the list; leave it out here, a change answers in one line")]
    NoList,
    #[error("cmim: this needs a terminal (`cmim status` and --json are for files and pipes)")]
    NoTerminal,
    #[error("cmim: cannot write: {0}")]
    Output(#[source] io::Error),
    #[error("cmim: cannot write into {}: {source} (does the directory exist, and may you write there?)", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cmim: the answer has no form as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flags(_) | Self::NoList => WRONG_USAGE,
            _ => FAILED,
        }
    }

    /// The reader of a pipe went away, as in `cmim … | head`: it has what it wanted.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
