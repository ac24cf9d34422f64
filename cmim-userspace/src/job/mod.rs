//! Requests as jobs: the queue in which they wait for a server.
//!
//! Pure: it knows no socket, clock or runtime. [`crate::upstream`] owns one queue per upstream.

mod queue;

pub use queue::{FairQueue, Ticket};
