//! What the control socket and the admin address ask of the running device.
//!
//! Owns the trait only; the daemon implements it, so that neither side knows the workers' insides.

use super::message::{Connection, Job, Queue, Server, Status};
use crate::observe::counters::Totals;

/// A running device. Called from the admin thread; a call may wait for locks that the data path holds for an instant.
pub trait Device: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// The sums of all workers' counters.
    fn totals(&self) -> Totals;
    fn connections(&self) -> Vec<Connection>;
    fn servers(&self) -> Vec<Server>;
    fn jobs(&self) -> Vec<Job>;
    /// Stops a job by its [`Job::id`]; false: there is no such job.
    fn cancel_job(&self, id: &str) -> bool;
    fn queues(&self) -> Vec<Queue>;
    /// The effective configuration.
    fn config_toml(&self) -> String;
}
