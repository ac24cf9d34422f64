//! Progress lines: what a step does, how long it took, what it found.
//!
//! On a terminal the running step's line shows the last line of its output and is then overwritten by its outcome; in
//! a log the line is begun at the start and ended at the end, so that a log that stops says where.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Shorter steps do not say how long they took.
const WORTH_SAYING: Duration = Duration::from_millis(100);
/// Where the terminal's width is not known.
const LIVE_WIDTH: usize = 110;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Bad,
}

/// One running step. Dropped without an outcome (an error on its way) it only ends its line.
#[derive(Debug)]
pub(crate) struct Step {
    task: &'static str,
    title: String,
    started: Instant,
    live: bool,
    ended: bool,
}

impl Step {
    pub(crate) fn start(task: &'static str, title: impl Into<String>) -> Self {
        let step =
            Self { task, title: title.into(), started: Instant::now(), live: io::stderr().is_terminal(), ended: false };
        put(&format!("{} {} ...", step.head(), step.title));
        step
    }

    /// Shows the step's last line of output, on a terminal only.
    pub(crate) fn live(&self, line: &str) {
        let line = without_escapes(line);
        if !self.live || line.trim().is_empty() {
            return;
        }
        let text = format!("{} {} ... {}", self.task, self.title, line.trim());
        let cut: String = text.chars().take(LIVE_WIDTH).collect();
        put(&format!("\r\x1b[2K  \x1b[2m{cut}\x1b[0m"));
    }

    pub(crate) fn done(self, found: impl AsRef<str>) {
        self.end(Mark::Good, found.as_ref());
    }

    pub(crate) fn failed(self, found: impl AsRef<str>) {
        self.end(Mark::Bad, found.as_ref());
    }

    fn end(mut self, mark: Mark, found: &str) {
        self.ended = true;
        let elapsed = self.started.elapsed();
        let time = if elapsed < WORTH_SAYING { String::new() } else { format!(" ({})", seconds(elapsed)) };
        let outcome = painted(mark, found);
        if self.live {
            put(&format!("\r\x1b[2K{} {} ... {outcome}{time}\n", self.head(), self.title));
        } else {
            put(&format!(" {outcome}{time}\n"));
        }
    }

    fn head(&self) -> String {
        head(self.task)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            put("\n");
        }
    }
}

/// A line that needs no step around it.
pub(crate) fn note(task: &'static str, text: impl AsRef<str>) {
    put(&format!("{} {}\n", head(task), text.as_ref()));
}

/// `text` in the mark's colour where standard error is a terminal.
pub(crate) fn painted(mark: Mark, text: &str) -> String {
    if !io::stderr().is_terminal() {
        return text.to_owned();
    }
    match mark {
        Mark::Good => format!("\x1b[32m{text}\x1b[0m"),
        Mark::Bad => format!("\x1b[1;31m{text}\x1b[0m"),
    }
}

pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole >= 60 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

pub(crate) fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..0x10_0000 => format!("{} KiB", bytes / KIB),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes >> 10) % KIB) * 10 / KIB),
    }
}

fn head(task: &str) -> String {
    format!("  {task:<7}")
}

fn put(text: &str) {
    // Nobody reads it any more: not a reason to stop the work.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(letter) = rest.next() {
        if letter == '\x1b' {
            // A control sequence ends at its first letter.
            rest.by_ref().find(|&end| end.is_ascii_alphabetic());
        } else if !letter.is_control() {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(92)), "1 min 32 s");
        assert_eq!(size(900), "900 B");
        assert_eq!(size(34 * 1024), "34 KiB");
        assert_eq!(size(5 * 1024 * 1024 + 512 * 1024), "5.5 MiB");
    }

    #[test]
    fn colours_of_other_programs_are_taken_out() {
        assert_eq!(without_escapes("\x1b[1m\x1b[32m   Compiling\x1b[0m bytes"), "   Compiling bytes");
    }
}
