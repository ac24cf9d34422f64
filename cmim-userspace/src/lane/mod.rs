//! Lanes: ways to carry bytes between two sockets without looking at them.

pub mod choose;
pub mod copy;
mod direction;
mod phase;
pub mod pipe;
pub mod sockmap;

#[cfg(test)]
mod tests;

pub use choose::{Lane, Load, Rules};
