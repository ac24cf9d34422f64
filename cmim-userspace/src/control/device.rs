//! What the control socket and the admin address ask of the running device.
//!
//! Owns the trait only; the daemon implements it, so that neither side knows the workers' insides.

use std::path::PathBuf;

use ipnet::IpNet;

use super::message::{Buffers, Connection, Guard, Job, NewServer, Queue, Reloaded, Server, Splice, Status};
use crate::observe::counters::Totals;

/// A running device. Called from the admin thread; a call may wait for locks that the data path holds for an instant.
pub trait Device: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// The sums of all workers' counters.
    fn totals(&self) -> Totals;
    fn connections(&self) -> Vec<Connection>;
    fn servers(&self) -> Vec<Server>;
    /// Takes a server out of the balance, or puts it back; false: there is no such server.
    fn set_draining(&self, upstream: &str, address: &str, draining: bool) -> bool;
    fn jobs(&self) -> Vec<Job>;
    /// Stops a job by its [`Job::id`]; false: there is no such job.
    fn cancel_job(&self, id: &str) -> bool;
    fn queues(&self) -> Vec<Queue>;
    fn buffers(&self) -> Buffers;
    /// Drops what comes from `sources` on the guarded interfaces.
    ///
    /// # Errors
    ///
    /// One line that says why not, with the way out.
    fn deny(&self, sources: IpNet) -> Result<(), String>;
    /// Takes exactly this network off the list; false: it was not there.
    ///
    /// # Errors
    ///
    /// One line that says why not, with the way out.
    fn allow(&self, sources: IpNet) -> Result<bool, String>;
    /// The denied networks, IPv4 first.
    ///
    /// # Errors
    ///
    /// One line that says why they cannot be told.
    fn denied(&self) -> Result<Vec<IpNet>, String>;
    /// The guard in the kernel.
    ///
    /// # Errors
    ///
    /// One line that says why there is none.
    fn guard(&self) -> Result<Guard, String>;
    /// What the kernel carries by itself; nothing without a kernel part.
    ///
    /// # Errors
    ///
    /// One line that says why it cannot be told.
    fn splices(&self) -> Result<Vec<Splice>, String>;
    /// The effective configuration.
    fn config_toml(&self) -> String;
    /// The file that the configuration came from; `None`: it came from flags.
    fn config_file(&self) -> Option<PathBuf>;
    /// Reads that file again and puts it in force, whole or not at all. May take as long as resolving host names does.
    ///
    /// # Errors
    ///
    /// Every reason why it is not in force, one line each.
    fn reload(&self) -> Result<Reloaded, Vec<String>>;
    /// Adds a server to an upstream. Takes as long as [`Device::reload`].
    ///
    /// # Errors
    ///
    /// One line that says why not.
    fn add_server(&self, upstream: &str, server: &NewServer) -> Result<(), String>;
    /// Removes a server from an upstream: it gets no new requests and is forgotten after its present ones. Takes as long
    /// as [`Device::reload`].
    ///
    /// # Errors
    ///
    /// One line that says why not.
    fn remove_server(&self, upstream: &str, address: &str) -> Result<(), String>;
    /// Stops accepting and ends once the open requests are answered, as at SIGTERM.
    fn drain(&self);
    /// Starts `binary`, or the daemon's own path, hands everything to it and finishes; one line that says so. Takes as
    /// long as the new process's start.
    ///
    /// # Errors
    ///
    /// One line that says why this process goes on.
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<String, String>;
}
