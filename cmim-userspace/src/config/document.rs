//! The raw configuration: values as they were written, each with its place.
//!
//! Owns the step from TOML text (or single flags) to one tree. It knows no key and no meaning; `section` reads it.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Place, Problem, Spot, quoted};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Switch(bool),
    List(Vec<Node>),
    Table(Table),
    /// A kind of value that no key takes, described for the message.
    Other(String),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Value {
    /// The value as a message names it.
    pub(super) fn found(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Integer(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::List(items) if items.is_empty() => "an empty list".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(description) => description.clone(),
        }
    }
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Puts `node` under `key`, in the place of what was there.
    pub(super) fn set(&mut self, key: &str, node: Node) {
        self.entries.retain(|entry| entry.key != key);
        let key_place = node.place.clone();
        self.entries.push(Entry { key: key.to_owned(), key_place, node });
    }

    /// Lays `other` over this table. A table laid over a list of tables is laid over each of them, so that
    /// `upstream.retries` reaches every upstream.
    pub(super) fn overlay(&mut self, other: Self) {
        for entry in other.entries {
            let Some(existing) = self.entries.iter_mut().find(|own| own.key == entry.key) else {
                self.entries.push(entry);
                continue;
            };
            match (&mut existing.node.value, entry.node.value) {
                (Value::Table(below), Value::Table(above)) => below.overlay(above),
                (Value::List(items), Value::Table(above)) => overlay_each(items, &above),
                (_, value) => {
                    existing.key_place = entry.key_place;
                    existing.node = Node { place: entry.node.place, value };
                }
            }
        }
    }
}

fn overlay_each(items: &mut [Node], above: &Table) {
    for item in items {
        if let Value::Table(below) = &mut item.value {
            below.overlay(above.clone());
        }
    }
}

/// Reads a whole TOML file. Its syntax errors are all reported, at most one a line.
pub(super) fn read(text: &str, file: &str) -> Result<Node, ConfigErrors> {
    let lines = Lines::new(text, file);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if syntax_errors.is_empty() {
        let place = |span: Range<usize>| lines.place(span.start);
        return Ok(Node { place: lines.place(0), value: Value::Table(convert_table(table.get_ref(), &place)) });
    }
    let mut errors: Vec<ConfigError> = Vec::new();
    for error in syntax_errors {
        let start = error.span().map_or(text.len(), |span| span.start);
        let place = lines.place(start);
        let same_line = |earlier: &ConfigError| same_line(&earlier.spot.place, &place);
        if errors.iter().any(same_line) {
            continue;
        }
        errors.push(ConfigError {
            spot: Spot { key: String::new(), place },
            problem: Problem::Syntax { message: lines.hint(start).unwrap_or_else(|| error.message()).to_owned() },
        });
    }
    Err(ConfigErrors::new(errors))
}

/// Reads `key = value` with one place for all of it.
pub(super) fn read_fragment(text: &str, place: &Place) -> Result<Table, toml::de::Error> {
    let table = DeTable::parse(text)?;
    Ok(convert_table(table.get_ref(), &|_| place.clone()))
}

fn convert_table(table: &DeTable<'_>, place: &impl Fn(Range<usize>) -> Place) -> Table {
    let entries = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            key_place: place(key.span()),
            node: convert(value, place),
        })
        .collect();
    Table { entries }
}

fn convert(value: &Spanned<DeValue<'_>>, place: &impl Fn(Range<usize>) -> Place) -> Node {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => integer(number),
        DeValue::Boolean(on) => Value::Switch(*on),
        DeValue::Float(number) => Value::Other(format!("the fraction {number}")),
        DeValue::Datetime(date) => Value::Other(format!("the date {date}")),
        DeValue::Array(items) => Value::List(items.iter().map(|item| convert(item, place)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    };
    Node { place: place(value.span()), value: converted }
}

fn integer(number: &DeInteger<'_>) -> Value {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| Value::Other(format!("the number {number}, which no key can hold")), Value::Integer)
}

fn same_line(one: &Place, other: &Place) -> bool {
    let (Place::Line { line: one, .. }, Place::Line { line: other, .. }) = (one, other) else {
        return false;
    };
    one == other
}

/// The lines of a file, to turn offsets into places.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    file: Arc<str>,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, file: &str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, newline)| at + newline.len());
        Self { text, file: file.into(), starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The place of the byte at `offset`; the end of the text for any offset after it.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).or_else(|| self.text.get(start..));
        Place::Line {
            file: Arc::clone(&self.file),
            line,
            column: before.map_or(0, |before| before.chars().count()) + 1,
        }
    }

    /// What the most common slip looks like: a size or duration without its quotes.
    fn hint(&self, offset: usize) -> Option<&'static str> {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let written = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let value = written.split_once('=').map_or("", |(_, value)| value.trim_start());
        // Before the value it is the key that is wrong; a truth value is right without quotes.
        let is_at_value = offset.saturating_sub(start) >= written.len() - value.len();
        let word = value.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        if !is_at_value || matches!(word, "true" | "false") {
            return None;
        }
        let digits = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
        let unit_follows = digits.len() < value.len() && digits.starts_with(|c: char| c.is_ascii_alphabetic());
        if unit_follows {
            Some("a value with a unit stands in quotes, such as \"64KiB\" or \"10s\"")
        } else if value.starts_with(|c: char| c.is_ascii_alphabetic()) {
            Some("a text stands in quotes, such as \"auto\"")
        } else {
            None
        }
    }
}
