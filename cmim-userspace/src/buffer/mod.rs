//! Contents held in the device: how much of which tier each takes, and the bytes themselves.
//!
//! [`tiers`] is the accounting and is pure. [`held`] is one content, appended by the exchange and read in order by the
//! client side.

mod held;
mod pool;
pub mod tiers;

pub use held::Held;
pub use pool::BufferPool;
pub use tiers::{Memory, Reservation};
