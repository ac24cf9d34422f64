//! One request on its way to a server, and the reply on its way back.
//!
//! [`run`] is the whole life: a place at a server ([`upstream`]), the request out ([`upload`]), the reply's head in
//! ([`attempt`]), its content through ([`relay`]). Decisions come from the pure modules ([`crate::h1`],
//! [`crate::reply`], [`crate::upstream`]); here are the sockets and the waiting. It does not know how requests come to be:
//! that is [`crate::client`]'s.

mod again;
mod attempt;
mod carrying;
mod content;
mod failure;
mod handed;
mod input;
mod life;
mod link;
mod pace;
mod progress;
mod relay;
mod server;
mod site;
mod timer;
mod trail;
mod train;
pub mod upload;
pub mod upstream;

pub use content::{Content, Piece};
pub use failure::{ContentFault, Failure, is_shortage};
pub use input::Owner;
pub use life::{Outcome, Refusal, refuse, run};
pub use link::{Accepted, Job, Link};
pub use progress::Progress;
pub use server::ServerSocket;
pub use site::{Current, Drain, Site};
pub use timer::Timer;
pub use trail::{Handling, Trail};
pub use train::Trains;
