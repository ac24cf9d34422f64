//! The command line as a whole: global flags and the list of commands.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::ask::Daemon;
use super::{
    CliError, Screen, buffers, check, completions, config, connections, deny, doctor, drain, guard, jobs, man, queues,
    reload, run, servers, splices, status, top, upgrade,
};

const EXAMPLES: &str = "\
Examples:
  cmim run --listen 127.0.0.1:8080 --server 127.0.0.1:9001
  cmim run --config /etc/cmim/cmim.toml
  cmim check ./cmim.toml
  cmim status

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

/// Where help lists the flags that every command takes.
const GLOBAL: &str = "Global options";

/// Connection management interface: stands between HTTP clients and servers and manages the connections of both.
#[derive(Debug, Parser)]
#[command(name = "cmim", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// The daemon's control socket [default: /run/cmim/control.sock, or the user's own where not root]
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    pub control: Option<PathBuf>,

    /// Log to stderr from this level on: error, warn, info, debug or trace [default: CMIM_LOG, else info in the
    /// daemon and warn elsewhere]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = GLOBAL)]
    pub log_level: Option<String>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(run::Args),
    /// Validate a configuration and print what it would do
    Check(check::Args),
    /// Print the commented defaults or the running configuration
    Config(config::Args),
    /// One screen of the running device: connections, requests, buffers, lanes, kernel, servers
    Status(status::Args),
    /// The same, live in the terminal, with keys to sort, filter and drain a server
    Top(top::Args),
    /// List the client connections
    Connections(connections::Args),
    /// List the servers and their pools; add, remove, drain or enable one
    Servers(servers::Args),
    /// List the requests in the device, or stop one
    Jobs(jobs::Args),
    /// List the queues by upstream
    Queues(queues::Args),
    /// Drop what comes from a network, before the network stack sees it
    Deny(deny::Args),
    /// The guard of the network interfaces: counters by reason and listener, SYN limits
    Guard(guard::Args),
    /// List the buffer tiers
    Buffers(buffers::Args),
    /// Read the configuration file again, without dropping a connection
    Reload(reload::Args),
    /// Stop accepting, finish what is under way and end
    Drain(drain::Args),
    /// Put a new binary in the daemon's place; no request fails
    Upgrade(upgrade::Args),
    /// List what the kernel carries between two sockets by itself
    Splices(splices::Args),
    /// Say what this kernel and user allow, and the way out where something is missing
    Doctor(doctor::Args),
    /// Print the completions for a shell
    Completions(completions::Args),
    /// Print the manual page, or write all of them into a directory
    Man(man::Args),
}

impl Cli {
    /// Whether this is the daemon, whose log an operator reads.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }

    /// Does what the command says and writes its answer to `screen`.
    pub fn execute(self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let daemon = || Daemon::at(self.control.clone());
        match self.command {
            Command::Run(args) => run::execute(args, self.control),
            Command::Check(args) => check::execute(&args, screen),
            Command::Config(args) => config::execute(&args, &daemon(), screen),
            Command::Status(args) => status::execute(&args, &daemon(), screen),
            Command::Top(args) => top::execute(&args, &daemon()),
            Command::Connections(args) => connections::execute(&args, &daemon(), screen),
            Command::Servers(args) => servers::execute(&args, &daemon(), screen),
            Command::Jobs(args) => jobs::execute(&args, &daemon(), screen),
            Command::Queues(args) => queues::execute(&args, &daemon(), screen),
            Command::Deny(args) => deny::execute(&args, &daemon(), screen),
            Command::Guard(args) => guard::execute(&args, &daemon(), screen),
            Command::Buffers(args) => buffers::execute(&args, &daemon(), screen),
            Command::Reload(args) => reload::execute(&args, &daemon(), screen),
            Command::Upgrade(args) => upgrade::execute(&args, &daemon(), screen),
            Command::Drain(args) => drain::execute(&args, &daemon(), screen),
            Command::Splices(args) => splices::execute(&args, &daemon(), screen),
            Command::Doctor(args) => doctor::execute(&args, screen),
            Command::Completions(args) => completions::execute(&args, screen),
            Command::Man(args) => man::execute(&args, screen),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn refused(args: &[&str]) -> ErrorKind {
        Cli::try_parse_from(args).expect_err("wrong usage").kind()
    }

    #[test]
    fn the_definitions_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn control_is_taken_before_and_after_the_command() {
        for args in [["cmim", "--control", "/x", "status"], ["cmim", "status", "--control", "/x"]] {
            let cli = Cli::try_parse_from(args).expect("parses");
            assert_eq!(cli.control, Some("/x".into()));
        }
    }

    #[test]
    fn the_daemon_is_named_before_and_after_an_action() {
        for action in [&["servers", "drain", "app", "a:1"][..], &["jobs", "cancel", "1.0"], &["deny", "list"]] {
            for at in 0..=action.len() {
                let (before, after) = action.split_at(at);
                let args = [&["cmim"], before, &["--control", "/x"], after].concat();
                let cli = Cli::try_parse_from(&args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
                assert_eq!(cli.control, Some("/x".into()), "{args:?}");
            }
        }
    }

    #[test]
    fn a_file_and_flags_that_stand_for_one_exclude_each_other() {
        let args = ["cmim", "run", "--config", "a.toml", "--listen", "127.0.0.1:80"];
        assert_eq!(refused(&args), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn flags_for_the_device_need_a_listener_and_a_server() {
        assert_eq!(refused(&["cmim", "run", "--listen", "127.0.0.1:80"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["cmim", "run", "--kernel", "off"]), ErrorKind::MissingRequiredArgument);
        let args = ["cmim", "run", "--listen", ":80", "--server", "a:1", "--server", "unix:/b", "--set", "a.b=1"];
        assert!(Cli::try_parse_from(args).is_ok());
    }

    #[test]
    fn a_word_that_is_no_command_is_wrong_usage() {
        assert_eq!(refused(&["cmim", "statsu"]), ErrorKind::InvalidSubcommand);
    }

    #[test]
    fn help_fits_eighty_columns() {
        let mut command = Cli::command().term_width(80);
        command.build();
        for name in [
            "run",
            "check",
            "config",
            "status",
            "top",
            "connections",
            "servers",
            "jobs",
            "queues",
            "buffers",
            "deny",
            "guard",
            "reload",
            "drain",
            "upgrade",
            "splices",
            "doctor",
            "completions",
            "man",
        ] {
            let command = command.find_subcommand_mut(name).expect("a command");
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }
}
