//! The kernel part as the daemon holds it: loading, maps, the guard on its interfaces, pins, and what this host allows.
//!
//! Owns: the BPF object's life, from the embedded bytes to the last pin removed. It must not know HTTP, jobs or
//! workers. Its data comes from the configuration's `[kernel]` table and from the listeners' addresses; it goes into the
//! maps, and back out as counts, as the report that `cmim status` shows and as the findings of `cmim doctor`.
//!
//! Each step is an optimisation that the host may refuse. In `auto` a refusal becomes a clause of
//! [`KernelPart::missing`] and the daemon does that work itself; in `required` it is an error.

mod bell;
mod btf;
pub mod capability;
pub mod error;
pub mod guard;
mod listening;
pub mod load;
mod loaded;
mod local;
pub mod log;
pub mod maps;
pub mod part;
mod piece;
pub mod pin;
mod report;
mod self_test;
mod shared;
pub mod splice;
mod steer;
mod tcp;
mod vlan;
mod workers;

#[cfg(test)]
pub(crate) mod tests;

pub use bell::SpliceEvents;
pub use capability::{Finding, doctor};
pub use error::KernelError;
pub use listening::{Listening, OpenSockets};
pub use local::LocalLane;
pub use part::{KernelPart, start, start_after};
pub use splice::{Progress, Splice, SpliceError, Splicer, Way};
pub use workers::WorkerLoad;
