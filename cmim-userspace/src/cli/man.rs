//! `cmim man`: the manual pages, generated from the command line's own definition.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::{Man, generate_to};

use super::{Cli, CliError, Screen};

const EXAMPLES: &str = "\
Examples:
  cmim man | man -l -
  cmim man --dir /usr/local/share/man/man1";

/// Print the manual page of cmim, or write those of all commands into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write cmim.1, cmim-run.1 and the others here; the directory is made where there is none
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn execute(args: &Args, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        Man::new(Cli::command()).render(&mut text)?;
        return screen.write_bytes(&text);
    };
    fs::create_dir_all(dir)
        .and_then(|()| generate_to(Cli::command(), dir))
        .map_err(|source| CliError::Directory { path: dir.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Look;

    #[test]
    fn each_command_has_its_page() {
        let dir = std::env::temp_dir().join(format!("cmim-man-{}", std::process::id()));
        let mut out = Vec::new();
        let args = Args { dir: Some(dir.clone()) };
        execute(&args, &mut Screen::new(&mut out, Look::default())).expect("written");
        for page in ["cmim.1", "cmim-run.1", "cmim-status.1", "cmim-config-defaults.1"] {
            assert!(dir.join(page).exists(), "{page}");
        }
        fs::remove_dir_all(dir).expect("removed");
    }
}
