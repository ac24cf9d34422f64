//! A device with the kernel part and an interface of its own.

use std::process::Command;
use std::sync::OnceLock;

use crate::origin::faulty::ok;
use crate::{Client, Device, Namespace, ScriptedServer, Setup, skip};

/// The interface that the device guards, at 10.77.0.1; a client is at 10.77.0.2.
pub const INTERFACE: &str = "cmim0";
pub const PORT: u16 = 8080;

/// Whether `test` has to be skipped here, where no such device can be looked at.
pub fn skipped(test: &str) -> bool {
    if skip::without_root(test) || skip::without_tools(test, &["bpftool", "ip"]) {
        return true;
    }
    let mounted = bpf_file_system();
    if !mounted {
        skip::skipped(test, "no BPF file system on /sys/fs/bpf, and none can be mounted");
    }
    !mounted
}

/// Whether there is a BPF file system; mounts it once, where the host's init did not.
fn bpf_file_system() -> bool {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    let is_mounted = || std::fs::read_to_string("/proc/mounts").unwrap_or_default().contains(" /sys/fs/bpf bpf ");
    *MOUNTED.get_or_init(|| {
        is_mounted() || {
            let _ = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status();
            is_mounted()
        }
    })
}

/// A device in a namespace of its own, a client's namespace, and a server beside the device.
#[derive(Debug)]
pub struct Guarded {
    pub device: Device,
    pub server: ScriptedServer,
    pub outside: Namespace,
    pub inside: Namespace,
}

impl Guarded {
    pub fn start(mode: &'static str) -> Self {
        Self::start_with(mode, "")
    }

    /// With further lines of the `[kernel]` table.
    pub fn start_with(mode: &'static str, lines: &str) -> Self {
        Self::made(mode, lines, "")
    }

    /// With further lines of the `[daemon]` table as well.
    pub fn start_with_daemon(daemon: &str, lines: &str) -> Self {
        Self::made("required", lines, daemon)
    }

    fn made(mode: &'static str, lines: &str, daemon: &str) -> Self {
        let (inside, outside) = (Namespace::new(), Namespace::new());
        inside.join((INTERFACE, "10.77.0.1/24"), &outside, ("peer0", "10.77.0.2/24"));
        let server = inside.run(|| ScriptedServer::start(ok));
        let device = Setup::before(&[server.address()])
            .daemon(daemon)
            .listen_at(([10, 77, 0, 1], PORT).into())
            .kernel(mode, &format!("interfaces = [\"{INTERFACE}\"]\n{lines}"))
            .inside(&inside)
            .start();
        Self { device, server, outside, inside }
    }

    pub fn client(&self) -> Client {
        self.outside.run(|| self.device.client())
    }
}
