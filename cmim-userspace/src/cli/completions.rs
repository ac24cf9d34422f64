//! `cmim completions`: generated from the command line's own definition.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, CliError, Screen};

const EXAMPLES: &str = "\
Examples:
  cmim completions bash > /etc/bash_completion.d/cmim
  cmim completions zsh > ~/.zfunc/_cmim
  cmim completions fish > ~/.config/fish/completions/cmim.fish";

/// Print the completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    shell: Shell,
}

pub(super) fn execute(args: &Args, screen: &mut Screen<'_>) -> Result<(), CliError> {
    // Into memory first: the generator panics where its writer fails, and a pipe may be closed.
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "cmim", &mut text);
    screen.write_bytes(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Look;

    #[test]
    fn every_shell_gets_its_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            execute(&Args { shell }, &mut Screen::new(&mut out, Look::default())).expect("written");
            let text = String::from_utf8(out).expect("UTF-8");
            assert!(text.contains("connections") && text.contains("doctor"), "{shell}");
        }
    }
}
