//! A program that the benchmark runs: started apart from the terminal's group, ended by its own process ids only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Run;

/// From SIGTERM to SIGKILL.
const END_PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with both its streams going to `log`.
    pub(crate) fn start(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        // A group of its own: Ctrl-C is for us, who then end it in order.
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("{name} did not start"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `ready` holds; an end before that is an error with what the program said.
    pub(crate) fn wait_until(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", self.name, self.said());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready after {} s: {}", self.name, patience.as_secs(), self.said());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it still runs; if not, what it said.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.said());
        }
        Ok(())
    }

    /// Waits for its end and returns what it wrote; an end with an error code is an error.
    pub(crate) fn finish(mut self, patience: Duration, run: &Run) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("{} failed ({status}): {}", self.name, self.said());
                }
                return fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()));
            }
            run.check_interrupt()?;
            if Instant::now() > deadline {
                bail!("{} had not ended after {} s: {}", self.name, patience.as_secs(), self.said());
            }
            thread::sleep(POLL);
        }
    }

    /// Has it end in order and returns what it wrote.
    pub(crate) fn end(mut self, patience: Duration) -> Result<String> {
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} had not ended {} s after SIGTERM: {}", self.name, patience.as_secs(), self.said());
            }
            thread::sleep(POLL);
        }
        fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }

    /// Its process id and those of its children, however deep.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(children(pid));
            next += 1;
        }
        pids
    }

    /// The end of what it wrote.
    fn said(&self) -> String {
        const SHOWN: usize = 2000;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skipped = text.chars().count().saturating_sub(SHOWN);
        text.trim().chars().skip(skipped).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A master killed the hard way cannot end its workers any more.
        let pids = self.pids();
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            // An error means that there is no such child: ended as well.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        for pid in pids {
            signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}
