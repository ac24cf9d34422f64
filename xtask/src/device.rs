//! A running device for `run` and `demo`: the real binary before the demo servers, with a configuration, a control
//! socket and a pin directory of its own. Dropped, it ends the device and removes what it made.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::clean;
use crate::demo_servers::{Server, start_dynamic, start_static};
use crate::progress::note;

const WANTED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// From the start to the first accepted connection; the verifier has a share in it.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// The device's own grace and a little more.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
const SHUTDOWN_GRACE: &str = "5s";
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) address: SocketAddr,
    pub(crate) control: PathBuf,
    pub(crate) pin_dir: PathBuf,
    pub(crate) fixed: Server,
    pub(crate) dynamic: Server,
    binary: PathBuf,
    directory: PathBuf,
    child: Child,
}

impl Device {
    /// Starts the demo servers and the device before them. `access_log` is the configuration's key.
    pub(crate) fn start(binary: &Path, access_log: &str) -> Result<Self> {
        let (fixed, dynamic) = (start_static()?, start_dynamic()?);
        let name = format!("cmim-demo-{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let control = directory.join("control.sock");
        // Maps can only be pinned on bpffs.
        let pin_dir = Path::new("/sys/fs/bpf").join(&name);
        let address = free_address()?;
        let file = directory.join("cmim.toml");
        let text = configuration(address, &control, &pin_dir, access_log, [&fixed, &dynamic]);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let log = directory.join("stderr.log");
        let mut command = clean(binary);
        // A group of its own: Ctrl-C is for us, who then end the device in order.
        command.arg("run").arg("--config").arg(&file).stdin(Stdio::null()).process_group(0);
        if access_log == "off" {
            command.stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        }
        let child = command.spawn().with_context(|| format!("{} did not start", binary.display()))?;
        let mut device =
            Self { address, control, pin_dir, fixed, dynamic, binary: binary.to_owned(), directory, child };
        device.wait_until_ready(&log)?;
        Ok(device)
    }

    /// The configuration file it runs with.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory.join("cmim.toml")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `cmim status --json` says.
    pub(crate) fn status(&self) -> Result<Value> {
        let output = Command::new(&self.binary).args(["status", "--json", "--control"]).arg(&self.control).output()?;
        if !output.status.success() {
            bail!("cmim status: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("cmim status --json is not JSON")
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("waiting for cmim")
    }

    /// SIGTERM, then waits for its end.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("cmim has no process id")?;
        kill_process(pid, Signal::TERM).map_err(io::Error::from).context("SIGTERM to cmim")?;
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("cmim had not ended {} s after SIGTERM", STOP_PATIENCE.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        // The device makes its control socket once its listeners are there.
        while UnixStream::connect(&self.control).is_err() {
            let said = || fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = self.ended()? {
                bail!("cmim ended at its start ({status})\n{}", said());
            }
            if Instant::now() > deadline {
                bail!("cmim was not ready after {} s\n{}", START_PATIENCE.as_secs(), said());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The wanted address, or another port when somebody has it.
fn free_address() -> Result<SocketAddr> {
    if TcpListener::bind(WANTED).is_ok() {
        return Ok(WANTED);
    }
    let other = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .context("no free loopback port")?;
    note("run", format!("{WANTED} is taken by another program: using {other}"));
    Ok(other)
}

fn configuration(
    address: SocketAddr,
    control: &Path,
    pin_dir: &Path,
    access_log: &str,
    [fixed, dynamic]: [&Server; 2],
) -> String {
    format!(
        r#"# Written by cargo xtask for the two demo servers.
[daemon]
control_socket = "{control}"
shutdown_grace = "{SHUTDOWN_GRACE}"

[kernel]
mode = "auto"
pin_dir = "{pin_dir}"
# The guard counts the demo's packets and lets all pass.
interfaces = ["lo"]

[access_log]
path = "{access_log}"

[[listener]]
name = "demo"
address = ["{address}"]
upstream = "dynamic"
routes = [{{ path = "/static/", upstream = "static" }}]

[[upstream]]
name = "dynamic"
servers = [{{ address = "{dynamic}" }}]

[[upstream]]
name = "static"
servers = [{{ address = "{fixed}" }}]
"#,
        control = control.display(),
        pin_dir = pin_dir.display(),
        dynamic = dynamic.address,
        fixed = fixed.address,
    )
}
