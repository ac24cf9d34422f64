//! What to do with a server's reply.
//!
//! Pure: heads, settings and events in, decisions out. It knows no socket, clock or tier; `exchange` carries out what is
//! decided here.

mod plan;

pub use plan::{Fallback, HoldUntil, Plan, Refusal, plan};
