//! The form of a printed configuration: sections, keys, values and comments as TOML text.
//!
//! Knows how TOML is written and nothing of what the keys mean; `print` says which there are.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::units::{format_duration, format_size};

/// Column at which comments begin. The comment of a longer setting stands above it.
const COMMENT_COLUMN: usize = 44;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Commented,
    ValuesOnly,
}

/// A `[header]` and its keys.
#[derive(Debug)]
pub(super) struct Block {
    header: String,
    /// Shown in the defaults only, as a comment.
    example: bool,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) key: &'static str,
    pub(super) value: String,
    /// The value is an example: the key is absent.
    example: bool,
    comment: String,
}

impl Block {
    pub(super) fn new(header: &str, lines: Vec<Line>) -> Self {
        Self { header: header.to_owned(), example: false, lines }
    }

    /// A section that stands for one that is absent.
    pub(super) fn example(header: &str, lines: Vec<Line>) -> Self {
        Self { example: true, ..Self::new(header, lines) }
    }

    pub(super) fn render(&self, text: &mut String, style: Style) {
        if self.example && style == Style::ValuesOnly {
            return;
        }
        let prefix = if self.example { "# " } else { "" };
        text.push_str(&format!("\n{prefix}{}\n", self.header));
        for line in &self.lines {
            line.render(text, prefix, style);
        }
    }
}

impl Line {
    pub(super) fn new(key: &'static str, value: impl Into<String>, comment: impl Into<String>) -> Self {
        Self { key, value: value.into(), example: false, comment: comment.into() }
    }

    /// A key that may be absent; `example` is what it could be then.
    pub(super) fn optional(key: &'static str, value: Option<String>, example: &str, comment: &str) -> Self {
        Self {
            key,
            example: value.is_none(),
            value: value.unwrap_or_else(|| example.to_owned()),
            comment: comment.to_owned(),
        }
    }

    /// Makes the key an absent one with this example.
    pub(super) fn leave_out(&mut self, example: String) {
        (self.value, self.example) = (example, true);
    }

    fn render(&self, text: &mut String, prefix: &str, style: Style) {
        if style == Style::ValuesOnly {
            if !self.example {
                text.push_str(&format!("{} = {}\n", self.key, self.value));
            }
            return;
        }
        let prefix = if self.example { "# " } else { prefix };
        let setting = format!("{prefix}{} = {}", self.key, self.value);
        let comment = &self.comment;
        let written = if comment.is_empty() {
            format!("{setting}\n")
        } else if setting.len() > COMMENT_COLUMN {
            format!("# {comment}\n{setting}\n")
        } else {
            format!("{setting:COMMENT_COLUMN$}  # {comment}\n")
        };
        text.push_str(&written);
    }
}

/// A TOML string.
pub(super) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

pub(super) fn path(path: &Path) -> String {
    quoted(path.display())
}

pub(super) fn size<T: TryInto<u64>>(bytes: T) -> String {
    // Sizes of the model that are usize fit 64 bits on every target there is.
    quoted(format_size(bytes.try_into().unwrap_or(u64::MAX)))
}

pub(super) fn duration(duration: Duration) -> String {
    quoted(format_duration(duration))
}

pub(super) fn list<T: Display>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

/// A list with one item a line.
pub(super) fn rows<T>(items: &[T], row: impl Fn(&T) -> String) -> String {
    let rows: String = items.iter().map(|item| format!("    {},\n", row(item))).collect();
    format!("[\n{rows}]")
}
