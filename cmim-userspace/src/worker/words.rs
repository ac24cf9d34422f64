//! What a daemon and the one that takes its place say to each other.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::Channel;

/// Says to a new process that its standard input is the channel to the daemon whose place it takes.
pub(super) const VARIABLE: &str = "CMIM_TAKES_OVER";

/// In this order, the old daemon's and the new one's in turn.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// Old: sockets of a listener's address, as the configuration has it.
    Listening { address: String },
    /// Old: the socket of the admin address.
    Admin,
    /// Old: that were all sockets.
    AllSockets,
    /// New: all that can fail without what only one daemon can have has succeeded.
    Prepared,
    /// Old: networks of the deny list.
    Denied { networks: Vec<IpNet> },
    /// Old: interfaces, pins and the tiers' directories are free.
    Released,
    /// New: the doors are open, the control socket is mine.
    Ready { version: String },
    /// New: it ends.
    Failed { why: String },
}

/// Why one side does not hear the other.
#[derive(Debug, thiserror::Error)]
pub(super) enum WordError {
    #[error("the other process is gone")]
    Gone,
    #[error("no word of the other process")]
    Silent,
    #[error("the other process says what this one does not understand ({0}): are the two versions too far apart?")]
    Unknown(#[from] serde_json::Error),
    #[error("cannot talk to the other process: {0}")]
    Io(#[source] io::Error),
}

pub(super) fn send(channel: &Channel, word: &Word, sockets: &[BorrowedFd<'_>]) -> Result<(), WordError> {
    let text = serde_json::to_vec(word)?;
    channel.send(&text, sockets).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WordError::Gone,
        _ => WordError::Io(error),
    })
}

pub(super) fn receive(channel: &Channel, patience: Duration) -> Result<(Word, Vec<OwnedFd>), WordError> {
    match channel.receive(patience) {
        Ok(Some((text, sockets))) => Ok((serde_json::from_slice(&text)?, sockets)),
        Ok(None) => Err(WordError::Gone),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WordError::Silent,
            io::ErrorKind::ConnectionReset => WordError::Gone,
            _ => WordError::Io(error),
        }),
    }
}
