//! What the operator has chosen, and what a key does to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{Look, Row, Tab};

/// The screen's state. The data comes from the daemon, a look at a time.
#[derive(Debug, Default)]
pub(super) struct State {
    pub look: Look,
    pub tab: Tab,
    /// The column by which each table is sorted; `None`: the daemon's order.
    pub sort: Option<usize>,
    pub reverse: bool,
    /// Rows that contain this are shown.
    pub filter: String,
    /// Keys go to the filter.
    pub is_typing: bool,
    pub selected: usize,
    /// What the last action brought, or what is wrong with the daemon.
    pub message: Option<String>,
}

/// What a key asks for beyond the screen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Take a server out of the balance, or put it back.
    SetDraining {
        upstream: String,
        address: String,
        draining: bool,
    },
}

impl State {
    /// The present table as it is shown.
    pub(super) fn rows(&self) -> Vec<Row> {
        let filter = self.filter.to_lowercase();
        let fits = |row: &Row| row.0.iter().any(|cell| cell.text.to_lowercase().contains(&filter));
        let mut rows: Vec<Row> = self.tab.rows(&self.look).into_iter().filter(fits).collect();
        if let Some(column) = self.sort {
            rows.sort_by(|one, other| {
                let (Some(one), Some(other)) = (one.0.get(column), other.0.get(column)) else {
                    return std::cmp::Ordering::Equal;
                };
                match (one.number, other.number) {
                    // The largest first: that is what one looks for.
                    (Some(one), Some(other)) => other.total_cmp(&one),
                    _ => one.text.cmp(&other.text),
                }
            });
        }
        if self.reverse {
            rows.reverse();
        }
        rows
    }

    /// Takes another look over; the selection stays within it.
    pub(super) fn show(&mut self, look: Look) {
        self.look = look;
        self.keep_selection();
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if self.is_typing {
            self.type_filter(key.code);
            return None;
        }
        let action = match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Esc => {
                self.filter.clear();
                None
            }
            KeyCode::Char('d') => self.drain_or_enable(),
            code => {
                self.choose(code);
                None
            }
        };
        self.keep_selection();
        action
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.keep_selection();
    }

    fn choose(&mut self, code: KeyCode) {
        match code {
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => {
                let position = digit as usize - '1' as usize;
                self.turn_to(Tab::ALL[position]);
            }
            KeyCode::Char('s') => {
                let next = self.sort.map_or(0, |column| column + 1);
                self.sort = (next < self.tab.columns().len()).then_some(next);
            }
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            _ => {}
        }
    }

    fn turn(&mut self, steps: usize) {
        let position = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.turn_to(Tab::ALL[(position + steps) % Tab::ALL.len()]);
    }

    fn turn_to(&mut self, tab: Tab) {
        if tab != self.tab {
            (self.tab, self.sort, self.selected) = (tab, None, 0);
        }
    }

    fn drain_or_enable(&self) -> Option<Action> {
        if self.tab != Tab::Servers {
            return None;
        }
        let rows = self.rows();
        let [upstream, address, state, ..] = rows.get(self.selected)?.0.as_slice() else { return None };
        Some(Action::SetDraining {
            upstream: upstream.text.clone(),
            address: address.text.clone(),
            draining: state.text != "draining",
        })
    }

    fn keep_selection(&mut self) {
        self.selected = self.selected.min(self.rows().len().saturating_sub(1));
    }
}
