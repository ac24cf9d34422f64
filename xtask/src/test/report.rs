//! What `cargo test` says, as progress lines and counts.
//!
//! Knows libtest's plain output: a `Running …` line before each target, `test NAME ... OUTCOME` lines, and a
//! `test result:` line at its end. A test that cannot run here writes a line that starts with `SKIPPED:` and passes; it
//! is counted as skipped.

use std::fmt;
use std::process::Command;

use anyhow::Result;

use crate::command::{listen, tail};
use crate::progress::{Step, note};

const SKIPPED: &str = "SKIPPED:";
/// Begins the line of a figure that a test measured.
const MEASURED: &str = "MEASURED:";

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// What each skipped test wrote.
    skipped: Vec<String>,
    /// What each test measured.
    measured: Vec<String>,
}

impl Totals {
    /// One check that is not a test.
    pub(crate) fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
        self.measured.extend(other.measured);
    }

    pub(crate) fn good(&self) -> bool {
        self.failed == 0
    }

    pub(crate) fn show_skipped(&self) {
        for line in &self.skipped {
            note("test", line);
        }
    }

    /// Shows the figures that the tests told.
    pub(crate) fn show_measured(&self) {
        for line in &self.measured {
            note("figure", line);
        }
    }

    /// libtest counts a test that skipped itself as passed.
    fn really_passed(&self) -> usize {
        self.passed.saturating_sub(self.skipped.len())
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn read_result(&mut self, line: &str) {
        let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let [number, name] = pair else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match *name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.really_passed(),
            self.failed,
            self.skipped.len() + self.ignored
        )
    }
}

/// One `cargo test`, followed line by line.
#[derive(Debug)]
pub(crate) struct Report {
    what: &'static str,
    totals: Totals,
    /// The target that begins next: one with nothing to run gets no line.
    next: String,
    target: Option<Target>,
    compiling: Option<Step>,
}

/// A test executable that is running.
#[derive(Debug)]
struct Target {
    step: Step,
    totals: Totals,
    /// From `failures:` on.
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, totals: Totals::default(), next: String::new(), target: None, compiling: None }
    }

    /// Runs the command with libtest's filter and returns its counts; what failed has been shown.
    pub(crate) fn run(mut self, mut command: Command, filter: Option<&str>) -> Result<Totals> {
        // Its colours would end up in the lines that are read here.
        command.env("CARGO_TERM_COLOR", "never").args(filter);
        self.compiling = Some(Step::start("test", format!("{}: compiling", self.what)));
        let said = listen(command, |line| self.line(line))?;
        let unfinished = self.unfinished();
        if let Some(step) = self.compiling.take() {
            step.failed("FAILED");
        }
        let unexplained = !said.success && self.totals.failed == 0;
        if unfinished || unexplained {
            eprint!("{}", tail(&said.text));
        }
        if unexplained {
            self.totals.failed += 1;
        }
        Ok(self.totals)
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = target_name(line) {
            if let Some(step) = self.compiling.take() {
                step.done("done");
            }
            self.unfinished();
            name.clone_into(&mut self.next);
        } else if running_some(line) {
            let step = Step::start("test", format!("{}: {}", self.what, self.next));
            self.target = Some(Target { step, totals: Totals::default(), failures: Vec::new() });
        } else if line.starts_with("test result:") {
            self.end(line);
        } else if let Some(step) = &self.compiling {
            step.live(line);
        } else if let Some(target) = &mut self.target {
            target.line(line);
        }
    }

    /// A target that has no result line when the next begins, or when all ends, has died.
    fn unfinished(&mut self) -> bool {
        let Some(target) = self.target.take() else { return false };
        target.step.failed("did not finish");
        self.totals.failed += 1;
        true
    }

    fn end(&mut self, line: &str) {
        let Some(mut target) = self.target.take() else { return };
        target.totals.read_result(line);
        let outcome = target.totals.to_string();
        if target.totals.good() {
            target.step.done(outcome);
        } else {
            target.step.failed(outcome);
        }
        for line in &target.failures {
            eprintln!("    {line}");
        }
        self.totals.add(target.totals);
    }
}

impl Target {
    fn line(&mut self, line: &str) {
        // Written past libtest's capture, so it may come behind the start of libtest's own line.
        if let Some((_, skipped)) = line.split_once(SKIPPED) {
            self.totals.skipped.push(format!("{SKIPPED}{skipped}"));
        }
        if let Some((_, measured)) = line.split_once(MEASURED) {
            self.totals.measured.push(measured.trim().to_owned());
        }
        if !self.failures.is_empty() || line == "failures:" {
            self.failures.push(line.to_owned());
        } else {
            self.step.live(line);
        }
    }
}

/// `Running unittests src/lib.rs (target/…)`, `Running tests/limits.rs (…)`, `Doc-tests cmim`.
fn target_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("Doc-tests ") {
        return Some(line);
    }
    let rest = line.strip_prefix("Running ")?;
    // Two packages have a src/main.rs: the executable says which one this is.
    let (source, executable) = rest.split_once(" (")?;
    if !source.starts_with("unittests ") {
        return source.rsplit('/').next()?.strip_suffix(".rs");
    }
    let file = executable.trim_end_matches(')').rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name))
}

/// `running 3 tests`, but not `running 0 tests`.
fn running_some(line: &str) -> bool {
    let count = line
        .strip_prefix("running ")
        .and_then(|rest| rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test")));
    count.and_then(|count| count.parse::<usize>().ok()).is_some_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut totals = Totals::default();
        totals.read_result(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
        );
        totals.read_result(
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        totals.skipped.push("SKIPPED: x: needs root".to_owned());
        assert_eq!(totals.to_string(), "13 passed, 1 failed, 2 skipped");
        assert!(!totals.good());
    }

    #[test]
    fn targets_have_short_names() {
        assert_eq!(target_name("     Running unittests src/main.rs (target/debug/deps/xtask-0a1b)"), Some("xtask"));
        assert_eq!(target_name("     Running tests/limits.rs (target/debug/deps/limits-0a1b)"), Some("limits"));
        assert_eq!(target_name("   Doc-tests cmim"), Some("Doc-tests cmim"));
        assert_eq!(target_name("test running ... ok"), None);
    }

    #[test]
    fn a_target_with_nothing_to_run_is_not_worth_a_line() {
        assert!(running_some("running 1 test") && running_some("running 12 tests"));
        assert!(!running_some("running 0 tests") && !running_some("test running 3 tests ... ok"));
    }
}
