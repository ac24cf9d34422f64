//! Asks the daemon once a second and reads the keyboard in between.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::rows::Look;
use super::state::{Action, State};
use super::view;
use crate::cli::CliError;
use crate::cli::ask::Daemon;

const LOOK_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Keys:
  1-5, Tab     servers, connections, jobs, lanes, tiers
  up, down     select a row
  s, r         sort by the next column, reverse
  /            show rows that contain a text; Esc shows all again
  d            drain the selected server, or enable it
  q            quit";

/// The device live: servers, connections, jobs, lanes, tiers; with keys to sort, filter and drain a server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub(in crate::cli) fn execute(_: &Args, daemon: &Daemon) -> Result<(), CliError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    let mut state = State::default();
    // What is wrong from the start is an error, not a screen.
    state.show(look(daemon)?);
    let mut terminal = ratatui::try_init().map_err(CliError::Output)?;
    let ended = live(&mut terminal, &mut state, daemon);
    ratatui::restore();
    ended
}

fn live(terminal: &mut DefaultTerminal, state: &mut State, daemon: &Daemon) -> Result<(), CliError> {
    let mut looked = Instant::now();
    let mut rate = None;
    loop {
        terminal.draw(|frame| view::draw(frame, state, rate)).map_err(CliError::Output)?;
        let wait = LOOK_EVERY.saturating_sub(looked.elapsed());
        if event::poll(wait).map_err(CliError::Output)?
            && let Event::Key(key) = event::read().map_err(CliError::Output)?
            && key.kind != KeyEventKind::Release
        {
            state.message = None;
            match state.key(key) {
                Some(Action::Quit) => return Ok(()),
                Some(Action::SetDraining { upstream, address, draining }) => {
                    let done = daemon.set_draining(&upstream, &address, draining);
                    state.message = Some(done.unwrap_or_else(|error| error.to_string()));
                    looked = Instant::now() - LOOK_EVERY;
                }
                None => {}
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            let before = state.look.status.requests_total;
            match look(daemon) {
                Ok(look) => {
                    // A new daemon counts from nothing.
                    rate = Some((look.status.requests_total.saturating_sub(before), looked.elapsed()));
                    state.show(look);
                }
                Err(error) => state.message = Some(error.to_string()),
            }
            looked = Instant::now();
        }
    }
}

fn look(daemon: &Daemon) -> Result<Look, CliError> {
    Ok(Look { status: daemon.status()?, connections: daemon.connections()?, jobs: daemon.jobs()? })
}
