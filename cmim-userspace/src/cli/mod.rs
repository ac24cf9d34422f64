//! The `cmim` command.
//!
//! Owns the flags, what the tables and screens look like, and exit codes; one file for each command. Figures come typed
//! from [`crate::control`], so that a table and its `--json` say the same. It never looks into a running device.

mod ask;
mod buffers;
mod check;
mod command;
mod completions;
mod config;
mod connections;
mod deny;
mod doctor;
mod drain;
mod error;
mod guard;
mod jobs;
mod man;
mod queues;
mod reload;
mod run;
mod save;
mod screen;
mod servers;
mod splices;
mod status;
mod table;
mod top;
mod upgrade;
mod usage;

pub use command::{Cli, Command};
pub use error::CliError;
pub use screen::{Look, Screen};
pub use usage::wrong_usage;
