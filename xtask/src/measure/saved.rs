//! A benchmark's JSON file, read back: the report's page is made of these only, so that no figure in it was typed in.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::contender::Contender;
use super::kind::Kind;
use super::statistics::Summary;

#[derive(Debug)]
pub(crate) struct Saved(Value);

impl Saved {
    /// `None` where this kind was never measured.
    pub(crate) fn read(directory: &Path, kind: Kind) -> Result<Option<Self>> {
        let path = directory.join(format!("{}.json", kind.name()));
        let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
        let value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        Ok(Some(Self(value)))
    }

    #[cfg(test)]
    pub(crate) fn of(value: Value) -> Self {
        Self(value)
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn circumstance(&self, key: &str) -> Option<&Value> {
        self.0.get("circumstances")?.get(key)
    }

    /// A contender's rounds of one metric, in order; `None` for one that failed or had nothing to measure.
    pub(crate) fn rounds(&self, contender: Contender, metric: &str) -> Vec<Option<f64>> {
        let rounds = self.contender(contender).and_then(|found| found.get("rounds")?.as_array());
        let value = |round: &Value| round.get(metric).and_then(Value::as_f64);
        rounds.map_or_else(Vec::new, |rounds| rounds.iter().map(value).collect())
    }

    pub(crate) fn summary(&self, contender: Contender, metric: &str) -> Option<Summary> {
        Summary::of(self.rounds(contender, metric).into_iter().flatten())
    }

    /// Why a contender has no figures, or not those of every round.
    pub(crate) fn failure(&self, contender: Contender) -> Option<String> {
        let found = self.contender(contender)?;
        let reason = |key: &str| found.get(key).and_then(Value::as_str).map(str::to_owned);
        let round = || {
            let (round, reason) = found.get("failed_rounds")?.as_object()?.iter().next()?;
            Some(format!("round {round}: {}", reason.as_str().unwrap_or_default()))
        };
        reason("failed").or_else(|| reason("unavailable")).or_else(round)
    }

    fn contender(&self, contender: Contender) -> Option<&Value> {
        self.0.get("contenders")?.get(contender.name())
    }
}
