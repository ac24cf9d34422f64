//! Rounds in turn: every contender once per round, so that what disturbs the host disturbs all of them.

use std::fmt;

use anyhow::{Result, bail};

use super::Run;
use super::contender::Contender;
use super::results::{Column, Missing, Results, Sample};
use super::statistics::figure;
use crate::progress::{Mark, Step, painted};

/// A contender that fails so often is not asked again.
const FAILURES: usize = 2;

/// This host or this build lacks something; not a failure.
#[derive(Debug)]
pub(crate) struct NotAvailable(pub(crate) String);

impl fmt::Display for NotAvailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAvailable {}

/// Measures round by round. A round that fails is told, counts in no median and is not made up for; the first metric is
/// what the progress lines show.
pub(crate) fn in_turn<C>(
    run: &Run,
    rounds: usize,
    results: &mut Results,
    contenders: Vec<(Contender, Result<C>)>,
    mut measure: impl FnMut(Contender, &mut C) -> Result<Sample>,
) -> Result<()> {
    let mut running = Vec::new();
    for (contender, started) in contenders {
        let missing = started.as_ref().err().map(missing);
        results.columns.push(Column { contender, rounds: Vec::new(), failed_rounds: Vec::new(), missing });
        running.push(started.ok());
    }
    let Results { name, metrics, columns, .. } = results;
    let unit = metrics.first().map(|metric| metric.unit).unwrap_or_default();
    for round in 1..=rounds {
        if running.iter().all(Option::is_none) {
            break;
        }
        run.clock.reached(round - 1, rounds);
        let step = Step::start("bench", format!("{name}, round {round} of {rounds} ({})", run.clock));
        let mut found = Vec::new();
        for (column, handle) in columns.iter_mut().zip(&mut running) {
            run.check_interrupt()?;
            let contender = column.contender;
            let Some(state) = handle else {
                let what = if matches!(column.missing, Some(Missing::Unavailable(_))) { "not there" } else { "failed" };
                found.push(format!("{contender} {what}"));
                continue;
            };
            step.live(&format!("{}: {contender}", found.join(", ")));
            match measure(contender, state) {
                Ok(sample) => {
                    let value = sample.first().copied().flatten().map_or_else(|| "-".to_owned(), figure);
                    found.push(format!("{contender} {value}"));
                    column.rounds.push(sample);
                }
                Err(error) => {
                    run.check_interrupt()?;
                    found.push(match missing(&error) {
                        Missing::Failed(reason) => painted(Mark::Bad, &format!("{contender} FAILED: {reason}")),
                        Missing::Unavailable(_) => format!("{contender} not there"),
                    });
                    if note_failure(column, round, metrics.len(), &error) {
                        *handle = None;
                    }
                }
            }
        }
        step.done(format!("{} {unit}", found.join(", ")));
    }
    if columns.iter().all(|column| column.rounds.iter().flatten().all(Option::is_none)) {
        if let Some(reason) = nothing_is_there(columns) {
            bail!(NotAvailable(reason));
        }
        bail!("nothing could be measured: {}", results.troubles().join("; "));
    }
    Ok(())
}

/// Where all contenders lack something, why the first does.
fn nothing_is_there(columns: &[Column]) -> Option<String> {
    let reason = |column: &Column| match &column.missing {
        Some(Missing::Unavailable(reason)) => Some(reason.clone()),
        _ => None,
    };
    let reasons: Option<Vec<String>> = columns.iter().map(reason).collect();
    reasons?.into_iter().next()
}

fn missing(error: &anyhow::Error) -> Missing {
    match error.downcast_ref::<NotAvailable>() {
        Some(NotAvailable(reason)) => Missing::Unavailable(reason.clone()),
        None => Missing::Failed(format!("{error:#}")),
    }
}

/// Whether that was its last round.
fn note_failure(column: &mut Column, round: usize, metrics: usize, error: &anyhow::Error) -> bool {
    if let unavailable @ Missing::Unavailable(_) = missing(error) {
        column.missing = Some(unavailable);
        return true;
    }
    column.rounds.push(vec![None; metrics]);
    column.failed_rounds.push((round, format!("{error:#}")));
    if column.failed_rounds.len() < FAILURES {
        return false;
    }
    column.missing = Some(Missing::Failed(format!("in {FAILURES} rounds, the last time: {error:#}")));
    true
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_contender_may_fail_once_and_what_is_not_there_never_failed() {
        let empty =
            || Column { contender: Contender::Cmim, rounds: Vec::new(), failed_rounds: Vec::new(), missing: None };
        let mut column = empty();
        assert!(!note_failure(&mut column, 1, 3, &anyhow!("a timeout")));
        assert_eq!((column.rounds.clone(), column.missing.clone()), (vec![vec![None; 3]], None));
        assert!(note_failure(&mut column, 2, 3, &anyhow!("a timeout")));
        assert!(matches!(column.missing, Some(Missing::Failed(_))));
        let mut column = empty();
        assert!(note_failure(&mut column, 1, 3, &anyhow!(NotAvailable("no such lane".to_owned()))));
        assert_eq!(column.missing, Some(Missing::Unavailable("no such lane".to_owned())));
        assert!(column.failed_rounds.is_empty());
    }
}
