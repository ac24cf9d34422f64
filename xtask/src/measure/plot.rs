//! Bars as SVG: a group per metric, a bar per contender, whiskers for the spread. Each group has its own scale.

use std::fmt::Write as _;

use super::proxy::Contender;
use super::results::{Better, Results};
use super::statistics::figure;

const WIDTH: f64 = 640.0;
const LEFT: f64 = 90.0;
const LONGEST: f64 = 440.0;
const BAR: f64 = 18.0;
const TITLE: f64 = 30.0;
const GAP: f64 = 14.0;

/// The plot of one benchmark.
pub(crate) fn bars(results: &Results) -> String {
    let mut shapes = String::new();
    let mut top = GAP;
    for (index, metric) in results.metrics.iter().enumerate() {
        if metric.better == Better::Neither {
            continue;
        }
        let _ = writeln!(
            shapes,
            "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{} ({}, {} is better)</text>",
            top + 14.0,
            escaped(&metric.name),
            escaped(metric.unit),
            if metric.better == Better::Lower { "lower" } else { "higher" },
        );
        top = group(&mut shapes, results, index, top + TITLE) + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {top:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{shapes}</svg>\n"
    )
}

/// Draws one metric's bars from `top` on; where they end.
fn group(shapes: &mut String, results: &Results, metric: usize, mut top: f64) -> f64 {
    let found: Vec<_> = results
        .columns
        .iter()
        .filter_map(|column| Some((column.contender, results.summary(column.contender, metric)?)))
        .collect();
    let most = found.iter().map(|(_, summary)| summary.most).fold(f64::MIN_POSITIVE, f64::max);
    let long = |value: f64| value / most * LONGEST;
    for (contender, summary) in &found {
        let middle = top + BAR / 2.0 - 2.0;
        let (from, to) = (LEFT + long(summary.least), LEFT + long(summary.most));
        let _ = write!(
            shapes,
            "<text x=\"8\" y=\"{:.1}\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n\
             <path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v6M{to:.1} {:.1}v6\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            middle + 4.0,
            contender.name(),
            long(summary.median),
            BAR - 4.0,
            colour(*contender),
            middle - 3.0,
            middle - 3.0,
            to + 8.0,
            middle + 4.0,
            figure(summary.median),
        );
        top += BAR;
    }
    top
}

fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Direct => "#bbbbbb",
        Contender::Cmim => "#2a7f62",
        Contender::Haproxy => "#5b8db8",
        Contender::Nginx => "#c98b4e",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
