//! What a benchmark measured: for each contender the rounds, for each round a value per metric.

use serde_json::{Map, Value, json};

use super::contender::Contender;
use super::statistics::{Summary, figure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
    /// Something to know, nothing to compare.
    Neither,
}

#[derive(Debug, Clone)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

impl Metric {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, better: Better) -> Self {
        Self { name: name.into(), unit, better }
    }
}

/// One round's values in the order of the metrics; `None` where there is nothing to measure.
pub(crate) type Sample = Vec<Option<f64>>;

/// Why a contender has no (more) rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It did not start, or answered wrongly.
    Failed(String),
    /// This host or this build has no such thing; nobody's fault.
    Unavailable(String),
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) contender: Contender,
    /// As many for each contender that went through; a round that failed is empty, so that rounds stay side by side.
    pub(crate) rounds: Vec<Sample>,
    /// Rounds that failed, with the reason; they are in no median.
    pub(crate) failed_rounds: Vec<(usize, String)>,
    pub(crate) missing: Option<Missing>,
}

impl Column {
    fn cell(&self, summary: Option<Summary>) -> String {
        match (summary, &self.missing) {
            (Some(found), _) if found.most == 0.0 && found.least == 0.0 => "0".to_owned(),
            (Some(found), _) => {
                format!("{} ({} to {})", figure(found.median), figure(found.least), figure(found.most))
            }
            (None, Some(Missing::Failed(_))) => "failed".to_owned(),
            (None, Some(Missing::Unavailable(_))) => "not available".to_owned(),
            (None, None) => "-".to_owned(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Results {
    /// The name on the command line and of the files.
    pub(crate) name: &'static str,
    /// What was done, in a sentence or two.
    pub(crate) about: String,
    pub(crate) network: String,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) columns: Vec<Column>,
    /// What a reader must know beside the figures.
    pub(crate) notes: Vec<String>,
}

impl Results {
    pub(crate) fn new(name: &'static str, about: String, network: String, metrics: Vec<Metric>) -> Self {
        Self { name, about, network, metrics, columns: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn summary(&self, contender: Contender, metric: usize) -> Option<Summary> {
        let column = self.columns.iter().find(|column| column.contender == contender)?;
        Summary::of(column.rounds.iter().filter_map(|sample| sample.get(metric).copied().flatten()))
    }

    /// Rounds that were made.
    pub(crate) fn rounds(&self) -> usize {
        self.columns.iter().map(|column| column.rounds.len()).max().unwrap_or(0)
    }

    /// cmim's median by the peer's.
    fn ratio(&self, peer: Contender, metric: usize) -> Option<f64> {
        let (ours, theirs) = (self.summary(Contender::Cmim, metric)?, self.summary(peer, metric)?);
        (theirs.median > 0.0).then(|| ours.median / theirs.median)
    }

    /// Why cmim itself failed, be it in one round; a benchmark that it fails is no figure but an error.
    pub(crate) fn failure(&self) -> Option<String> {
        let column = self.columns.iter().find(|column| column.contender == Contender::Cmim)?;
        if let Some(Missing::Failed(reason)) = &column.missing {
            return Some(reason.clone());
        }
        column.failed_rounds.first().map(|(round, reason)| format!("round {round}: {reason}"))
    }

    /// A sentence for each contender that is missing, and for each round that failed.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for column in &self.columns {
            let name = column.contender.name();
            for (round, reason) in &column.failed_rounds {
                found.push(format!("{name} FAILED in round {round}, which is in no figure: {reason}"));
            }
            match &column.missing {
                Some(Missing::Failed(reason)) => found.push(format!("{name} FAILED: {reason}")),
                Some(Missing::Unavailable(reason)) => found.push(format!("{name} is not available: {reason}")),
                None => {}
            }
        }
        found
    }

    /// A Markdown table: a metric per line, medians with their spreads, and cmim's ratio to each peer.
    pub(crate) fn table(&self) -> String {
        let peers: Vec<Contender> = Contender::PEERS
            .into_iter()
            .filter(|peer| self.columns.iter().any(|column| column.contender == *peer && !column.rounds.is_empty()))
            .collect();
        let mut head = vec!["median (least to most)".to_owned()];
        head.extend(self.columns.iter().map(|column| column.contender.name().to_owned()));
        head.extend(peers.iter().map(|peer| format!("cmim / {}", peer.name())));
        let mut lines = vec![line(&head), line(&vec!["---".to_owned(); head.len()])];
        for (index, metric) in self.metrics.iter().enumerate() {
            let mut cells = vec![title(metric)];
            cells.extend(self.columns.iter().map(|column| column.cell(self.summary(column.contender, index))));
            let ratio = |peer: &Contender| match metric.better {
                Better::Neither => "-".to_owned(),
                _ => self.ratio(*peer, index).map_or_else(|| "-".to_owned(), |ratio| format!("**{ratio:.2}**")),
            };
            cells.extend(peers.iter().map(ratio));
            lines.push(line(&cells));
        }
        lines.concat()
    }

    /// Every round as it was, and what the tables make of it.
    pub(crate) fn json(&self) -> Value {
        let columns = self.columns.iter().map(|column| {
            let rounds: Vec<Value> = column.rounds.iter().map(|sample| self.named(sample)).collect();
            let summaries = self.metrics.iter().enumerate().filter_map(|(index, metric)| {
                Some((metric.name.clone(), self.summary(column.contender, index)?.json()))
            });
            let (failed, unavailable) = match &column.missing {
                Some(Missing::Failed(reason)) => (Some(reason), None),
                Some(Missing::Unavailable(reason)) => (None, Some(reason)),
                None => (None, None),
            };
            let failed_rounds: Map<String, Value> =
                column.failed_rounds.iter().map(|(round, reason)| (round.to_string(), json!(reason))).collect();
            let column_json = json!({
                "rounds": rounds,
                "summary": summaries.collect::<Map<String, Value>>(),
                "failed": failed,
                "unavailable": unavailable,
                "failed_rounds": failed_rounds,
            });
            (column.contender.name().to_owned(), column_json)
        });
        let metrics: Vec<Value> =
            self.metrics.iter().map(|metric| json!({ "name": metric.name, "unit": metric.unit })).collect();
        json!({
            "name": self.name,
            "about": self.about,
            "network": self.network,
            "notes": self.notes,
            "metrics": metrics,
            "contenders": columns.collect::<Map<String, Value>>(),
        })
    }

    fn named(&self, sample: &[Option<f64>]) -> Value {
        self.metrics.iter().zip(sample).map(|(metric, value)| (metric.name.clone(), json!(value))).collect()
    }
}

fn title(metric: &Metric) -> String {
    let hint = match metric.better {
        Better::Lower => ", lower is better",
        Better::Higher => ", higher is better",
        Better::Neither => "",
    };
    if metric.unit.is_empty() {
        format!("{}{hint}", metric.name)
    } else {
        format!("{}, {}{hint}", metric.name, metric.unit)
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(contender: Contender, rates: &[f64], missing: Option<Missing>) -> Column {
        let rounds = rates.iter().map(|rate| vec![Some(*rate), None]).collect();
        Column { contender, rounds, failed_rounds: Vec::new(), missing }
    }

    fn results(columns: Vec<Column>) -> Results {
        let metrics =
            vec![Metric::new("rate", "requests/s", Better::Higher), Metric::new("own CPU", "µs", Better::Lower)];
        let mut results = Results::new("small", String::new(), String::new(), metrics);
        results.columns = columns;
        results
    }

    #[test]
    fn the_table_has_medians_ratios_and_failures() {
        let results = results(vec![
            column(Contender::Cmim, &[30.0, 10.0, 20.0], None),
            column(Contender::Haproxy, &[10.0], None),
            column(Contender::Nginx, &[], Some(Missing::Failed("not installed".to_owned()))),
            column(Contender::CmimPipe, &[], Some(Missing::Unavailable("refused".to_owned()))),
        ]);
        let table = results.table();
        assert!(
            table.contains(
                "| rate, requests/s, higher is better | 20.0 (10.0 to 30.0) | 10.0 (10.0 to 10.0) | failed | \
                 not available | **2.00** |"
            ),
            "{table}"
        );
        assert!(table.contains("| own CPU, µs, lower is better | - | - | failed | not available | - |"), "{table}");
        assert_eq!(results.failure(), None);
    }

    #[test]
    fn a_failed_round_is_told_and_in_no_median() {
        let mut failing = column(Contender::Cmim, &[10.0, 30.0], None);
        failing.rounds.insert(1, vec![None, None]);
        failing.failed_rounds.push((2, "3 timeouts".to_owned()));
        let results = results(vec![failing]);
        assert_eq!(results.summary(Contender::Cmim, 0).map(|summary| summary.median), Some(20.0));
        assert_eq!(results.failure().as_deref(), Some("round 2: 3 timeouts"));
        assert_eq!(results.troubles(), ["cmim FAILED in round 2, which is in no figure: 3 timeouts"]);
    }
}
