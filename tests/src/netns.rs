//! Network namespaces of a test's own, and veth pairs between them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace, deleted on drop. Only its network is its own: files, and with them pinned maps, are the
/// host's (`ip netns exec` would remount /sys and hide them).
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A fresh namespace with its loopback up.
    pub fn new() -> Self {
        let name = format!("cmim-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        ip(&all);
    }

    /// Runs `act` on a thread inside: sockets and processes that it makes stay inside.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let namespace = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
                    act()
                })
                .join()
        });
        match outcome {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A veth pair: `(interface here, address/prefix)` and the same for `other`.
    pub fn join(&self, here: (&str, &str), other: &Self, there: (&str, &str)) {
        ip(&[
            "link",
            "add",
            here.0,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            there.0,
            "netns",
            &other.name,
        ]);
        for (namespace, (interface, address)) in [(self, here), (other, there)] {
            namespace.ip(&["address", "add", address, "dev", interface, "nodad"]);
            namespace.ip(&["link", "set", interface, "up"]);
        }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("running ip");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
