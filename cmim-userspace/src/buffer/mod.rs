//! Contents held in the device: how much of which tier each takes, and the bytes themselves.
//!
//! [`Store`] is all tiers and their threads, one for the device. [`Held`] is one content, appended by the exchange and
//! sent in order at the same time. What decides about room is pure: [`ram`] the RAM tier's account, [`extents`] the
//! places in a tier's file. [`BufferPool`] has the read buffers of one worker and is outside the tiers.

mod condition;
mod content;
mod directory;
mod error;
mod extent;
mod extents;
#[cfg(test)]
mod faults;
mod figures;
mod part;
mod pool;
mod ram;
mod reader;
mod send;
mod space;
mod spill;
mod spool;
mod store;
#[cfg(test)]
mod tests;
mod tier;
mod waiters;
mod wear;
mod write;
mod writer;

pub use content::{Full, Held};
pub use directory::{MadeDirectories, make_directories};
pub use error::BufferError;
pub use figures::{Figures, Report};
pub use part::COPY_BELOW;
pub use pool::{BufferPool, ReadSize};
pub use send::SendError;
pub use store::{Store, kind_name};
