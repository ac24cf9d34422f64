//! The servers behind the device: real ones, and named faulty ones.

pub mod faulty;
pub mod lighttpd;
pub mod mortal;
pub mod nginx;
pub mod obedient;
pub mod php;
pub mod scripted;

pub use lighttpd::Lighttpd;
pub use mortal::Mortal;
pub use nginx::Nginx;
pub use obedient::Crew;
pub use php::Php;
pub use scripted::{Request, ScriptedServer, ServerSide};
