//! cmim, a connection management interface: many HTTP clients on one side, many HTTP servers on the other, and the
//! management of the connections on both sides between them.
//!
//! The way of a request: [`worker`] accepts a connection, [`client`] reads heads off it, [`stack`] says which may start,
//! [`exchange`] takes each to a server of an [`upstream`] and brings the reply back, through [`buffer`] where it has to
//! wait and over a [`lane`] where it need not. [`h1`], [`reply`], [`stack`], [`job`] and [`upstream`] decide and touch
//! no socket; ARCHITECTURE.md has the map.

pub mod buffer;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod exchange;
pub mod h1;
pub mod job;
pub mod kernel;
pub mod lane;
pub mod net;
pub mod observe;
pub mod reply;
pub mod stack;
pub mod upstream;
pub mod worker;
