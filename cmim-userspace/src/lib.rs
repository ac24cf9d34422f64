//! cmim, a connection management interface: many HTTP clients on one side, many HTTP servers on the other, and the
//! management of the connections on both sides between them.

pub mod buffer;
pub mod config;
pub mod control;
pub mod h1;
pub mod job;
pub mod kernel;
pub mod net;
pub mod observe;
pub mod reply;
pub mod stack;
pub mod upstream;
