//! Handing the device to a new process, without a connection lost: the old one's side.
//!
//! The new process is started with the old one's command line. It gets the listening sockets, prepares itself, and is
//! given what only one daemon can have (interfaces, pins, tiers' directories) for the last steps of its start. Until it
//! is ready the old one accepts connections; if it never is, the old one takes everything back.

use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::device::Daemon;
use super::words::{self, VARIABLE, Word, WordError};
use crate::net::{Channel, MOST_SOCKETS};
use crate::observe::notify;

/// A new process is ready within this, or it is ended. Loading the kernel part takes the most of a start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often the new process is looked at while it says nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a process may take to end once it has closed the channel.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
/// Networks of the deny list in one word.
const MOST_NETWORKS: usize = 1000;

/// Why the old daemon goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error(
        "the daemon has become daemon.user: a process that it starts may not load the kernel part (restart the service instead)"
    )]
    Rights,
    #[error("the daemon does not know its own binary: {0} (--binary PATH names one)")]
    OwnBinary(#[source] io::Error),
    #[error("cannot start {}: {source}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
    #[error("the new process says: {0}")]
    Failed(String),
    #[error("the new process ended ({0}) before it was ready; its log says why")]
    Ended(String),
    #[error("the new process was not ready within {} s", START_LIMIT.as_secs())]
    TooSlow,
    #[error("the device is draining")]
    Draining,
    #[error(transparent)]
    Word(#[from] WordError),
}

/// What has taken over.
#[derive(Debug)]
pub(super) struct Successor {
    pub pid: u32,
    pub version: String,
}

/// Starts `binary`, or the daemon's own path, and returns once it has taken over.
pub(super) fn hand_over(device: &Daemon, binary: Option<PathBuf>) -> Result<Successor, UpgradeError> {
    if device.gave_up_root && device.kernel.lock().is_loaded() {
        return Err(UpgradeError::Rights);
    }
    let binary = binary.map_or_else(own_binary, Ok).map_err(UpgradeError::OwnBinary)?;
    let failed = |source| UpgradeError::Start { binary: binary.clone(), source };
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let mut child = command(&binary, theirs).spawn().map_err(failed)?;
    tracing::info!("upgrade: started {} as pid {}", binary.display(), child.id());
    let mut talk = Talk { device, channel: ours, child: &mut child, end: Instant::now() + START_LIMIT, lent: false };
    let ready = talk.until_ready().map_err(|error| talk.explain(error));
    match ready {
        Ok(version) => {
            device.kernel.lock().retire();
            device.handed_over.store(true, Ordering::Relaxed);
            notify::handed_over(child.id());
            Ok(Successor { pid: child.id(), version })
        }
        Err(error) => {
            let lent = talk.lent;
            end(&mut child);
            if lent {
                take_back(device);
            }
            tracing::error!("upgrade: {error}; this process goes on");
            Err(error)
        }
    }
}

/// The path under which this process was started; by now another file may stand there.
fn own_binary() -> io::Result<PathBuf> {
    const DELETED: &str = " (deleted)";
    let path = env::current_exe()?;
    match path.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(replaced) if !path.exists() => Ok(PathBuf::from(replaced)),
        _ => Ok(path),
    }
}

fn command(binary: &PathBuf, theirs: Channel) -> Command {
    let mut command = Command::new(binary);
    command.args(env::args_os().skip(1)).stdin(Stdio::from(theirs.into_end())).env(VARIABLE, "1");
    // They name this process.
    for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    command
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _: io::Result<()> = child.kill();
    let _: io::Result<std::process::ExitStatus> = child.wait();
}

fn take_back(device: &Daemon) {
    device.store.lock_directories();
    let doorways = device.doorways.lock();
    if let Err(error) = device.kernel.lock().take_back(&doorways.open_sockets()) {
        tracing::error!("{}", error.clause());
    }
}

struct Talk<'a> {
    device: &'a Daemon,
    channel: Channel,
    child: &'a mut Child,
    end: Instant,
    /// What only one daemon can have is the new one's.
    lent: bool,
}

impl Talk<'_> {
    /// Up to the new process's being ready; its version.
    fn until_ready(&mut self) -> Result<String, UpgradeError> {
        self.send_sockets()?;
        loop {
            match self.hear()? {
                Word::Prepared => self.lend()?,
                Word::Ready { version } => return Ok(version),
                Word::Failed { why } => return Err(UpgradeError::Failed(why)),
                word => return Err(UpgradeError::Failed(format!("{word:?}"))),
            }
        }
    }

    fn send_sockets(&self) -> Result<(), WordError> {
        for (address, sockets) in self.device.doorways.lock().sockets() {
            for some in sockets.chunks(MOST_SOCKETS) {
                let some: Vec<_> = some.iter().map(|socket| socket.as_fd()).collect();
                words::send(&self.channel, &Word::Listening { address: address.to_string() }, &some)?;
            }
        }
        if let Some(admin) = &self.device.admin {
            words::send(&self.channel, &Word::Admin, &[admin.as_fd()])?;
        }
        words::send(&self.channel, &Word::AllSockets, &[])
    }

    fn lend(&mut self) -> Result<(), WordError> {
        let denied = self.device.kernel.lock().denied().unwrap_or_default();
        for some in denied.chunks(MOST_NETWORKS) {
            words::send(&self.channel, &Word::Denied { networks: some.to_vec() }, &[])?;
        }
        self.lent = true;
        self.device.kernel.lock().lend();
        self.device.store.unlock_directories();
        words::send(&self.channel, &Word::Released, &[])
    }

    fn hear(&mut self) -> Result<Word, UpgradeError> {
        loop {
            match words::receive(&self.channel, LOOK_EVERY) {
                Ok((word, _)) => return Ok(word),
                Err(WordError::Silent) if self.device.draining.load(Ordering::Relaxed) => {
                    return Err(UpgradeError::Draining);
                }
                Err(WordError::Silent) if Instant::now() >= self.end => return Err(UpgradeError::TooSlow),
                Err(WordError::Silent) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A process that is gone may have left its reason; else its exit status is one.
    fn explain(&mut self, error: UpgradeError) -> UpgradeError {
        let UpgradeError::Word(WordError::Gone) = error else { return error };
        while let Ok((word, _)) = words::receive(&self.channel, LOOK_EVERY) {
            if let Word::Failed { why } = word {
                return UpgradeError::Failed(why);
            }
        }
        let end = Instant::now() + LAST_MOMENTS;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return UpgradeError::Ended(status.to_string()),
                // It has closed its standard input and lives: no daemon of this kind.
                Ok(None) if Instant::now() >= end => return UpgradeError::Word(WordError::Gone),
                Ok(None) => thread::sleep(LOOK_EVERY),
                Err(error) => return UpgradeError::Ended(error.to_string()),
            }
        }
    }
}
