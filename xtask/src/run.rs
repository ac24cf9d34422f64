//! `cargo xtask run`: builds and becomes `cmim run ARGS`; without ARGS, the device before two built-in servers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::build::{self, build};
use crate::command::clean;
use crate::device::Device;
use crate::progress::note;
use crate::project::Project;
use crate::setup;

/// How often a waiting task looks whether the device still runs.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    build: build::Options,
    /// What `cmim run` gets; nothing: two demo servers behind 127.0.0.1:8080
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let binary = build(project, &options.build)?;
    setup::mount_bpffs();
    if options.arguments.is_empty() {
        return demo_servers(&binary);
    }
    let mut command = clean(&binary);
    command.arg("run").args(&options.arguments);
    // exec: signals and the exit code are cmim's own.
    Err(command.exec()).with_context(|| format!("{} did not start", binary.display()))
}

fn demo_servers(binary: &Path) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let mut device = Device::start(binary, "stdout")?;
    note(
        "run",
        format!("http://{0}/ is the dynamic server, http://{0}/static/ the static one; Ctrl-C ends it", device.address),
    );
    interrupt.wait(&mut device)?;
    let status = device.stop()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ctrl-C, SIGTERM or the terminal's end. Listened for before a device starts, so that none is left behind.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: Receiver<i32>,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let mut caught = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("no signal handler")?;
        let (sender, signals) = channel();
        thread::spawn(move || caught.forever().all(|signal| sender.send(signal).is_ok()));
        Ok(Self { signals })
    }

    /// Waits for one, or for the device's own end.
    pub(crate) fn wait(&self, device: &mut Device) -> Result<()> {
        while device.ended()?.is_none() {
            match self.signals.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }
}
