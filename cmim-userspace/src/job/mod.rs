//! Requests as jobs: the states they go through, how many are in each, and the queue in which they wait for a server.
//!
//! Pure: it knows no socket, clock or runtime. [`crate::upstream`] owns one queue per upstream, each worker one ledger.

mod life;
mod queue;

pub use life::{Ledger, State};
pub use queue::{FairQueue, Ticket};
