//! Reads the tables of a [`super::document`] key by key and reports everything that does not fit.
//!
//! Owns the checks that every key has in common: the kind of the value, its range, and that each key written is one
//! that somebody reads. A value that was refused is reported and its default stands in, so that reading goes on to
//! the next error; the caller throws the result away if anything was reported.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::choice::{self, Choice};
use super::document::{Node, Table, Value};
use super::error::{ConfigError, Place, Problem, Spot, Unfit, nearest};
use super::units::{EXPECTED_DURATION, EXPECTED_SIZE, parse_duration, parse_size};

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: RefCell<Vec<ConfigError>>,
}

impl Report {
    pub(super) fn add(&self, spot: Spot, problem: Problem) {
        self.errors.borrow_mut().push(ConfigError { spot, problem });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// A value that a key has.
#[derive(Debug, Clone)]
pub(super) struct Found<'a> {
    report: &'a Report,
    node: &'a Node,
    pub(super) spot: Spot,
}

impl<'a> Found<'a> {
    pub(super) fn refuse(&self, problem: Problem) {
        self.report.add(self.spot.clone(), problem);
    }

    pub(super) fn unfit(&self, unfit: Unfit) {
        let found = self.node.value.found();
        self.refuse(Problem::Unfit { found, unfit });
    }

    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        let Value::Text(text) = &self.node.value else {
            self.unfit(Unfit::new(expected));
            return None;
        };
        Some(text)
    }

    pub(super) fn parsed<T>(&self, expected: &str, parse: impl Fn(&str) -> Result<T, Unfit>) -> Option<T> {
        parse(self.text(expected)?).map_err(|unfit| self.unfit(unfit)).ok()
    }

    /// The number, where it is one within `range`.
    pub(super) fn count(&self, range: &RangeInclusive<usize>) -> Option<usize> {
        let number = match self.node.value {
            Value::Integer(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let fitting = number.filter(|number| range.contains(number));
        if fitting.is_none() {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            self.unfit(Unfit::new(expected));
        }
        fitting
    }

    /// The items of a list.
    pub(super) fn items(&self, expected: &str) -> Option<Vec<Self>> {
        let Value::List(nodes) = &self.node.value else {
            self.unfit(Unfit::new(expected));
            return None;
        };
        let item = |(position, node): (usize, &'a Node)| Found {
            report: self.report,
            node,
            spot: Spot { key: format!("{}[{position}]", self.spot.key), place: node.place.clone() },
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// The items of a list, or a single text as a list of one.
    pub(super) fn items_or_text(&self, expected: &str) -> Option<Vec<Self>> {
        if matches!(self.node.value, Value::Text(_)) {
            return Some(vec![self.clone()]);
        }
        self.items(expected)
    }

    pub(super) fn section(&self, expected: &str) -> Option<Section<'a>> {
        let Value::Table(table) = &self.node.value else {
            self.unfit(Unfit::new(expected));
            return None;
        };
        Some(Section { report: self.report, table, spot: self.spot.clone(), asked: Vec::new() })
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.node.value, Value::Integer(_))
    }
}

/// One table while its keys are read. [`Section::close`] ends it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    report: &'a Report,
    table: &'a Table,
    spot: Spot,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole configuration; `place` is where something that it lacks is reported.
    pub(super) fn root(table: &'a Table, place: Place, report: &'a Report) -> Self {
        Self { report, table, spot: Spot { key: String::new(), place }, asked: Vec::new() }
    }

    /// The value under `key`, if the table has one. Only keys asked for here are known keys.
    pub(super) fn find(&mut self, key: &'static str) -> Option<Found<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.table.get(key)?;
        Some(Found {
            report: self.report,
            node: &entry.node,
            spot: Spot { key: self.key(key), place: entry.node.place.clone() },
        })
    }

    /// The value under a key that has no default.
    pub(super) fn need(&mut self, key: &'static str, add: &str) -> Option<Found<'a>> {
        let found = self.find(key);
        if found.is_none() {
            self.miss(key, add);
        }
        found
    }

    /// Reports that `key` is needed and absent.
    pub(super) fn miss(&self, key: &str, add: &str) {
        let spot = Spot { key: self.key(key), place: self.spot.place.clone() };
        self.report.add(spot, Problem::Missing { add: add.to_owned() });
    }

    /// A table in this table; an absent one reads as an empty one.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        static EMPTY: Table = Table { entries: Vec::new() };
        let found = self.find(key);
        let read = found.and_then(|found| found.section(&format!("a table: [{}]", found.spot.key)));
        read.unwrap_or_else(|| Section {
            report: self.report,
            table: &EMPTY,
            spot: Spot { key: self.key(key), place: self.spot.place.clone() },
            asked: Vec::new(),
        })
    }

    /// The tables of a `[[key]]`; none if it is absent.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(found) = self.find(key) else {
            return Vec::new();
        };
        let expected = format!("a list of tables: [[{}]]", found.spot.key);
        let items = found.items(&expected).unwrap_or_default();
        items.iter().filter_map(|item| item.section(&expected)).collect()
    }

    /// The same for tables of which there must be one at least.
    pub(super) fn need_sections(&mut self, key: &'static str, add: &str) -> Vec<Section<'a>> {
        let tables = self.table.get(key).map(|entry| &entry.node.value);
        let none = tables.is_none_or(|value| matches!(value, Value::List(items) if items.is_empty()));
        if none {
            self.miss(key, add);
        }
        self.sections(key)
    }

    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, Unfit>,
    ) -> Option<T> {
        self.find(key)?.parsed(expected, parse)
    }

    pub(super) fn choice<T: Choice>(&mut self, key: &'static str, default: T) -> T {
        self.parsed(key, &choice::expected::<T>(), T::parse).unwrap_or(default)
    }

    pub(super) fn switch(&mut self, key: &'static str, default: bool) -> bool {
        let Some(found) = self.find(key) else {
            return default;
        };
        let Value::Switch(on) = found.node.value else {
            found.unfit(Unfit::new("true or false"));
            return default;
        };
        on
    }

    pub(super) fn count(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let read = self.find(key).and_then(|found| found.count(&range));
        read.unwrap_or(default)
    }

    /// A number of which 0 means no limit.
    pub(super) fn count_or_unlimited(&mut self, key: &'static str, default: Option<usize>) -> Option<usize> {
        let Some(found) = self.find(key) else {
            return default;
        };
        found.count(&(0..=LARGEST_COUNT)).filter(|count| *count > 0)
    }

    /// A size of at least `least` bytes, as text with a unit or as a number of bytes.
    pub(super) fn size(&mut self, key: &'static str, default: u64, least: u64) -> u64 {
        let Some(found) = self.find(key) else {
            return default;
        };
        let size = match &found.node.value {
            Value::Integer(number) => parse_size(&number.to_string()),
            Value::Text(text) => parse_size(text),
            _ => Err(Unfit::new(EXPECTED_SIZE)),
        };
        match size {
            Ok(size) if size >= least => size,
            Ok(_) => {
                found.unfit(Unfit::new(format!("a size of at least {least}")));
                default
            }
            Err(unfit) => {
                found.unfit(unfit);
                default
            }
        }
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration, least: Duration) -> Duration {
        let Some(found) = self.find(key) else {
            return default;
        };
        let duration = match &found.node.value {
            // A number alone is refused with the unit that it probably has.
            Value::Integer(number) => parse_duration(&number.to_string()),
            Value::Text(text) => parse_duration(text),
            _ => Err(Unfit::new(EXPECTED_DURATION)),
        };
        match duration {
            Ok(duration) if duration >= least => duration,
            Ok(_) => {
                found.unfit(Unfit::new("a duration longer than nothing"));
                default
            }
            Err(unfit) => {
                found.unfit(unfit);
                default
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn close(self) {
        for entry in &self.table.entries {
            if self.asked.contains(&entry.key.as_str()) {
                continue;
            }
            let spot = Spot { key: self.key(&entry.key), place: entry.key_place.clone() };
            let nearest = nearest(&entry.key, self.asked.iter().copied()).map(str::to_owned);
            let known = self.asked.clone();
            self.report.add(spot, Problem::UnknownKey { nearest, known });
        }
    }

    fn key(&self, key: &str) -> String {
        if self.spot.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.spot.key) }
    }
}

/// Largest number of anything counted: more connections or requests than that fit no host.
pub(super) const LARGEST_COUNT: usize = 1_000_000_000;

/// Values that may stand only once, with the place of each.
#[derive(Debug)]
pub(super) struct Unique<T> {
    what: &'static str,
    seen: Vec<(T, Spot)>,
}

impl<T: PartialEq> Unique<T> {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, seen: Vec::new() }
    }

    /// Notes `value`, which `found` is; reports it there if it was noted before.
    pub(super) fn admit(&mut self, value: T, found: &Found<'_>) {
        self.admit_as(value, &found.node.value.found(), found);
    }

    /// The same for a value that follows from `found`, and that messages show as `shown`.
    pub(super) fn admit_as(&mut self, value: T, shown: &str, found: &Found<'_>) {
        let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == value) else {
            self.seen.push((value, found.spot.clone()));
            return;
        };
        found.refuse(Problem::Duplicate { what: self.what, value: shown.to_owned(), first: first.clone() });
    }

    /// The first noted value that `fits`, as what it makes of it, and where that stands.
    pub(super) fn find<C>(&self, fits: impl Fn(&T) -> Option<C>) -> Option<(C, &Spot)> {
        self.seen.iter().find_map(|(seen, spot)| Some((fits(seen)?, spot)))
    }
}
