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

/// Panels below each other, each with a logarithmic scale of its own, from one power of ten to another.
pub(crate) fn lines(panels: &[Panel]) -> String {
    let mut shapes = String::new();
    let mut top = GAP;
    for panel in panels {
        draw(&mut shapes, panel, top + TITLE);
        top += TITLE + PANEL + TITLE;
    }
    picture(&shapes, top)
}

/// A scale over whole powers of ten.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let from = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let to = values.fold(0.0, f64::max).log10().ceil();
        if from.is_finite() && to.is_finite() {
            Self { from, to: to.max(from + 1.0) }
        } else {
            Self { from: 0.0, to: 1.0 }
        }
    }

    /// How far up a value stands, from 0 to 1.
    fn height(self, value: f64) -> f64 {
        (value.log10() - self.from) / (self.to - self.from)
    }

    fn powers(self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.from), |power| Some(power + 1.0))
            .take_while(move |power| *power <= self.to)
            .map(|power| 10_f64.powf(power))
    }
}

fn draw(shapes: &mut String, panel: &Panel, top: f64) {
    let values = panel.lines.iter().flat_map(|(_, values)| values.iter().flatten().copied());
    let scale = Scale::over(values.filter(|value| *value > 0.0));
    let bottom = top + PANEL;
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(0));
    let across = |step: usize| PLOT_LEFT + number(step) / number(panel.steps.len().max(2) - 1) * PLOT_WIDTH;
    let up = |value: f64| bottom - scale.height(value) * PANEL;
    let title = escaped(&panel.title);
    let _ = writeln!(shapes, "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", top - 10.0);
    for power in scale.powers() {
        let (y, right) = (up(power), PLOT_LEFT + PLOT_WIDTH);
        let _ = writeln!(
            shapes,
            "<path d=\"M{PLOT_LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/>\n<text x=\"8\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            figure(power),
        );
    }
    for (step, name) in panel.steps.iter().enumerate() {
        let (x, y) = (across(step) - 14.0, bottom + 16.0);
        let _ = writeln!(shapes, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(name));
    }
    for (index, (contender, values)) in panel.lines.iter().enumerate() {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .filter_map(|(step, value)| {
                Some(format!("{:.1},{:.1}", across(step), up(value.filter(|value| *value > 0.0)?)))
            })
            .collect();
        let missing = if points.is_empty() { ": none" } else { "" };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_goes_over_whole_powers_of_ten() {
        let scale = Scale::over([30.0, 4000.0].into_iter());
        assert_eq!((scale.from, scale.to), (1.0, 4.0));
        assert!((scale.height(100.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(scale.powers().count(), 4);
        let nothing = Scale::over(std::iter::empty());
        assert_eq!((nothing.from, nothing.to), (0.0, 1.0));
    }
}
