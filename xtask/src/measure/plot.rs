//! Plots as SVG. Bars: a group per metric, a bar per contender, whiskers for the spread; each group has its own scale.
//! Lines: a panel per title, a line per contender, over steps of equal width.

use std::fmt::Write as _;

use super::contender::Contender;
use super::results::{Better, Results};
use super::statistics::figure;

const WIDTH: f64 = 640.0;
const LEFT: f64 = 140.0;
const LONGEST: f64 = 390.0;
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
    picture(&shapes, top)
}

/// A panel of [`lines`].
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// The names of the steps from left to right.
    pub(crate) steps: Vec<String>,
    /// A value for each step, where there is one.
    pub(crate) lines: Vec<(Contender, Vec<Option<f64>>)>,
}

const PANEL: f64 = 200.0;
const PLOT_LEFT: f64 = 70.0;
const PLOT_WIDTH: f64 = 430.0;

/// Panels below each other. The scale of each begins at nothing and goes as far as the most.
pub(crate) fn lines(panels: &[Panel]) -> String {
    let mut shapes = String::new();
    let mut top = GAP;
    for panel in panels {
        draw(&mut shapes, panel, top + TITLE);
        top += TITLE + PANEL + TITLE;
    }
    picture(&shapes, top)
}

fn draw(shapes: &mut String, panel: &Panel, top: f64) {
    let values = panel.lines.iter().flat_map(|(_, values)| values.iter().flatten().copied());
    let most = values.fold(f64::MIN_POSITIVE, f64::max);
    let bottom = top + PANEL;
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(0));
    let across = |step: usize| PLOT_LEFT + number(step) / number(panel.steps.len().max(2) - 1) * PLOT_WIDTH;
    let _ = write!(
        shapes,
        "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n\
         <path d=\"M{PLOT_LEFT} {top:.1}V{bottom:.1}H{:.1}\" fill=\"none\" stroke=\"#888888\"/>\n\
         <text x=\"8\" y=\"{:.1}\">{}</text>\n<text x=\"8\" y=\"{bottom:.1}\">0</text>\n",
        top - 8.0,
        escaped(&panel.title),
        PLOT_LEFT + PLOT_WIDTH,
        top + 10.0,
        figure(most),
    );
    for (step, name) in panel.steps.iter().enumerate() {
        let (x, y) = (across(step) - 14.0, bottom + 16.0);
        let _ = writeln!(shapes, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(name));
    }
    for (index, (contender, values)) in panel.lines.iter().enumerate() {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .filter_map(|(step, value)| Some(format!("{:.1},{:.1}", across(step), bottom - (*value)? / most * PANEL)))
            .collect();
        let missing = if points.is_empty() { " (not available)" } else { "" };
        let _ = write!(
            shapes,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{2}\" stroke-width=\"2\"/>\n\
             <text x=\"{3:.1}\" y=\"{4:.1}\" fill=\"{2}\">{1}{missing}</text>\n",
            points.join(" "),
            contender,
            contender.colour(),
            PLOT_LEFT + PLOT_WIDTH + 12.0,
            top + 10.0 + number(index) * BAR,
        );
    }
}

fn picture(shapes: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"sans-serif\" \
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
            contender.colour(),
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
