//! What a tier tells of itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::model::TierKind;

/// One tier's figures at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes. Of a file tier: what its file takes on the file system, in whole extents, so that it agrees with `df`.
    pub used: u64,
    /// Bytes.
    pub size: u64,
    /// Contents with a byte here.
    pub contents: u64,
    /// Contents that moved on to a later tier for want of room here.
    pub spilled_total: u64,
    /// Contents that asked for room here in vain. Of the RAM tier: that found none in any tier.
    pub refused_total: u64,
    /// Bytes.
    pub written_total: u64,
    /// Bytes of the last 24 hours: a flash drive's wear.
    pub written_per_day: u64,
    /// Why nothing new goes here at the moment.
    pub degraded: Option<String>,
}

/// All tiers' figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub memory: Figures,
    /// In the order in which they are tried.
    pub tiers: Vec<(TierKind, PathBuf, Figures)>,
}

impl Report {
    /// The tiers of one kind taken together; `None`: there is none.
    #[must_use]
    pub fn of_kind(&self, kind: TierKind) -> Option<Figures> {
        let figures = self.tiers.iter().filter(|(other, _, _)| *other == kind).map(|(_, _, figures)| figures);
        figures.cloned().reduce(Figures::and)
    }
}

impl Figures {
    fn and(self, other: Self) -> Self {
        let degraded = match (self.degraded, other.degraded) {
            (Some(one), Some(two)) => Some(format!("{one}; {two}")),
            (one, two) => one.or(two),
        };
        Self {
            used: self.used + other.used,
            size: self.size + other.size,
            contents: self.contents + other.contents,
            spilled_total: self.spilled_total + other.spilled_total,
            refused_total: self.refused_total + other.refused_total,
            written_total: self.written_total + other.written_total,
            written_per_day: self.written_per_day + other.written_per_day,
            degraded,
        }
    }
}

/// A file tier's counts of contents.
#[derive(Debug, Default)]
pub(super) struct Counts {
    contents: AtomicU64,
    spilled: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    pub(super) fn content_came(&self) {
        self.contents.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn content_left(&self) {
        self.contents.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn content_spilled(&self) {
        self.spilled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn content_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn contents(&self) -> u64 {
        self.contents.load(Ordering::Relaxed)
    }

    pub(super) fn spilled_total(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
