//! Lanes: ways to carry bytes between two sockets without looking at them.

pub mod copy;
