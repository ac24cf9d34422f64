//! The daemon: one event loop per CPU for the connections, and the main thread for everything that is not urgent.
//!
//! [`run`] puts the parts together and takes them apart again. Workers own their connections and share upstreams, the
//! RAM tier and nothing else; the main thread answers the control socket, checks servers and hears signals.

mod accept;
mod changer;
mod device;
mod doorways;
mod event_loop;
mod health;
mod parking;
mod predecessor;
mod privileges;
mod run;
mod upgrade;
mod words;
mod yielding;

pub use predecessor::tell_predecessor;
pub use run::{RunError, run};
