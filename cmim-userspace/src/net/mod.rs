//! Sockets: listening, connecting, and one type for a stream whatever carries it.
//!
//! It moves bytes and knows no HTTP.

mod connect;
mod listen;
pub mod proxy_protocol;
mod stream;

pub use connect::connect;
pub use listen::{Bound, ListenError, bind};
pub use stream::Stream;
