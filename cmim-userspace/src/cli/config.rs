//! `cmim config`: the defaults and the running configuration.

use super::ask::Daemon;
use super::{CliError, Screen};
use crate::config;

const EXAMPLES: &str = "\
Examples:
  cmim config defaults > cmim.toml
  cmim config show | grep splice";

/// Print the commented defaults or the running configuration, both as a file that cmim reads.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// Every key with its default and what it means
    Defaults,
    /// The effective configuration of the running daemon
    Show,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    match args.which {
        Which::Defaults => screen.write(&config::defaults_text()),
        Which::Show => screen.write(&daemon.config()?),
    }
}
