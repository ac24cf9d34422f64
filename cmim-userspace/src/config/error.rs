//! What is wrong with a configuration, and the way out.
//!
//! Owns the words of every message. It knows neither keys nor rules: those who read the configuration say what they
//! found and what they expected, and where.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Longest part of a found value that a message repeats, in characters.
const LONGEST_QUOTE: usize = 80;

/// Every error of one configuration, in the order of their places. Never empty.
#[derive(Debug, Error)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.spot.place.order());
        Self { errors }
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// The errors, first place first.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self::new(vec![error])
    }
}

/// One line an error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.errors.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, Error)]
#[error("{spot}{problem}")]
pub struct ConfigError {
    pub spot: Spot,
    pub problem: Problem,
}

/// A key and the place where it, or its value, stands. Displayed as the beginning of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Such as `upstream[0].servers[1].weight`; empty: the whole configuration.
    pub key: String,
    pub place: Place,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        // A flag stands for its key, only --set can name any of them.
        let named_by_flag = matches!(self.place, Place::Flag { flag, .. } if flag != SET_FLAG);
        if self.key.is_empty() || named_by_flag {
            return Ok(());
        }
        write!(f, "{}: ", self.key)
    }
}

/// The flag that takes `key=value`.
pub(super) const SET_FLAG: &str = "--set";

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Line and column count from 1, the column in characters.
    Line { file: Arc<str>, line: usize, column: usize },
    /// The file as a whole.
    File { file: Arc<str> },
    /// A command line flag, by its place among the flags.
    Flag { flag: &'static str, order: usize },
}

impl Place {
    fn order(&self) -> (usize, usize) {
        match self {
            Self::Line { line, column, .. } => (*line, *column),
            Self::File { .. } => (0, 0),
            Self::Flag { order, .. } => (*order, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File { file } => f.write_str(file),
            Self::Flag { flag, .. } => f.write_str(flag),
        }
    }
}

/// What is wrong. Each kind says what to do instead.
#[derive(Debug, Error)]
pub enum Problem {
    #[error(
        "cannot be read: {source}; check its path and rights, or run without a file: cmim run --listen ADDRESS --server ADDRESS"
    )]
    Unreadable {
        #[source]
        source: io::Error,
    },
    #[error("is larger than {limit} bytes; is it a configuration file?")]
    TooLarge { limit: u64 },
    #[error("not TOML: {message}")]
    Syntax { message: String },
    #[error("unknown key; {}", did_you_mean_or(.nearest.as_deref(), "known", .known))]
    UnknownKey { nearest: Option<String>, known: Vec<&'static str> },
    #[error("missing; {add}")]
    Missing { add: String },
    #[error("expected {}, found {found}{}", .unfit.expected, did_you_mean(.unfit.instead.as_deref()))]
    Unfit { found: String, unfit: Unfit },
    #[error("no {what} is named {}; {}", quoted(.name), did_you_mean_or(.nearest.as_deref(), "known", .known))]
    Dangling { what: &'static str, name: String, nearest: Option<String>, known: Vec<String> },
    #[error("the {what} {value} is already used by {}", earlier(.first))]
    Duplicate { what: &'static str, value: String, first: Spot },
    #[error("{rule}")]
    Conflict { rule: String },
}

/// Why a text or number is no value of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Completes "expected …".
    pub expected: String,
    /// What was probably meant, where that can be said.
    pub instead: Option<String>,
}

impl Unfit {
    pub(super) fn new(expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), instead: None }
    }

    pub(super) fn instead(mut self, instead: Option<String>) -> Self {
        self.instead = instead;
        self
    }
}

/// The candidate that a mistyped `name` most probably means, if one is near.
///
/// Case and the difference of `-` and `_` do not count; about one wrong letter in three does not hide a name, and
/// neither does leaving off its end.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_lowercase().replace('-', "_");
    let name = fold(name);
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let folded = fold(candidate);
            let distance = strsim::osa_distance(&name, &folded);
            // A name that was only cut short is as near as one with a single slip.
            let shortened = name.chars().count() > 2 && folded.starts_with(&name);
            let distance = if shortened { distance.min(1) } else { distance };
            (distance <= allowed && distance < folded.chars().count()).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A text as messages show it: in quotes, escaped, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= LONGEST_QUOTE {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST_QUOTE).collect();
    format!("{start:?}…")
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {}?", quoted(nearest)))
}

fn did_you_mean_or(nearest: Option<&str>, introduction: &str, known: &[impl AsRef<str>]) -> String {
    if let Some(nearest) = nearest {
        return format!("did you mean {}?", quoted(nearest));
    }
    let known: Vec<String> = known.iter().map(|name| quoted(name.as_ref())).collect();
    format!("{introduction}: {}", known.join(", "))
}

fn earlier(first: &Spot) -> String {
    match &first.place {
        Place::Line { line, .. } => format!("{} (line {line})", first.key),
        Place::File { .. } => first.key.clone(),
        Place::Flag { flag, .. } => format!("an earlier {flag}"),
    }
}
