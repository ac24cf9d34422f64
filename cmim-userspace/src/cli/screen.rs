//! Where a command's answer goes, and how it may look there.

use std::env;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::CliError;

/// What the reader of stdout can show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    pub colour: bool,
    /// Columns of the terminal; `None`: a file or pipe, where nothing is shortened.
    pub width: Option<usize>,
}

impl Look {
    /// Colour only on a terminal, and not under NO_COLOR (https://no-color.org) or TERM=dumb.
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        Self { colour: !refused && !dumb, width: width.filter(|width| *width > 0) }
    }

    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        match paint.code() {
            Some(code) if self.colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What a piece of text means; a colour never says more than the words beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Paint {
    #[default]
    Plain,
    Heading,
    Aside,
    Good,
    Warning,
    Bad,
}

impl Paint {
    /// The parameter of the terminal's SGR sequence.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("1"),
            Self::Aside => Some("2"),
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
        }
    }

    /// How a server's state is painted.
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "up" => Self::Good,
            "down" => Self::Bad,
            "probing" | "draining" => Self::Warning,
            _ => Self::Plain,
        }
    }
}

/// How a command's answer is wanted; every listing takes this flag.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Form {
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Form {
    /// For a change, where the same command would list without one.
    pub(super) fn refuse_json(self) -> Result<(), CliError> {
        if self.json { Err(CliError::NoList) } else { Ok(()) }
    }
}

/// A command's standard output.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    look: Look,
}

impl std::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("look", &self.look).finish_non_exhaustive()
    }
}

impl<'a> Screen<'a> {
    pub fn new(out: &'a mut dyn Write, look: Look) -> Self {
        Self { out, look }
    }

    pub(super) fn look(&self) -> Look {
        self.look
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.write_bytes(text.as_bytes())
    }

    pub(super) fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes)?;
        self.out.flush()?;
        Ok(())
    }

    /// Writes an answer: as `text` puts it for people, or as pretty JSON.
    pub(super) fn show<A: Serialize + ?Sized>(
        &mut self,
        answer: &A,
        form: Form,
        text: impl FnOnce(&A, Look) -> String,
    ) -> Result<(), CliError> {
        let text = if form.json { serde_json::to_string_pretty(answer)? + "\n" } else { text(answer, self.look) };
        self.write(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_in_the_form_that_was_asked_for() {
        let shown = |json| {
            let mut out = Vec::new();
            let mut screen = Screen::new(&mut out, Look::default());
            screen.show(&["one"][..], Form { json }, |answer, _| answer.join("\n") + " for people\n").expect("written");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(shown(false), "one for people\n");
        assert_eq!(shown(true), "[\n  \"one\"\n]\n");
    }
}
