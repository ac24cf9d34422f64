//! A child process of a test: its output collected, ended by its id when the test is over.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::deadline::{PATIENCE, until};

/// How long a child may take to end once told so, before it is killed.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with stdout and stderr collected.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = spawn(name, command);
        let stderr = child.stderr.take();
        Self::with(name, child, stderr)
    }

    /// The same with a stderr that nobody reads: writing to it fails.
    #[track_caller]
    pub fn start_unheard(name: &str, command: &mut Command) -> Self {
        let mut child = spawn(name, command);
        drop(child.stderr.take());
        Self::with(name, child, None)
    }

    fn with(name: &str, mut child: Child, stderr: Option<ChildStderr>) -> Self {
        let output = Arc::new(Mutex::new(Vec::new()));
        let collectors = [collect(child.stdout.take(), &output), collect(stderr, &output)];
        Self { name: name.into(), child, output, collectors: collectors.into_iter().flatten().collect() }
    }

    /// Waits until `address` accepts connections.
    #[track_caller]
    pub fn wait_for(&mut self, address: SocketAddr) {
        until(&format!("{} accepts connections on {address}", self.name), PATIENCE, || {
            self.assert_alive();
            Client::try_connect(address).ok()
        });
    }

    #[track_caller]
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.try_status() {
            self.collect_the_rest();
            panic!("{} ended early ({status}) and said:\n{}", self.name, self.output());
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, to stdout and stderr.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("the output")).into_owned()
    }

    pub fn try_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// The output of a process that has ended, to its last byte.
    fn collect_the_rest(&mut self) {
        for collector in self.collectors.drain(..) {
            collector.join().expect("reading a pipe");
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // It may have ended on its own.
        let _ = kill_process(pid, signal);
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let name = format!("{} ends", self.name);
        let status = until(&name, patience, || self.child.try_wait().expect("a child of ours"));
        self.collect_the_rest();
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let end = std::time::Instant::now() + LAST_MOMENTS;
        while std::time::Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn spawn(name: &str, command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("starting {name} ({command:?}): {error}"))
}

fn collect(pipe: Option<impl Read + Send + 'static>, output: &Arc<Mutex<Vec<u8>>>) -> Option<JoinHandle<()>> {
    let mut pipe = pipe?;
    let output = output.clone();
    Some(thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            output.lock().expect("the output").extend_from_slice(&buffer[..count]);
        }
    }))
}
