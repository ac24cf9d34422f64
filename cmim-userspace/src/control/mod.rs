//! The control socket: typed requests and answers between the `cmim` command and a running daemon.
//!
//! Owns the protocol (one JSON line each way over a Unix socket), its server half and its client half. The daemon gives
//! the data through [`Device`]; the commands of [`crate::cli`] print it.

mod client;
mod device;
mod error;
pub mod figures;
pub mod message;
mod server;
mod socket;

pub use client::ask;
pub use device::Device;
pub use error::ControlError;
pub use server::serve;
pub use socket::{Answering, ControlSocket, bind, bind_beside};

#[cfg(test)]
pub(crate) use server::tests::FakeDevice;
