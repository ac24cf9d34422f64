//! Taking another daemon's place: the new process's side of an upgrade.

use std::env;
use std::fmt::Display;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::time::Duration;

use ipnet::IpNet;

use super::words::{self, VARIABLE, Word, WordError};
use crate::net::{Channel, Inherited};

/// The old daemon answers at once; one that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon whose place this one takes.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
    admin: Option<TcpListener>,
    denied: Vec<IpNet>,
}

/// Why it cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum PredecessorError {
    #[error("cannot take over: {0}")]
    Word(String),
    #[error("cannot take over: the other process passes a socket for {0:?}, which is no address")]
    Address(String),
    #[error("cannot take over: {VARIABLE} is set, but standard input is no channel ({0})")]
    NoChannel(#[source] std::io::Error),
    #[error("cannot use a socket of the service manager: {0} (only TCP sockets that listen will do)")]
    ServiceManager(#[source] std::io::Error),
}

impl From<WordError> for PredecessorError {
    fn from(error: WordError) -> Self {
        Self::Word(error.to_string())
    }
}

/// The channel, where this process was started to take another's place.
fn channel() -> Result<Option<Channel>, PredecessorError> {
    if env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    let end = std::io::stdin().as_fd().try_clone_to_owned().map_err(PredecessorError::NoChannel)?;
    Ok(Some(Channel::of(end)))
}

/// Tells the daemon whose place this process was to take, if there is one, why it will not.
pub fn tell_predecessor(why: &impl Display) {
    if let Ok(Some(channel)) = channel() {
        // A daemon that is gone needs no reasons.
        let _: Result<(), WordError> = words::send(&channel, &Word::Failed { why: why.to_string() }, &[]);
    }
}

impl Predecessor {
    /// Where there is one: hears it out, and takes its sockets.
    pub(super) fn meet() -> Result<Option<(Self, Inherited)>, PredecessorError> {
        let Some(channel) = channel()? else { return Ok(None) };
        let mut inherited = Inherited::default();
        let mut admin = None;
        loop {
            let (word, sockets) = words::receive(&channel, PATIENCE)?;
            let mut sockets = sockets.into_iter().map(TcpListener::from);
            match word {
                Word::Listening { address: text } => {
                    let address = text.parse().map_err(|_| PredecessorError::Address(text))?;
                    sockets.for_each(|socket| inherited.add(address, socket));
                }
                Word::Admin => admin = sockets.next(),
                Word::AllSockets => break,
                word => return Err(PredecessorError::Word(format!("the other process says {word:?} first"))),
            }
        }
        Ok(Some((Self { channel, admin, denied: Vec::new() }, inherited)))
    }

    /// The socket of the admin address, where it is still wanted there.
    pub(super) fn admin(&mut self, wanted: std::net::SocketAddr) -> Option<TcpListener> {
        self.admin.take().filter(|socket| socket.local_addr().is_ok_and(|address| address == wanted))
    }

    /// Returns once the old daemon has let go of what only one can have.
    pub(super) fn release(&mut self) -> Result<(), PredecessorError> {
        let gone = |error| if matches!(error, WordError::Gone) { Ok(()) } else { Err(error.into()) };
        if let Err(error) = words::send(&self.channel, &Word::Prepared, &[]) {
            return gone(error);
        }
        loop {
            match words::receive(&self.channel, PATIENCE) {
                Ok((Word::Denied { networks }, _)) => self.denied.extend(networks),
                Ok((Word::Released, _)) => return Ok(()),
                Ok((word, _)) => return Err(PredecessorError::Word(format!("the other process says {word:?}"))),
                // Died meanwhile: nobody holds it any more.
                Err(error) => return gone(error),
            }
        }
    }

    /// The networks of its deny list.
    pub(super) fn denied(&self) -> &[IpNet] {
        &self.denied
    }

    /// This process is the daemon from now on.
    pub(super) fn ready(&self) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        if let Err(error) = words::send(&self.channel, &Word::Ready { version }, &[]) {
            tracing::warn!("the daemon before this one was not told: {error}");
        }
    }

    /// It will not be.
    pub(super) fn failed(&self, why: &impl Display) {
        // It sees this process's end anyway.
        let _: Result<(), WordError> = words::send(&self.channel, &Word::Failed { why: why.to_string() }, &[]);
    }
}
