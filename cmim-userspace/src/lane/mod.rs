//! Lanes: ways to carry bytes between two sockets without looking at them.

pub mod choose;
pub mod copy;
pub mod pipe;

pub use choose::{Lane, Load, Rules};
