//! A configuration for one device of one test, written piece by piece.
//!
//! Everything that two tests could share is the test's own: directory, control socket, pin directory, ports. The kernel part
//! is off unless asked for, so that most tests run as any user.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::device::{Device, Manner, RunAs};
use crate::netns::Namespace;
use crate::ports::Reserved;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The tables that a test may add lines to.
#[derive(Debug, Default)]
struct Tables {
    daemon: String,
    kernel: String,
    buffer: String,
    limits: String,
    timeouts: String,
    listener: String,
    upstream: String,
    rest: String,
}

#[derive(Debug)]
pub struct Setup<'a> {
    servers: Vec<String>,
    tables: Tables,
    ports: Vec<Reserved>,
    addresses: Vec<SocketAddr>,
    namespace: Option<&'a Namespace>,
    workers: usize,
    kernel_mode: &'static str,
    manner: Manner,
    access_log: &'static str,
    directory: TempDir,
    pin_dir: PathBuf,
}

impl<'a> Setup<'a> {
    /// A device before servers at these addresses, listening on a port of its own on 127.0.0.1.
    pub fn before<S: AsRef<str>>(servers: &[S]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            servers: servers.iter().map(|address| format!("{{ address = \"{}\" }}", address.as_ref())).collect(),
            tables: Tables::default(),
            ports: Vec::new(),
            addresses: Vec::new(),
            namespace: None,
            workers: 2,
            kernel_mode: "off",
            manner: Manner::default(),
            access_log: "access.log",
            directory: tempfile::Builder::new().prefix("cmim-test-").tempdir().expect("a directory"),
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/cmim-test-{}-{number}", std::process::id())),
        }
    }

    /// One more server, as an inline table's inside: `address = "…", weight = 3`.
    pub fn server(mut self, inside: &str) -> Self {
        self.servers.push(format!("{{ {inside} }}"));
        self
    }

    pub fn daemon(mut self, lines: &str) -> Self {
        add(&mut self.tables.daemon, lines);
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn buffer(mut self, lines: &str) -> Self {
        add(&mut self.tables.buffer, lines);
        self
    }

    pub fn limits(mut self, lines: &str) -> Self {
        add(&mut self.tables.limits, lines);
        self
    }

    pub fn timeouts(mut self, lines: &str) -> Self {
        add(&mut self.tables.timeouts, lines);
        self
    }

    pub fn listener(mut self, lines: &str) -> Self {
        add(&mut self.tables.listener, lines);
        self
    }

    pub fn upstream(mut self, lines: &str) -> Self {
        add(&mut self.tables.upstream, lines);
        self
    }

    /// Whole tables behind all others: further listeners and upstreams.
    pub fn tables(mut self, lines: &str) -> Self {
        add(&mut self.tables.rest, lines);
        self
    }

    /// Switches the kernel part on: `auto` or `required`, with further lines of its table.
    pub fn kernel(mut self, mode: &'static str, lines: &str) -> Self {
        self.kernel_mode = mode;
        add(&mut self.tables.kernel, lines);
        self
    }

    /// Listens on `ip` too, on a port of the kernel's choice; the first call replaces the default.
    pub fn listen_on(mut self, ip: IpAddr) -> Self {
        let port = Reserved::on(ip);
        self.addresses.push(port.address());
        self.ports.push(port);
        self
    }

    /// Listens on exactly `address`; for ports that the caller has, and for namespaces.
    pub fn listen_at(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    pub fn inside(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Runs the device as this user instead of the test's own.
    pub fn as_user(mut self, name: &'static str) -> Self {
        self.manner.run_as = Some(RunAs::User(name));
        self
    }

    /// Lets the device have so many descriptors and no more.
    pub fn open_files(mut self, most: u32) -> Self {
        self.manner.open_files = Some(most);
        self
    }

    /// Where the access log is, in the device's directory.
    pub fn access_log(mut self, path: &'static str) -> Self {
        self.access_log = path;
        self
    }

    /// Every user may enter the device's directory, which is the test's own else.
    pub fn open_to_all(self) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.directory.path(), mode).expect("permissions");
        self
    }

    /// Nobody reads the device's stderr: writing to it fails.
    pub fn unheard(mut self) -> Self {
        self.manner.unheard = true;
        self
    }

    /// Runs the device as a root who has these capabilities and no others, as they stand in a unit's
    /// `CapabilityBoundingSet=`.
    pub fn with_rights(mut self, capabilities: &'static str) -> Self {
        self.manner.run_as = Some(RunAs::RootWith(capabilities));
        self
    }

    /// Pins where another device did: for its successor.
    pub fn pinned_at(mut self, pin_dir: &Path) -> Self {
        pin_dir.clone_into(&mut self.pin_dir);
        self
    }

    /// Starts the device and waits until it accepts connections.
    #[track_caller]
    pub fn start(self) -> Device {
        let mut device = self.launch();
        device.wait_until_ready();
        device
    }

    /// Starts the device and waits for nothing: for one that should refuse to run.
    #[track_caller]
    pub fn launch(mut self) -> Device {
        if self.addresses.is_empty() {
            self = self.listen_on(IpAddr::from([127, 0, 0, 1]));
        }
        let file = self.directory.path().join("cmim.toml");
        std::fs::write(&file, self.text()).expect("a configuration");
        let Self { ports, addresses, namespace, manner, directory, pin_dir, .. } = self;
        let start = || Device::launch(directory, &file, &manner);
        let mut device = match namespace {
            Some(namespace) => namespace.run(start),
            None => start(),
        };
        device.addresses = addresses;
        device.pin_dir = pin_dir;
        device.keep(ports);
        device
    }

    fn text(&self) -> String {
        let directory = self.directory.path().display();
        let addresses: Vec<String> = self.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let Tables { daemon, kernel, buffer, limits, timeouts, listener, upstream, rest } = &self.tables;
        let mut text = String::new();
        let mut table = |head: &str, own: String, added: &str| {
            writeln!(text, "{head}\n{own}{added}").expect("writing to a string");
        };
        table(
            "[daemon]",
            format!(
                "workers = {}\ncontrol_socket = \"{directory}/control.sock\"\nshutdown_grace = \"5s\"\n",
                self.workers
            ),
            daemon,
        );
        table(
            "[kernel]",
            format!("mode = \"{}\"\npin_dir = \"{}\"\n", self.kernel_mode, self.pin_dir.display()),
            kernel,
        );
        table("[buffer]", String::new(), buffer);
        table("[limits]", String::new(), limits);
        table("[timeouts]", String::new(), timeouts);
        table("[access_log]", format!("path = \"{directory}/{}\"\n", self.access_log), "");
        table(
            "[[listener]]",
            format!("name = \"web\"\naddress = [{}]\nupstream = \"app\"\n", addresses.join(", ")),
            listener,
        );
        table("[[upstream]]", format!("name = \"app\"\nservers = [{}]\n", self.servers.join(", ")), upstream);
        table("", String::new(), rest);
        text
    }
}

fn add(table: &mut String, lines: &str) {
    table.push_str(lines);
    table.push('\n');
}
