//! One run under callgrind, and what it says of it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::tail;

/// Valgrind with what it needs before the program's own name. The profile itself is of no interest.
pub(super) fn command(valgrind: &Path) -> Command {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
}

/// Runs a program to its end; the instructions of all its threads.
pub(super) fn run(valgrind: &Path, program: &Path, arguments: &[&str]) -> Result<f64> {
    let mut command = command(valgrind);
    let output =
        command.arg(program).args(arguments).stdin(Stdio::null()).output().context("valgrind did not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} failed under valgrind:\n{}", program.display(), tail(&text));
    }
    collected(&text).with_context(|| format!("valgrind told no count:\n{}", tail(&text)))
}

/// `==42== Collected : 123456`
pub(super) fn collected(text: &str) -> Option<f64> {
    text.lines().rev().find_map(|line| line.split_once("Collected : "))?.1.split_whitespace().next()?.parse().ok()
}

/// Instructions of one step, from two runs of so many each.
pub(super) fn difference((few, at_few): (u32, f64), (many, at_many): (u32, f64)) -> Result<f64> {
    let each = (at_many - at_few) / f64::from(many.saturating_sub(few).max(1));
    if each <= 0.0 {
        bail!("{many} took no more instructions than {few}");
    }
    Ok(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_and_the_start_taken_off() {
        let text = "==42== Events    : Ir\n==42== Collected : 123456\n==42== \n==42== I   refs:      123,456\n";
        assert_eq!(collected(text), Some(123_456.0));
        assert_eq!(collected("==42== \n"), None);
        assert_eq!(difference((10, 1500.0), (30, 2500.0)).ok(), Some(50.0));
        assert!(difference((10, 1500.0), (30, 1500.0)).is_err());
    }
}
