//! What a benchmark measured: for each contender the rounds, for each round a value per metric.

use serde_json::{Map, Value, json};

use super::proxy::Contender;
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

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) contender: Contender,
    pub(crate) rounds: Vec<Sample>,
    /// Why there are no (more) rounds.
    pub(crate) failed: Option<String>,
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
}

impl Results {
    pub(crate) fn new(name: &'static str, about: String, network: String, metrics: Vec<Metric>) -> Self {
        Self { name, about, network, metrics, columns: Vec::new() }
    }

    pub(crate) fn summary(&self, contender: Contender, metric: usize) -> Option<Summary> {
        let column = self.columns.iter().find(|column| column.contender == contender)?;
        Summary::of(column.rounds.iter().filter_map(|sample| sample.get(metric).copied().flatten()))
    }

    /// cmim's median by the peer's.
    pub(crate) fn ratio(&self, peer: Contender, metric: usize) -> Option<f64> {
        let (ours, theirs) = (self.summary(Contender::Cmim, metric)?, self.summary(peer, metric)?);
        (theirs.median > 0.0).then(|| ours.median / theirs.median)
    }

    /// Why cmim itself failed; a benchmark that it fails is no figure but an error.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.columns.iter().find(|column| column.contender == Contender::Cmim)?.failed.as_deref()
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
            cells.extend(self.columns.iter().map(|column| self.cell(column, index)));
            let ratio = |peer: &Contender| match metric.better {
                Better::Neither => "-".to_owned(),
                _ => self.ratio(*peer, index).map_or_else(|| "-".to_owned(), |ratio| format!("**{ratio:.2}**")),
            };
            cells.extend(peers.iter().map(ratio));
            lines.push(line(&cells));
        }
        lines.concat()
    }

    fn cell(&self, column: &Column, metric: usize) -> String {
        match self.summary(column.contender, metric) {
            Some(found) if found.most == 0.0 => "0".to_owned(),
            Some(found) => {
                format!("{} ({} to {})", figure(found.median), figure(found.least), figure(found.most))
            }
            None if column.failed.is_some() => "failed".to_owned(),
            None => "-".to_owned(),
        }
    }

    /// Every round as it was, and what the tables make of it.
    pub(crate) fn json(&self) -> Value {
        let columns = self.columns.iter().map(|column| {
            let rounds: Vec<Value> = column.rounds.iter().map(|sample| self.named(sample)).collect();
            let summaries = self.metrics.iter().enumerate().filter_map(|(index, metric)| {
                Some((metric.name.clone(), self.summary(column.contender, index)?.json()))
            });
            let column_json = json!({
                "rounds": rounds,
                "summary": summaries.collect::<Map<String, Value>>(),
                "failed": column.failed,
            });
            (column.contender.name().to_owned(), column_json)
        });
        let metrics: Vec<Value> =
            self.metrics.iter().map(|metric| json!({ "name": metric.name, "unit": metric.unit })).collect();
        json!({
            "name": self.name,
            "about": self.about,
            "network": self.network,
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

    #[test]
    fn the_table_has_medians_ratios_and_failures() {
        let metrics =
            vec![Metric::new("rate", "requests/s", Better::Higher), Metric::new("own CPU", "µs", Better::Lower)];
        let mut results = Results::new("small", String::new(), String::new(), metrics);
        let column = |contender, rates: &[f64], failed: Option<&str>| Column {
            contender,
            rounds: rates.iter().map(|rate| vec![Some(*rate), None]).collect(),
            failed: failed.map(str::to_owned),
        };
        results.columns = vec![
            column(Contender::Cmim, &[30.0, 10.0, 20.0], None),
            column(Contender::Haproxy, &[10.0], None),
            column(Contender::Nginx, &[], Some("not installed")),
        ];
        let table = results.table();
        assert!(
            table.contains(
                "| rate, requests/s, higher is better | 20.0 (10.0 to 30.0) | 10.0 (10.0 to 10.0) | failed | **2.00** |"
            ),
            "{table}"
        );
        assert!(table.contains("| own CPU, µs, lower is better | - | - | failed | - |"), "{table}");
        assert_eq!(results.failure(), None);
    }
}
