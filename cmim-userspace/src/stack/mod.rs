//! Stacked requests: several on one client connection whose replies are not sent yet.
//!
//! Pure: it knows the order of the requests and what may run at the same time; it knows no bytes, socket or clock.
//! [`crate::client`] asks it what to start, and whose reply is due.

mod order;

pub use order::{Order, Seq, Turn};

#[cfg(test)]
mod model_tests;
