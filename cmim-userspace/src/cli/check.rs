//! `cmim check`: a configuration without a device.

use std::path::PathBuf;

use super::screen::Paint;
use super::{CliError, Screen, run};
use crate::config;

const EXAMPLES: &str = "\
Examples:
  cmim check
  cmim check ./cmim.toml && cmim run --config ./cmim.toml

Every error is printed as FILE:LINE:COLUMN: KEY: what is wrong.";

/// Validate a configuration and print what it would do; exit 1 with every error, not only the first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = run::DEFAULT_FILE)]
    file: PathBuf,
}

pub(super) fn execute(args: &Args, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let config = config::load(&args.file).map_err(CliError::File)?;
    let valid = screen.look().paint(Paint::Good, "valid");
    screen.write(&format!("{}: {valid}\n\n{}", args.file.display(), config::describe(&config)))
}
