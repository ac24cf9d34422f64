//! The servers of an upstream as the device sees them: which one takes the next request, over which connection, and
//! which one is out.
//!
//! Pure: requests and `now` come in, decisions go out. An idle connection is an opaque value `C` that this module keeps
//! and hands out but never looks into; it knows no socket, no clock and no runtime. [`crate::exchange`] drives it.

mod balance;
mod change;
mod coping;
mod eligible;
pub mod hash;
mod health;
mod maglev;
mod pool;
mod retry;
mod server;
mod set;
mod train;

pub use coping::Coping;
pub use health::HealthState;
pub use pool::{Idle, Pool};
pub use retry::RetryBudget;
pub use server::{Endpoint, Server, ServerId};
pub use set::{Acquired, Ask, Ending, Grant, Role, Settings, Upstream};
pub use train::{Next, Seat, Train};
