//! `cmim drain`: the daemon stops accepting, finishes and ends.

use std::thread;
use std::time::Duration;

use super::ask::Daemon;
use super::{CliError, Screen};
use crate::control::ControlError;

const EXAMPLES: &str = "\
Examples:
  cmim drain

Idle client connections are closed, busy ones finish their requests, for at most
daemon.shutdown_grace. The same as SIGTERM; `systemctl stop` waits for it too.";

/// How often the daemon is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Stop accepting, finish what is under way and end; prints how many connections are left until it has.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub(super) fn execute(_: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let pid = daemon.status()?.pid;
    screen.write(&format!("{}\n", daemon.drain()?))?;
    let mut told = None;
    loop {
        match daemon.status() {
            // Another daemon has the socket: a new one, or a successor.
            Ok(status) if status.pid != pid => break,
            Ok(status) => {
                let left = status.client_connections.open;
                if told.replace(left) != Some(left) {
                    let unit = if left == 1 { "connection" } else { "connections" };
                    screen.write(&format!("{left} {unit} left\n"))?;
                }
            }
            Err(CliError::Control(ControlError::NoDaemon { .. } | ControlError::NoAnswer { .. })) => break,
            Err(error) => return Err(error),
        }
        thread::sleep(LOOK_EVERY);
    }
    screen.write("ended\n")
}
