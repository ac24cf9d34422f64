//! Lanes: ways to carry bytes between two sockets without looking at them.

pub mod choose;
mod direction;
pub mod local;
mod phase;
pub mod pipe;
pub mod sockmap;
pub mod tunnel;
mod turn;

#[cfg(test)]
mod tests;

pub use choose::{Lane, Load, Rules};
pub use turn::{turn, turns_taken};
