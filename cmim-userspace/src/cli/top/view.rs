//! The screen, drawn.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::rows::{self, Tab};
use super::state::State;
use crate::control::figures;
use crate::control::message::Status;

const KEYS: &str = "q quit  1-5 table  s sort  r reverse  / filter  d drain or enable a server";

/// `rate`: requests since the look before this one, and how long that is ago.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, rate: Option<(u64, Duration)>) {
    let areas =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)])
            .split(frame.area());
    frame.render_widget(ratatui::text::Text::from(summary(&state.look.status, rate)), areas[0]);
    frame.render_widget(tabs(state.tab), areas[1]);
    let shown = state.rows();
    let mut selection = TableState::default().with_selected((!shown.is_empty()).then_some(state.selected));
    frame.render_stateful_widget(table(state, &shown), areas[2], &mut selection);
    frame.render_widget(last_line(state), areas[3]);
}

fn summary(status: &Status, rate: Option<(u64, Duration)>) -> Vec<Line<'static>> {
    let state = if status.draining { "draining" } else { "running" };
    let per_second = rate.map_or_else(String::new, |(count, ago)| format!(" ({}/s)", figures::per_second(count, ago)));
    let count = figures::count;
    vec![
        Line::from(format!(
            "cmim {}  {state}  up {}  pid {}  {} workers  kernel part {}",
            status.version,
            figures::span(status.uptime_seconds),
            status.pid,
            status.workers,
            status.kernel.mode
        )),
        Line::from(format!(
            "clients {}  servers {} ({} idle)  requests {}{per_second}  active {}  queued {}  stacked {}",
            count(status.client_connections.open),
            count(status.server_connections.open),
            count(status.server_connections.idle),
            count(status.requests_total),
            count(status.jobs.active),
            count(status.jobs.queued),
            count(status.stacked.in_flight)
        )),
    ]
}

fn tabs(present: Tab) -> Line<'static> {
    let tab = |(number, tab): (usize, Tab)| {
        let style = if tab == present { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        [Span::styled(format!(" {number} {} ", tab.name()), style), Span::raw(" ")]
    };
    Line::from((1..).zip(Tab::ALL).flat_map(tab).collect::<Vec<_>>())
}

fn table(state: &State, shown: &[rows::Row]) -> Table<'static> {
    let columns = state.tab.columns();
    let head = columns.iter().enumerate().map(|(position, name)| {
        let arrow = if state.reverse { "^" } else { "v" };
        if state.sort == Some(position) { format!("{name} {arrow}") } else { (*name).to_owned() }
    });
    let head: Vec<String> = head.collect();
    let widths: Vec<Constraint> = head.iter().enumerate().map(|(column, name)| width(column, name, shown)).collect();
    let body = shown
        .iter()
        .map(|row| Row::new(row.0.iter().map(|cell| Cell::from(cell.text.clone()).style(colour(&cell.text)))));
    Table::new(body, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

/// As wide as its widest cell.
fn width(column: usize, name: &str, shown: &[rows::Row]) -> Constraint {
    let cells = shown.iter().filter_map(|row| row.0.get(column)).map(|cell| cell.text.chars().count());
    let widest = cells.chain([name.chars().count()]).max().unwrap_or(0);
    Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
}

/// A server's state has its colour; it says no more than the word.
fn colour(text: &str) -> Style {
    match text {
        "up" => Style::new().fg(Color::Green),
        "down" => Style::new().fg(Color::Red),
        "probing" | "draining" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn last_line(state: &State) -> Line<'static> {
    if state.is_typing {
        return Line::from(format!("/{}_", state.filter));
    }
    if let Some(message) = &state.message {
        return Line::styled(message.clone(), Style::new().fg(Color::Yellow));
    }
    let filter = if state.filter.is_empty() { String::new() } else { format!("filter: {}  ", state.filter) };
    Line::from(format!("{filter}{KEYS}"))
}
