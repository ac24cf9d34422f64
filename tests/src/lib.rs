//! Black-box tests of the real `cmim` binary: what is started, asked and looked at.
//!
//! The binary is the one that `CMIM_BIN` names, else the newest of `target/release/cmim` and `target/test-device/cmim`.
//! Nothing here links the device: a test sees what an operator, a client or a server sees.

pub mod attack;
pub mod bpftool;
pub mod client;
pub mod deadline;
pub mod device;
pub mod fields;
pub mod guarded;
pub mod load;
pub mod mounts;
pub mod netns;
pub mod origin;
pub mod pattern;
pub mod pipelined;
pub mod ports;
pub mod process;
pub mod refusal;
pub mod setup;
pub mod skip;
pub mod tiers;
pub mod wire;

pub use client::{Client, Framing, Reply};
pub use device::Device;
pub use guarded::Guarded;
pub use load::Load;
pub use netns::Namespace;
pub use origin::{Crew, Lighttpd, Mortal, Nginx, Php, Request, ScriptedServer, ServerSide};
pub use setup::Setup;
