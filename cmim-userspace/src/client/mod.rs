//! One client connection: reads its requests, lets [`crate::stack`] say what may start, runs the exchanges and closes
//! the connection as it should be closed.
//!
//! It owns the connection's loop and its read side. What happens to a single request is [`crate::exchange`]'s.

mod arrival;
mod close;
mod connection;
mod departure;
mod log;
mod parked;
mod request;
mod route;
mod running;
mod serve;

pub use arrival::Arrival;
pub use parked::Parked;
pub use serve::{Entrance, Guest, Newcomer, serve, serve_again};
