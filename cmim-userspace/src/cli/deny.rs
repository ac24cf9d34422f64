//! `cmim deny`: the networks whose packets the guard drops.

use clap::Subcommand;

use super::ask::Daemon;
use super::screen::Form;
use super::{CliError, Screen};

const EXAMPLES: &str = "\
Examples:
  cmim deny add 203.0.113.0/24
  cmim deny add 2001:db8:bad::/48
  cmim deny list
  cmim deny remove 203.0.113.0/24

The list lasts as long as the daemon runs. Only interfaces with the guard
(kernel.interfaces) are kept; `cmim guard` shows them.";

/// Drop what comes from a network, stop dropping it, or list what is dropped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Drop what comes from an address or a network, from now on
    Add {
        /// Such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32
        cidr: String,
    },
    /// Take exactly this network off the list
    Remove {
        /// As `cmim deny list` shows it
        cidr: String,
    },
    /// List what is dropped, IPv4 first
    List {
        #[command(flatten)]
        form: Form,
    },
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    match &args.action {
        Action::Add { cidr } => screen.write(&format!("{}\n", daemon.deny(cidr)?)),
        Action::Remove { cidr } => screen.write(&format!("{}\n", daemon.allow(cidr)?)),
        Action::List { form } => screen.show(daemon.denied()?.as_slice(), *form, |denied, _| listing(denied)),
    }
}

/// One network a line, which `cmim deny remove` takes as it is.
fn listing(denied: &[String]) -> String {
    if denied.is_empty() {
        return "nothing is denied\n".to_owned();
    }
    denied.iter().map(|network| format!("{network}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::listing;

    #[test]
    fn a_network_is_a_line_and_none_is_said() {
        assert_eq!(
            listing(&["203.0.113.0/24".to_owned(), "2001:db8::/32".to_owned()]),
            "203.0.113.0/24\n2001:db8::/32\n"
        );
        assert_eq!(listing(&[]), "nothing is denied\n");
    }
}
