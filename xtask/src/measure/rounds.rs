//! Rounds in turn: every contender once per round, so that what disturbs the host disturbs all of them.

use anyhow::{Result, bail};

use super::Run;
use super::proxy::Contender;
use super::results::{Column, Results, Sample};
use super::statistics::figure;
use crate::progress::Step;

/// Measures round by round. A contender whose measurement fails is left out from there on; the first metric is what the
/// progress lines show.
pub(crate) fn in_turn<C>(
    run: &Run,
    rounds: usize,
    results: &mut Results,
    contenders: Vec<(Contender, Result<C>)>,
    mut measure: impl FnMut(Contender, &mut C) -> Result<Sample>,
) -> Result<()> {
    let mut running = Vec::new();
    for (contender, started) in contenders {
        let failed = started.as_ref().err().map(|error| format!("{error:#}"));
        results.columns.push(Column { contender, rounds: Vec::new(), failed });
        running.push(started.ok());
    }
    let Results { name, metrics, columns, .. } = results;
    let unit = metrics.first().map(|metric| metric.unit).unwrap_or_default();
    for round in 1..=rounds {
        let step = Step::start("bench", format!("{name}, round {round} of {rounds}"));
        let mut found = Vec::new();
        for (column, handle) in columns.iter_mut().zip(&mut running) {
            run.check_interrupt()?;
            let contender = column.contender;
            let Some(state) = handle else {
                found.push(format!("{} failed", contender.name()));
                continue;
            };
            step.live(&format!("{}: {}", found.join(", "), contender.name()));
            match measure(contender, state) {
                Ok(sample) => {
                    let value = sample.first().copied().flatten().map_or_else(|| "-".to_owned(), figure);
                    found.push(format!("{} {value}", contender.name()));
                    column.rounds.push(sample);
                }
                Err(error) => {
                    run.check_interrupt()?;
                    found.push(format!("{} failed: {error:#}", contender.name()));
                    column.failed = Some(format!("{error:#}"));
                    *handle = None;
                }
            }
        }
        step.done(format!("{} {unit}", found.join(", ")));
    }
    if columns.iter().all(|column| column.rounds.is_empty()) {
        let reasons: Vec<&str> = columns.iter().filter_map(|column| column.failed.as_deref()).collect();
        bail!("{name}: nothing could be measured: {}", reasons.join("; "));
    }
    Ok(())
}
