//! What can go wrong with one request, and what its client is told.

use std::io;

use rustix::io::Errno;

use crate::h1::{ChunkError, ReplyError};
use crate::reply::Refusal;

/// Why a request got no reply from a server. While nothing of a reply was sent it becomes the status of
/// [`Failure::status`]; afterwards the client's connection is reset.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the queue for the upstream is full")]
    QueueFull,
    #[error("no server took the request within queue_timeout")]
    QueueTimeout,
    #[error("cannot connect to the server: {0}")]
    Connect(#[source] io::Error),
    #[error("the server did not answer the connection attempt within server_connect")]
    ConnectTimeout,
    /// Nothing that a server did.
    #[error("the device has no connection left for a server: {0}")]
    Shortage(#[source] io::Error),
    #[error("the server closed the connection before it replied")]
    ServerClosed,
    #[error("the connection to the server broke before it replied: {0}")]
    ServerBroke(#[source] io::Error),
    /// The request was sent behind others on one connection, and is sent again.
    #[error("the connection to the server ended before it was the request's turn")]
    Overtaken,
    /// The request is sent again by TCP.
    #[error("the host has no memory for the local lane")]
    LaneFull,
    #[error("the server sent something on an idle connection that nobody had asked for")]
    Unasked,
    #[error("the server sent no reply within server_first_byte")]
    FirstByteTimeout,
    #[error("the server's reply made no progress within server_idle")]
    ServerIdle,
    #[error("the server's reply is not valid HTTP: {0}")]
    BadReply(#[from] ReplyError),
    #[error("the server's reply has a broken chunked content: {0}")]
    BadChunk(#[source] ChunkError),
    #[error("the server's reply ended before it was whole")]
    Truncated,
    #[error("the server sent interim replies without end")]
    EndlessInterim,
    #[error("the server switched protocols without being asked to")]
    UnaskedUpgrade,
    #[error("the server began a tunnel before it had the whole request")]
    EarlyTunnel,
    #[error("the reply cannot be passed on: {0}")]
    NotForThisClient(#[from] Refusal),
    #[error("the reply is longer than what the buffer tiers can hold")]
    BuffersFull,
    #[error("the request's content is longer than what the buffer tiers can hold")]
    NoRoomForContent,
    #[error("a buffer tier lost a part of what it held: {0}")]
    TierLost(#[source] io::Error),
    #[error("the lane between server and client failed: {0}")]
    Lane(#[source] io::Error),
    /// The request's own content is at fault, not a server.
    #[error("{0}")]
    Content(#[from] ContentFault),
    #[error("the operator stopped the request")]
    Cancelled,
    /// Nobody is there to be told.
    #[error("the client went away")]
    ClientGone,
}

/// Whether the device could not connect for want of something of its own: descriptors, memory, ports.
pub fn is_shortage(error: &io::Error) -> bool {
    const SHORT_OF: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| SHORT_OF.iter().any(|short| short.raw_os_error() == code))
}

/// What is wrong with a request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    #[error("the request's content is broken: {0}")]
    Chunk(#[from] ChunkError),
    #[error("the request's content stopped coming")]
    Idle,
    /// The client ended its side in the middle.
    #[error("the request's content was cut short")]
    Cut,
}

impl Failure {
    /// What an attempt to connect that failed with `source` is.
    pub fn of_connect(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::TimedOut => Self::ConnectTimeout,
            _ if is_shortage(&source) => Self::Shortage(source),
            _ => Self::Connect(source),
        }
    }

    /// The status of the reply that the device makes instead.
    pub fn status(&self) -> u16 {
        match self {
            Self::QueueFull | Self::QueueTimeout | Self::Shortage(_) | Self::NoRoomForContent | Self::Cancelled => 503,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::ServerIdle | Self::LaneFull => 504,
            Self::Content(ContentFault::Chunk(error)) => error.status(),
            Self::Content(ContentFault::Idle) => 408,
            Self::Content(ContentFault::Cut) => 400,
            Self::Connect(_)
            | Self::ServerClosed
            | Self::ServerBroke(_)
            | Self::Overtaken
            | Self::Unasked
            | Self::BadReply(_)
            | Self::BadChunk(_)
            | Self::Truncated
            | Self::EndlessInterim
            | Self::UnaskedUpgrade
            | Self::EarlyTunnel
            | Self::NotForThisClient(_)
            | Self::BuffersFull
            | Self::TierLost(_)
            | Self::Lane(_)
            | Self::ClientGone => 502,
        }
    }

    /// Seconds after which trying again may help, for 503.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::QueueFull | Self::QueueTimeout | Self::Shortage(_) | Self::NoRoomForContent => Some(1),
            _ => None,
        }
    }

    /// Whether the connection ended before a byte of a reply came over it.
    pub fn is_silent_end(&self) -> bool {
        matches!(self, Self::ServerClosed | Self::ServerBroke(_))
    }

    /// Whether the connection ended before the response was whole.
    pub fn is_cut(&self) -> bool {
        self.is_silent_end() || matches!(self, Self::Truncated)
    }

    /// Whether what came may be something that the server sent before it had the request: on a connection that was idle,
    /// it need not be the response.
    pub fn may_be_unasked(&self) -> bool {
        matches!(self, Self::Unasked | Self::BadReply(_) | Self::Truncated)
    }

    /// Whether a server, or the way to it, is the cause of a reply that did not begin.
    pub fn is_of_server(&self) -> bool {
        matches!(
            self,
            Self::ServerClosed
                | Self::ServerBroke(_)
                | Self::Overtaken
                | Self::Unasked
                | Self::FirstByteTimeout
                | Self::ServerIdle
                | Self::BadReply(_)
                | Self::Truncated
                | Self::EndlessInterim
        )
    }

    /// Whether the server is to blame in the way that counts for its health: its connections fail.
    pub fn blames_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout | Self::ServerClosed | Self::ServerBroke(_))
    }
}
