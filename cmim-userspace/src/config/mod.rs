//! The configuration: from a file or from command line flags to a [`model::Config`] that is valid by construction.
//!
//! Owns every key's name, default, meaning and message. The way of a configuration: text or flags become a
//! [`document`] (values with their places), `validate` reads that into the model through [`section`] and reports
//! everything that is wrong, not only the first; `print` and `describe` go the other way. It knows nothing of the
//! device that runs on it, and of the host only what a key asks for: the CPUs, a server's host name, the user's run directory.

mod address;
mod change;
mod choice;
mod defaults;
mod describe;
mod document;
mod error;
mod lines;
mod listen_address;
mod listener;
mod load;
pub mod model;
mod print;
mod quick;
mod section;
mod servers;
mod units;
mod upstream;
mod validate;

#[cfg(test)]
mod tests;

pub use change::{Change, change};
pub use defaults::default_control_socket;
pub use describe::describe;
pub use error::{ConfigError, ConfigErrors, Place, Problem, Spot, Unfit, nearest};
pub use load::{Source, load, parse};
pub use model::Config;
pub use print::{defaults_text, to_toml};
pub use quick::{Quick, quick};
pub use servers::{NewServer, ServerError, add_to_text, remove_from_text, server_address, with_server, without_server};
