//! Brings the embedded BPF object into the kernel: its maps first, then each program.

use std::io::ErrorKind;

use aya::maps::sock::SockMapFd;
use aya::programs::{ProgramError, SkSkb, Xdp};
use aya::{Ebpf, EbpfLoader};
use cmim_common::names;
use cmim_common::splice::SocketLayout;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::KernelError;

#[cfg(bpf_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cmim-ebpf.o")));
#[cfg(not(bpf_object))]
const OBJECT: Option<&[u8]> = None;

/// How often a program is offered to a verifier that was interrupted.
const ATTEMPTS: usize = 5;

/// Whether this binary carries the kernel part.
#[must_use]
pub const fn is_built_in() -> bool {
    OBJECT.is_some()
}

/// What loading and attaching takes. CAP_PERFMON, because the verifier lets only its holders compute with addresses as
/// compiled Rust does, and use `bpf_probe_read_kernel`.
const NEEDED: [(&str, CapabilitySet); 3] = [
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
];

/// The capabilities that the kernel part needs and this thread does not have. CAP_SYS_ADMIN stands for all of them, as
/// in the kernel itself (`bpf_capable`, `perfmon_capable`).
#[must_use]
pub fn lacking_capabilities() -> Vec<&'static str> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.iter().filter(|(_, needed)| !effective.contains(*needed)).map(|(name, _)| *name).collect()
}

/// Creates all maps and prepares the programs; none is in the kernel yet. `has_cookies`: whether this kernel has the
/// helpers for the guard's SYN cookies; `layout`: where it keeps what the verdict and the local lane's programs read of
/// a socket.
///
/// # Errors
///
/// When the binary has no object, the process lacks the rights, or the kernel refuses a map.
pub(super) fn object(has_cookies: bool, layout: SocketLayout) -> Result<Ebpf, KernelError> {
    let Some(object) = OBJECT else {
        return Err(KernelError::NotBuilt);
    };
    let lacking = lacking_capabilities();
    if !lacking.is_empty() {
        return Err(KernelError::NotPermitted { lacking });
    }
    lift_locked_memory_limit();
    // No kernel types: what the programs want of them is in `layout`, and aya takes long to read all.
    EbpfLoader::new()
        .btf(None)
        .override_global(names::HAS_COOKIES, &u32::from(has_cookies), true)
        .override_global(names::SOCKET_LAYOUT, &layout, true)
        .load(object)
        .map_err(|source| KernelError::Load { source: Box::new(source) })
}

/// Loads the guard, attached to nothing.
///
/// # Errors
///
/// When the kernel refuses it.
pub fn guard(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut(names::GUARD).ok_or(KernelError::Absent { name: names::GUARD })?;
    let xdp: &mut Xdp = program.try_into().map_err(|source| refused(names::GUARD, source))?;
    verified(names::GUARD, || xdp.load())?;
    Ok(xdp)
}

/// Loads the verdict and attaches it to the sockhash. The attachment lasts as long as `ebpf` does.
///
/// # Errors
///
/// When the kernel refuses either.
pub fn verdict(ebpf: &mut Ebpf, sockets: &SockMapFd) -> Result<(), KernelError> {
    let name = names::VERDICT;
    let program = ebpf.program_mut(name).ok_or(KernelError::Absent { name })?;
    let verdict: &mut SkSkb = program.try_into().map_err(|source| refused(name, source))?;
    verified(name, || verdict.load())?;
    verdict.attach(sockets).map_err(|source| KernelError::Attach {
        name,
        target: names::SOCKETS.to_owned(),
        source: Box::new(source),
    })?;
    Ok(())
}

/// Loads a program. The verifier gives up when the process has a signal (EAGAIN), which says nothing of the program.
pub(super) fn verified(
    name: &'static str,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), KernelError> {
    let mut attempts = ATTEMPTS;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if attempts > 1 && io_error.kind() == ErrorKind::WouldBlock =>
            {
                attempts -= 1;
            }
            other => return other.map_err(|source| refused(name, source)),
        }
    }
}

pub(super) fn refused(name: &'static str, source: ProgramError) -> KernelError {
    if let ProgramError::LoadError { verifier_log, io_error } = source {
        let log = verifier_log.to_string();
        tracing::debug!(program = name, "{log}");
        return KernelError::Refused { name, complaint: complaint(&log), source: io_error };
    }
    KernelError::Program { name, source: Box::new(source) }
}

/// The verifier's last word: the line before its statistics.
fn complaint(log: &str) -> String {
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let before_statistics =
        lines.take_while(|line| !line.starts_with("verification time") && !line.starts_with("processed"));
    before_statistics.last().unwrap_or("no reason given").to_owned()
}

/// Kernels before 5.11 count maps against RLIMIT_MEMLOCK, whose default holds none of ours. Where it may not be lifted
/// the map's own error says so.
fn lift_locked_memory_limit() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn the_complaint_is_the_line_before_the_statistics() {
        let log = "0: R1=ctx()\n279: (77) r1 >>= 16\nR1 pointer arithmetic with >>= operator prohibited\n\
                   verification time 54128 usec\nstack depth 232\nprocessed 8782 insns\n";
        assert_eq!(complaint(log), "R1 pointer arithmetic with >>= operator prohibited");
        assert_eq!(complaint(""), "no reason given");
    }
}
