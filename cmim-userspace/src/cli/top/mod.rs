//! `cmim top`: the device live in the terminal.
//!
//! `rows.rs` makes tables of the control socket's answers, `state.rs` is what the operator has chosen (pure: keys in,
//! actions out), `view.rs` draws both, `run.rs` asks the daemon and reads the keyboard.

mod rows;
mod run;
mod state;
mod view;

#[cfg(test)]
mod tests;

pub(super) use run::{Args, execute};
