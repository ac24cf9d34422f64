//! What is noted of a request on its way, for the access log and the counters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::upstream::Endpoint;

/// How a reply left the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// As it came.
    Streamed,
    /// Held until whole, with a length of the device's making.
    Rewritten,
    /// Chunked by the device because its length was not known in time.
    Chunked,
    /// Of the device's own making.
    Local,
    /// A tunnel after 101 or CONNECT.
    Tunnel,
}

impl Handling {
    /// As the access log has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::Rewritten => "rewritten",
            Self::Chunked => "chunked",
            Self::Local => "local",
            Self::Tunnel => "tunnel",
        }
    }
}

/// One request's notes.
#[derive(Debug)]
pub struct Trail {
    pub began: Instant,
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub server: Option<Arc<Endpoint>>,
    pub queue_wait: Option<Duration>,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub turn_wait: Option<Duration>,
    pub reused: bool,
    /// A part of the reply left RAM while it was held.
    pub spilled: bool,
    pub retries: u32,
    /// Requests of the same client connection in the device when it came, itself included.
    pub stacked: u32,
    pub handling: Handling,
    pub reason: Option<String>,
}

impl Trail {
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            server: None,
            queue_wait: None,
            connect: None,
            first_byte: None,
            turn_wait: None,
            reused: false,
            spilled: false,
            retries: 0,
            stacked: 1,
            handling: Handling::Local,
            reason: None,
        }
    }
}
