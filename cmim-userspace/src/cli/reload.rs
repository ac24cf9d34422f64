//! `cmim reload`: the daemon reads its file again.

use super::ask::Daemon;
use super::screen::Form;
use super::{CliError, Screen};

const EXAMPLES: &str = "\
Examples:
  cmim check /etc/cmim/cmim.toml && cmim reload

A file that is wrong changes nothing: every error is printed, and the exit code
is 1. Connections stay open; a request sees one configuration from its head to
its end. SIGHUP does the same, and opens the access log anew.";

/// Read the configuration file again and put it in force, without dropping a connection.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.show(&daemon.reload()?, args.form, |reloaded, _| format!("{}\n", reloaded.lines().join("\n")))
}
