use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{Look, Tab};
use super::state::{Action, State};
use super::view;
use crate::control::message::{Connection, Server, Status};

fn state() -> State {
    let server = |address: &str, state: &str, requests_total| Server {
        upstream: "app".to_owned(),
        address: address.to_owned(),
        state: state.to_owned(),
        weight: 1,
        requests_total,
        ..Server::default()
    };
    let mut state = State::default();
    state.show(Look {
        status: Status {
            version: "9.9.9".to_owned(),
            servers: vec![server("127.0.0.1:1", "up", 5), server("127.0.0.1:2", "draining", 70)],
            ..Status::default()
        },
        connections: vec![Connection { id: 7, address: "203.0.113.7:4".to_owned(), ..Connection::default() }],
        jobs: Vec::new(),
    });
    state
}

fn press(state: &mut State, codes: impl IntoIterator<Item = KeyCode>) -> Option<Action> {
    codes.into_iter().map(|code| state.key(KeyEvent::new(code, KeyModifiers::NONE))).last().flatten()
}

fn letters(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn screen(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 10)).unwrap();
    terminal.draw(|frame| view::draw(frame, state, None)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn the_screen_has_the_figures_of_the_table() {
    let mut state = state();
    let shown = screen(&state);
    for part in ["cmim 9.9.9", "1 servers", "UPSTREAM", "127.0.0.1:2  draining", "q quit"] {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
    press(&mut state, letters("2"));
    assert!(screen(&state).contains("203.0.113.7:4"));
    press(&mut state, letters("5"));
    assert!(screen(&state).contains("memory"));
}

#[test]
fn numbers_are_sorted_largest_first_and_r_turns_that_round() {
    let mut state = state();
    let first = |state: &State| state.rows()[0].0[1].text.clone();
    press(&mut state, letters("sssssss"));
    assert_eq!((state.sort, first(&state).as_str()), (Some(6), "127.0.0.1:2"), "by requests");
    press(&mut state, letters("r"));
    assert_eq!(first(&state), "127.0.0.1:1");
    press(&mut state, letters("ss"));
    assert_eq!(state.sort, None, "behind the last column comes the daemon's order");
}

#[test]
fn a_filter_takes_keys_until_it_is_done() {
    let mut state = state();
    assert_eq!(press(&mut state, letters("/q")), None);
    assert!(state.rows().is_empty(), "no row has a q");
    press(&mut state, [KeyCode::Backspace]);
    press(&mut state, letters("DRAIN"));
    press(&mut state, [KeyCode::Enter]);
    assert_eq!(state.rows().len(), 1);
    press(&mut state, [KeyCode::Esc]);
    assert_eq!(state.rows().len(), 2);
    assert_eq!(press(&mut state, letters("q")), Some(Action::Quit));
}

#[test]
fn d_drains_the_selected_server_and_enables_a_drained_one() {
    let mut state = state();
    let action = |address: &str, draining| {
        Some(Action::SetDraining { upstream: "app".to_owned(), address: address.to_owned(), draining })
    };
    assert_eq!(press(&mut state, letters("d")), action("127.0.0.1:1", true));
    press(&mut state, [KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    assert_eq!(press(&mut state, letters("d")), action("127.0.0.1:2", false));
    press(&mut state, [KeyCode::Tab]);
    assert_eq!((state.tab, press(&mut state, letters("d"))), (Tab::Connections, None));
}
