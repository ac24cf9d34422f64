//! A server in a process of its own, killed with SIGKILL and started again on the same address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::deadline::PATIENCE;
use crate::ports::Reserved;
use crate::process::Process;

/// A server that answers after a while with a request's target, and notes each request before.
#[derive(Debug)]
pub struct Mortal {
    program: PathBuf,
    delay: Duration,
    journal: PathBuf,
    port: Reserved,
    /// `None`: dead.
    process: Option<Process>,
}

impl Mortal {
    /// `program`: the built `mortal`. `directory`: for its journal. Up when this returns.
    #[track_caller]
    pub fn start(program: &str, directory: &Path, delay: Duration) -> Self {
        let port = Reserved::v4();
        let journal = directory.join(format!("journal-{}", port.address().port()));
        let mut server = Self { program: program.into(), delay, journal, port, process: None };
        server.revive();
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Kills it without a last word: its kernel ends its connections.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            process.wait(PATIENCE);
        }
    }

    /// Starts it anew, and waits until it listens.
    #[track_caller]
    pub fn revive(&mut self) {
        let (address, delay) = (self.address(), self.delay.as_millis());
        let mut command = Command::new(&self.program);
        command.args([&address.to_string(), &delay.to_string()]).arg(&self.journal);
        let mut process = Process::start("mortal", &mut command);
        process.wait_for(address);
        self.process = Some(process);
    }

    /// `METHOD TARGET` of each request that it got in all its lives.
    pub fn requests(&self) -> Vec<String> {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        journal.lines().map(str::to_owned).collect()
    }
}
