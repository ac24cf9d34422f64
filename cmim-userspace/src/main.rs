//! The `cmim` binary: reads the command line, sets up logging, runs the command and turns its end into an exit code.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use cmim::cli::{Cli, CliError, Look, Screen, wrong_usage};
use tracing_subscriber::EnvFilter;

const LOG_VARIABLE: &str = "CMIM_LOG";
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return without_command(&error),
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<CliError>() {
            Some(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
            Some(error) => {
                say(error);
                ExitCode::from(error.exit_code())
            }
            None => {
                say(format_args!("cmim: {error:#}"));
                ExitCode::from(FAILED)
            }
        },
    }
}

/// The command line is wrong, or asks for help or the version.
fn without_command(error: &clap::Error) -> ExitCode {
    match wrong_usage(error) {
        Some(line) => say(line),
        // Its reader may be gone, as after `cmim --help | head -1`.
        None => drop(error.print()),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED))
}

/// To stderr where somebody reads it. `eprintln!` would panic where nobody does.
fn say(line: impl Display) {
    let _: io::Result<()> = writeln!(io::stderr(), "{line}");
}

fn start(cli: Cli) -> anyhow::Result<()> {
    set_up_logging(&cli)?;
    let mut out = io::stdout();
    let mut screen = Screen::new(&mut out, Look::of_stdout());
    cli.execute(&mut screen)?;
    Ok(())
}

/// To stderr: stdout belongs to answers and, in the daemon, to the access log.
fn set_up_logging(cli: &Cli) -> anyhow::Result<()> {
    let (said_by, directives) = match (&cli.log_level, env::var(LOG_VARIABLE)) {
        (Some(level), _) => ("--log-level", level.clone()),
        (None, Ok(value)) => (LOG_VARIABLE, value),
        (None, Err(_)) => ("the default", if cli.is_daemon() { "info" } else { "warn" }.to_owned()),
    };
    // The filter's own error repeats itself; what was given and what is taken says more.
    let Ok(filter) = EnvFilter::try_new(&directives) else {
        anyhow::bail!(
            "{said_by}: {directives:?} is no log level (error, warn, info, debug, trace, or a list such as warn,cmim=debug)"
        );
    };
    let coloured = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would tell of a stderr that cannot be written on that very stderr, and panic: a closed pipe or a full disk
        // would end the daemon with its next line.
        .log_internal_errors(false)
        .with_ansi(coloured)
        .with_target(false);
    // The journal has a clock of its own.
    if env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().init();
    } else {
        lines.init();
    }
    Ok(())
}
