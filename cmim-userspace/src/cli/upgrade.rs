//! `cmim upgrade`: another binary in the daemon's place.

use std::path::PathBuf;

use super::ask::Daemon;
use super::{CliError, Screen};

const EXAMPLES: &str = "\
Examples:
  install ./cmim /usr/local/bin/cmim && cmim upgrade
  cmim upgrade --binary /opt/cmim-next/bin/cmim

The new process gets the listening sockets and reads the configuration file. The
old one accepts until the new one is ready, and then finishes what it has, for at
most daemon.shutdown_grace. If the new one does not start, the old one goes on.";

/// Start a new binary, hand it the listening sockets and finish; no request fails.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The new binary [default: the path of the running one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    // The daemon has a working directory of its own.
    let binary = args.binary.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let done = daemon.upgrade(binary)?;
    screen.write(&format!("{done}\n"))
}
