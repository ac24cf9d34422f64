//! Sockets: listening, connecting, and one type for a stream whatever carries it.
//!
//! It moves bytes and knows no HTTP.

mod connect;
mod handover;
mod listen;
pub mod proxy_protocol;
mod stream;
mod tcp;

pub use connect::{connect, connect_marked};
pub use handover::{Channel, Inherited, MOST_SOCKETS};
pub use listen::{Bound, Entry, ListenError, bind, inherited};
pub use stream::Stream;
pub use tcp::{Stir, watched};
