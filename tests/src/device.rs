//! The device under test: the real binary, from its start to its end.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::deadline::{PATIENCE, until, until_true};
use crate::ports::Reserved;
use crate::process::Process;
use crate::skip;

/// What `cmim run` writes when a connection's code has panicked: never right.
const PANIC: &str = "panicked at";

/// How a device is started, where that is not as the test itself runs.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    pub(crate) run_as: Option<RunAs>,
    pub(crate) open_files: Option<u32>,
    /// Nobody reads its stderr.
    pub(crate) unheard: bool,
}

/// Whom a device runs as, where that is not the test's own user with all his rights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RunAs {
    User(&'static str),
    /// Root with these capabilities (`CAP_BPF CAP_CHOWN`).
    RootWith(&'static str),
}

#[derive(Debug)]
pub struct Device {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) pin_dir: PathBuf,
    process: Process,
    directory: TempDir,
    ports: Vec<Reserved>,
}

impl Device {
    /// A device with the default test configuration before these servers, ready for connections.
    #[track_caller]
    pub fn before<S: AsRef<str>>(servers: &[S]) -> Self {
        crate::Setup::before(servers).start()
    }

    #[track_caller]
    pub(crate) fn launch(directory: TempDir, file: &Path, manner: &Manner) -> Self {
        let arguments = ["run".to_owned(), "--config".to_owned(), file.display().to_string()];
        let command = match manner.run_as {
            None => Command::new(binary()),
            Some(RunAs::User(user)) => as_user(user, directory.path()),
            Some(RunAs::RootWith(capabilities)) => as_root_with(capabilities),
        };
        let mut command = match manner.open_files {
            None => command,
            Some(most) => with_open_files(most, &command),
        };
        let start = if manner.unheard { Process::start_unheard } else { Process::start };
        let process = start("cmim", command.args(arguments));
        Self { addresses: Vec::new(), pin_dir: PathBuf::new(), process, directory, ports: Vec::new() }
    }

    pub(crate) fn keep(&mut self, ports: Vec<Reserved>) {
        self.ports = ports;
    }

    /// `cmim upgrade ARGUMENTS`, which succeeds: the process that has taken over. This one ends by itself.
    #[track_caller]
    pub fn upgrade(&self, arguments: &[&str]) -> Successor {
        let mut all = vec!["upgrade"];
        all.extend(arguments);
        let output = self.cmim(&all);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}; the device said: {}", self.output());
        let pid = said.strip_prefix("pid ").and_then(|rest| rest.split(' ').next()).and_then(|pid| pid.parse().ok());
        Successor { pid: pid.unwrap_or_else(|| panic!("no pid in `{said}`")), said }
    }

    /// Waits for the control socket: the device makes it once its listeners are there.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        until("the control socket answers", PATIENCE, || {
            self.process.assert_alive();
            UnixStream::connect(self.control()).ok()
        });
    }

    /// The first listener's address.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The bytes of RAM that it has.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("a living process");
        let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
        pages * rustix::param::page_size() as u64
    }

    /// The file that it was started with.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("cmim.toml")
    }

    /// Changes the text of that file; the device is not told.
    #[track_caller]
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let text = std::fs::read_to_string(self.file()).expect("the configuration");
        let changed = change(&text);
        assert_ne!(changed, text, "the edit found nothing to change");
        std::fs::write(self.file(), changed).expect("the configuration");
    }

    /// `cmim reload`, which succeeds; what it says.
    #[track_caller]
    pub fn reload(&self) -> String {
        let output = self.cmim(&["reload"]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "cmim reload: {out}{err}");
        out.into_owned()
    }

    /// What it wrote to stdout and stderr.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Waits until the device has said so; what it writes is read by a thread of its own.
    #[track_caller]
    pub fn wait_to_say(&self, words: &str) {
        until_true(&format!("the device says `{words}`"), PATIENCE, || self.output().contains(words));
    }

    /// Runs `cmim ARGUMENTS --control SOCKET`.
    pub fn cmim(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--control").arg(self.control()).output().expect("running cmim")
    }

    /// What `cmim ARGUMENTS --json` says.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.cmim(&all);
        assert!(
            output.status.success(),
            "cmim {all:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("cmim {all:?}: {error}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// One figure of the status, by its JSON pointer.
    #[track_caller]
    pub fn figure(&self, pointer: &str) -> u64 {
        let status = self.status();
        status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {pointer} in {status}"))
    }

    /// Waits until no request is in it, and nothing that one of them took is still taken; says how long that took.
    #[track_caller]
    pub fn wait_until_at_rest(&self, patience: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let status = self.status();
            let taken = taken(&status);
            let spent = start.elapsed();
            if taken.is_empty() {
                return spent;
            }
            assert!(spent < patience, "not at rest after {patience:?}: {taken:?} in {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The access log's lines so far.
    #[track_caller]
    pub fn access_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("log line `{line}`: {error}")))
            .collect()
    }

    /// Whether one of its programs is in the kernel.
    #[track_caller]
    pub fn has_program(&self, name: &str) -> bool {
        let status = self.status();
        status["kernel"]["programs"].as_array().into_iter().flatten().any(|program| program["name"] == name)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Runs `act` while the device stands still, so that it then finds all that was done at once.
    #[track_caller]
    pub fn paused<T>(&self, act: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        until_true("the device stands still", PATIENCE, || {
            std::fs::read_to_string(&stat)
                .is_ok_and(|text| text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
        });
        let done = act();
        self.signal(Signal::CONT);
        done
    }

    /// SIGTERM, and the exit status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(PATIENCE)
    }

    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        self.process.wait(patience)
    }

    pub fn running(&mut self) -> bool {
        self.process.try_status().is_none()
    }
}

/// A process that took a device's place, ended when the test is over.
#[derive(Debug)]
pub struct Successor {
    pub pid: u32,
    /// What the command said.
    pub said: String,
}

impl Successor {
    /// SIGTERM; returns once it has ended.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        until_true("the successor ends", PATIENCE, || !self.is_there());
    }

    fn is_there(&self) -> bool {
        // One that waits for its parent, which may be anybody by now, has ended.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended on its own.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let end = Instant::now() + Duration::from_secs(2);
        while self.is_there() {
            if Instant::now() > end {
                self.signal(Signal::KILL);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let output = self.process.output();
        if std::thread::panicking() {
            eprintln!("--- cmim (pid {}) said:\n{output}---", self.process.pid());
            return;
        }
        assert!(!output.contains(PANIC), "the device panicked:\n{output}");
    }
}

/// The figures that are not nothing although no request is in the device.
fn taken(status: &Value) -> Vec<String> {
    let lanes = ["copy", "pipe", "sockmap"].map(|lane| format!("/lanes/{lane}/active"));
    let mut pointers: Vec<String> =
        ["/jobs/active", "/jobs/queued", "/stacked/in_flight", "/buffers/memory/used"].map(str::to_owned).to_vec();
    pointers.extend(lanes);
    let servers = status["servers"].as_array().map_or(0, Vec::len);
    pointers.extend((0..servers).map(|server| format!("/servers/{server}/in_flight")));
    pointers.retain(|pointer| status.pointer(pointer) != Some(&Value::from(0)));
    pointers
}

/// The binary under test.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("CMIM_BIN") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "CMIM_BIN names {}, which is no file", path.display());
        return path;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around this package");
    let built = |profile: &str| root.join("target").join(profile).join("cmim");
    let age = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let candidates = [built("release"), built("test-device")];
    candidates.iter().filter(|path| age(path).is_some()).max_by_key(|path| age(path)).cloned().unwrap_or_else(|| {
        panic!("no cmim to test: build it (`cargo xtask build`) or name it with CMIM_BIN; looked for {candidates:?}")
    })
}

/// `command` with so many descriptors and no more.
fn with_open_files(most: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {most} && exec \"$0\" \"$@\"")).arg(command.get_program());
    limited.args(command.get_args());
    limited
}

/// The binary, run as a root whom permissions bind where he lacks the capability to ignore them.
fn as_root_with(capabilities: &str) -> Command {
    let names = capabilities.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_lowercase());
    let bounding: String = names.map(|name| format!(",+{name}")).collect();
    let mut command = Command::new(skip::find("setpriv").expect("setpriv"));
    command.args(["--bounding-set", &format!("-all{bounding}"), "--inh-caps=-all", "--no-new-privs"]).arg(binary());
    command
}

/// The binary, run as another user, who gets the directory and a copy of the binary that he can read.
fn as_user(user: &str, directory: &Path) -> Command {
    let copy = directory.join("cmim");
    // By a process of its own: a descriptor open for writing here would slip into whatever other tests start meanwhile,
    // and the copy could not be run ("text file busy").
    let copied = Command::new("cp").arg(binary()).arg(&copy).status().expect("running cp");
    assert!(copied.success(), "copying the binary: {copied}");
    for path in [directory, &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    let mut command = Command::new(skip::find("setpriv").expect("setpriv"));
    command.args(["--reuid", user, "--clear-groups", "--inh-caps=-all", "--no-new-privs"]).arg(copy);
    command
}
