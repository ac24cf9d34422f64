//! What this host may refuse of the kernel part, each with its way out.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use cmim_common::names;
use thiserror::Error;

use crate::config::model::ListenAddress;

/// One thing that the kernel part could not do. Nothing is half done when it is returned, and trying again is safe.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error("this binary was built without the kernel part")]
    NotBuilt,
    #[error("this process may not use BPF (it lacks {})", lacking.join(" and "))]
    NotPermitted { lacking: Vec<&'static str> },
    #[error("the BPF object was refused")]
    Load {
        #[source]
        source: Box<aya::EbpfError>,
    },
    #[error("the BPF object has no {name}")]
    Absent { name: &'static str },
    #[error("map {name} failed")]
    Map {
        name: &'static str,
        #[source]
        source: Box<aya::maps::MapError>,
    },
    #[error("map {name} is full")]
    Full { name: &'static str },
    #[error("map {name} cannot be shared as memory")]
    Memory {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("this kernel has no {what}")]
    Unsupported { what: &'static str },
    #[error("listener \"{listener}\": nothing leads connections for {address} to it ({})", why.as_deref().unwrap_or("kernel.mode is \"off\""))]
    NotSteered { listener: String, address: ListenAddress, why: Option<String> },
    #[error("the verifier refused program {name}: {complaint}")]
    Refused {
        name: &'static str,
        complaint: String,
        #[source]
        source: io::Error,
    },
    #[error("program {name} was refused")]
    Program {
        name: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("there is no interface {interface}")]
    NoInterface { interface: String },
    #[error("program {name} could not be attached to {target}")]
    Attach {
        name: &'static str,
        target: String,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("interface {interface} has no Ethernet headers, and the guard reads nothing else")]
    NotEthernet { interface: String },
    #[error("interface {interface} is not guarded: {why}")]
    Unguarded { interface: String, why: String },
    #[error("{} belongs to a living cmim{}", path.display(), of_process(*owner))]
    PinDirTaken { path: PathBuf, owner: Option<u32> },
    #[error("{} is not on a BPF file system, so no map can be pinned", path.display())]
    NotBpffs { path: PathBuf, mount_point: PathBuf },
    #[error("the pin directory {} cannot be used", path.display())]
    PinDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("map {name} could not be pinned")]
    Pin {
        name: &'static str,
        #[source]
        source: aya::pin::PinError,
    },
    #[error("the log of the BPF programs cannot be read")]
    Log {
        #[source]
        source: aya_log::Error,
    },
    #[error("the lane {lane} does not work here")]
    SelfTest {
        lane: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("there is no mounted cgroup2 hierarchy, which the local lane needs")]
    NoCgroup,
    #[error("the local lane failed its trial: {what}")]
    LocalTrial { what: String },
    #[error("there is no kernel part running")]
    NotRunning,
    #[error("kernel.mode is \"required\", but {}", clauses(missing).join("; "))]
    Incomplete { missing: Vec<KernelError> },
    #[error("{}", clauses(failed).join("; "))]
    Several { failed: Vec<KernelError> },
}

impl KernelError {
    /// What an operator can do about it.
    #[must_use]
    pub fn way_out(&self) -> Option<String> {
        let way = match self {
            Self::NotBuilt => "run `cargo xtask build`".to_owned(),
            Self::NotPermitted { .. } => "start as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".to_owned(),
            Self::Load { .. } | Self::Map { .. } | Self::Program { .. } | Self::Refused { .. } => {
                "see `cmim doctor`".to_owned()
            }
            Self::Memory { .. } | Self::Unsupported { .. } => "see `cmim doctor`".to_owned(),
            Self::Full { name } => full(name).to_owned(),
            Self::NotSteered { .. } => {
                "a network or a range of ports needs the kernel part; name single addresses without it".to_owned()
            }
            Self::NoInterface { .. } => "`ip link` lists those there are; correct kernel.interfaces".to_owned(),
            Self::NotEthernet { .. } => {
                "take it out of kernel.interfaces; the interface that its packets come in by can be guarded".to_owned()
            }
            Self::Unguarded { interface: held, .. } | Self::Attach { target: held, .. } => {
                format!("`bpftool net` shows what holds {held}; kernel.xdp_mode = \"generic\" works with any driver")
            }
            Self::PinDirTaken { .. } => "give each daemon its own kernel.pin_dir".to_owned(),
            Self::NotBpffs { mount_point, .. } => format!("run `mount -t bpf bpf {}`", mount_point.display()),
            Self::PinDir { .. } | Self::Pin { .. } => "correct kernel.pin_dir or its permissions".to_owned(),
            Self::SelfTest { .. } => {
                "bring the loopback interface up, or use a newer kernel; the other lanes carry what it would".to_owned()
            }
            Self::NoCgroup => {
                "run `mount -t cgroup2 none /sys/fs/cgroup`, or set kernel.local_bypass to \"off\"".to_owned()
            }
            Self::LocalTrial { .. } => "set kernel.local_bypass to \"off\"".to_owned(),
            Self::NotRunning => "`cmim status` says why".to_owned(),
            Self::Absent { .. } | Self::Log { .. } => {
                "build binary and object together: `cargo xtask build`".to_owned()
            }
            Self::Incomplete { .. } | Self::Several { .. } => return None,
        };
        Some(way)
    }

    /// The error, its causes and the way out, in one line.
    #[must_use]
    pub fn clause(&self) -> String {
        let mut clause = self.told();
        if let Some(way) = self.way_out() {
            clause.push_str(" (");
            clause.push_str(&way);
            clause.push(')');
        }
        clause
    }

    /// The error and its causes, in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let mut clause = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Some causes repeat themselves, some have many lines; the first says what it is.
            if let Some(line) = error.to_string().lines().next().filter(|line| !clause.contains(line)) {
                clause.push_str(": ");
                clause.push_str(line);
            }
            cause = error.source();
        }
        clause
    }
}

/// What to do about a map without room.
fn full(name: &str) -> &'static str {
    match name {
        names::DENY_V4 | names::DENY_V6 => "deny larger networks instead of single addresses",
        names::STEERING => "listen on fewer ports; each port of a range takes an entry for each of its networks",
        _ => "it holds what one device is meant to serve; run another daemon",
    }
}

/// Each error as one line.
pub(super) fn clauses(errors: &[KernelError]) -> Vec<String> {
    errors.iter().map(KernelError::clause).collect()
}

fn of_process(owner: Option<u32>) -> String {
    owner.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::KernelError;
    use std::path::PathBuf;

    #[test]
    fn a_clause_names_the_thing_the_cause_and_the_way_out() {
        let source = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = KernelError::PinDir { path: PathBuf::from("/sys/fs/bpf/cmim"), source };
        assert_eq!(
            error.clause(),
            "the pin directory /sys/fs/bpf/cmim cannot be used: Permission denied (os error 13) \
             (correct kernel.pin_dir or its permissions)"
        );
    }

    #[test]
    fn required_names_everything_that_is_missing() {
        let missing = vec![KernelError::NotBuilt, KernelError::NoInterface { interface: "eth9".to_owned() }];
        let clause = KernelError::Incomplete { missing }.clause();
        assert!(clause.contains("cargo xtask build"), "{clause}");
        assert!(clause.contains("eth9"), "{clause}");
    }
}
