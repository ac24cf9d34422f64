//! Typed questions to a running daemon.

use std::path::PathBuf;

use super::CliError;
use crate::config;
use crate::control::message::{
    Answer, Buffers, Connection, Guard, Job, NewServer, Queue, Reloaded, Request, Server, Splice, Status,
};
use crate::control::{ControlError, ask};

/// The daemon behind one control socket.
#[derive(Debug)]
pub(super) struct Daemon {
    path: PathBuf,
}

impl Daemon {
    /// At `--control`, else at the default socket.
    pub(super) fn at(control: Option<PathBuf>) -> Self {
        Self { path: control.unwrap_or_else(config::default_control_socket) }
    }

    pub(super) fn status(&self) -> Result<Status, CliError> {
        match self.ask(&Request::Status)? {
            Answer::Status(status) => Ok(*status),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn connections(&self) -> Result<Vec<Connection>, CliError> {
        match self.ask(&Request::Connections)? {
            Answer::Connections(connections) => Ok(connections),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn servers(&self) -> Result<Vec<Server>, CliError> {
        match self.ask(&Request::Servers)? {
            Answer::Servers(servers) => Ok(servers),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// Takes a server out of the balance, or puts it back; the daemon's line that says so.
    pub(super) fn set_draining(&self, upstream: &str, address: &str, draining: bool) -> Result<String, CliError> {
        let request = Request::ServerDraining { upstream: upstream.to_owned(), address: address.to_owned(), draining };
        match self.ask(&request)? {
            Answer::Changed(done) => Ok(done),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn jobs(&self) -> Result<Vec<Job>, CliError> {
        match self.ask(&Request::Jobs)? {
            Answer::Jobs(jobs) => Ok(jobs),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// Stops a job; the daemon's line that says so.
    pub(super) fn cancel_job(&self, id: &str) -> Result<String, CliError> {
        match self.ask(&Request::JobCancel { id: id.to_owned() })? {
            Answer::Changed(done) => Ok(done),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn queues(&self) -> Result<Vec<Queue>, CliError> {
        match self.ask(&Request::Queues)? {
            Answer::Queues(queues) => Ok(queues),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// Denies a network; the daemon's line that says so.
    pub(super) fn deny(&self, sources: &str) -> Result<String, CliError> {
        self.change(&Request::DenyAdd { sources: sources.to_owned() })
    }

    /// Allows a denied network again; the daemon's line that says so.
    pub(super) fn allow(&self, sources: &str) -> Result<String, CliError> {
        self.change(&Request::DenyRemove { sources: sources.to_owned() })
    }

    pub(super) fn denied(&self) -> Result<Vec<String>, CliError> {
        match self.ask(&Request::DenyList)? {
            Answer::Denied(denied) => Ok(denied),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn guard(&self) -> Result<Guard, CliError> {
        match self.ask(&Request::Guard)? {
            Answer::Guard(guard) => Ok(*guard),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn buffers(&self) -> Result<Buffers, CliError> {
        match self.ask(&Request::Buffers)? {
            Answer::Buffers(buffers) => Ok(*buffers),
            _ => Err(CliError::WrongAnswer),
        }
    }

    pub(super) fn splices(&self) -> Result<Vec<Splice>, CliError> {
        match self.ask(&Request::Splices)? {
            Answer::Splices(splices) => Ok(splices),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// Adds a server; the daemon's line that says so.
    pub(super) fn add_server(&self, upstream: &str, server: NewServer) -> Result<String, CliError> {
        self.change(&Request::ServerAdd { upstream: upstream.to_owned(), server })
    }

    /// Removes a server; the daemon's line that says so.
    pub(super) fn remove_server(&self, upstream: &str, address: &str) -> Result<String, CliError> {
        self.change(&Request::ServerRemove { upstream: upstream.to_owned(), address: address.to_owned() })
    }

    /// Has the daemon read its file again.
    pub(super) fn reload(&self) -> Result<Reloaded, CliError> {
        match self.ask(&Request::Reload)? {
            Answer::Reloaded(reloaded) => Ok(*reloaded),
            Answer::NotReloaded(reasons) => Err(CliError::NotReloaded(reasons)),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// The file that the daemon was started with.
    pub(super) fn config_file(&self) -> Result<PathBuf, CliError> {
        match self.ask(&Request::ConfigFile)? {
            Answer::ConfigFile(path) => Ok(path),
            _ => Err(CliError::WrongAnswer),
        }
    }

    /// Has the daemon drain and end.
    pub(super) fn drain(&self) -> Result<String, CliError> {
        self.change(&Request::Drain)
    }

    /// Puts another binary in the daemon's place; the daemon's line that says so.
    pub(super) fn upgrade(&self, binary: Option<PathBuf>) -> Result<String, CliError> {
        self.change(&Request::Upgrade { binary })
    }

    /// The running configuration as TOML.
    pub(super) fn config(&self) -> Result<String, CliError> {
        match self.ask(&Request::ConfigShow)? {
            Answer::ConfigShow(text) => Ok(text),
            _ => Err(CliError::WrongAnswer),
        }
    }

    fn change(&self, request: &Request) -> Result<String, CliError> {
        match self.ask(request)? {
            Answer::Changed(done) => Ok(done),
            _ => Err(CliError::WrongAnswer),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, CliError> {
        let answer: Result<Answer, ControlError> = ask(&self.path, request);
        match answer? {
            Answer::Refused(reason) => Err(CliError::Refused(reason)),
            answer => Ok(answer),
        }
    }
}
