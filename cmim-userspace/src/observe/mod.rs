//! What the device tells about itself: counters, the access log, metrics and the status page, and systemd.
//!
//! Owns how figures and log lines are kept and shown; it decides nothing. The data path writes, operators read.

pub mod access_log;
pub mod admin;
pub mod counters;
pub mod histogram;
mod log_line;
mod log_sink;
mod metrics;
pub mod notify;
mod page;
pub mod roll;
