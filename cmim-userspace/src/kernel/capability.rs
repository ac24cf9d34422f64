//! What this kernel and this user allow: the findings of `cmim doctor`.
//!
//! Each one is found by trying (a tiny program or map is really loaded and thrown away) or by reading what the kernel
//! says of itself; no version number is believed.

mod lanes;

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use super::loaded::read_sysctl;
use super::{load, local, pin};
use crate::config::model::Kernel;

/// One thing that the kernel part needs, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    /// "object", "capability", "program", "map", "helper", "btf", "lane", "bpffs", "cgroup", "interface" or "sysctl".
    pub kind: &'static str,
    pub ok: bool,
    /// What was found, and what it is for.
    pub detail: String,
    /// What to do where it is not ok.
    pub way_out: Option<String>,
}

/// A program type and what the device wants it for.
const PROGRAMS: [(&str, ProgramType, &str); 6] = [
    ("xdp", ProgramType::Xdp, "guard"),
    ("sk_skb", ProgramType::SkSkb, "sockmap lane"),
    ("sk_msg", ProgramType::SkMsg, "local lane"),
    ("sock_ops", ProgramType::SockOps, "local lane"),
    ("sk_lookup", ProgramType::SkLookup, "steering: addresses, prefixes and port ranges"),
    ("sk_reuseport", ProgramType::SkReuseport, "steering: the least busy worker"),
];

const MAPS: [(&str, MapType, &str); 9] = [
    ("array", MapType::Array, "CMIM_SETTINGS, CMIM_WORKERS"),
    ("hash", MapType::Hash, "CMIM_CONNECTIONS, CMIM_LISTENERS, CMIM_PAIRS"),
    ("lru_hash", MapType::LruHash, "CMIM_SOURCES"),
    ("lpm_trie", MapType::LpmTrie, "CMIM_DENY_V4, CMIM_DENY_V6, CMIM_STEERING"),
    ("percpu_array", MapType::PerCpuArray, "CMIM_COUNTERS"),
    ("sockhash", MapType::SockHash, "CMIM_SOCKETS, CMIM_LOCAL"),
    ("sk_storage", MapType::SkStorage, "CMIM_ENDS"),
    ("ringbuf", MapType::RingBuf, "the programs' log"),
    ("sockmap", MapType::SockMap, "CMIM_LISTENING"),
];

const COOKIES: &str = "guard: SYN cookies under a flood";

const HELPERS: [(&str, ProgramType, BpfHelper, &str); 19] = [
    ("sk_redirect_hash", ProgramType::SkSkb, BpfHelper::BPF_FUNC_sk_redirect_hash, "sockmap lane"),
    ("skc_to_tcp_sock", ProgramType::SkSkb, BpfHelper::BPF_FUNC_skc_to_tcp_sock, "sockmap lane: its window"),
    ("probe_read_kernel", ProgramType::SkSkb, BpfHelper::BPF_FUNC_probe_read_kernel, "sockmap lane: its window"),
    ("msg_redirect_hash", ProgramType::SkMsg, BpfHelper::BPF_FUNC_msg_redirect_hash, "local lane"),
    ("sock_hash_update", ProgramType::SockOps, BpfHelper::BPF_FUNC_sock_hash_update, "local lane"),
    ("sk_storage_get", ProgramType::SockOps, BpfHelper::BPF_FUNC_sk_storage_get, "local lane"),
    ("get_netns_cookie", ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie, "local lane"),
    ("sk_storage_get (sk_msg)", ProgramType::SkMsg, BpfHelper::BPF_FUNC_sk_storage_get, "local lane"),
    ("probe_read_kernel (sk_msg)", ProgramType::SkMsg, BpfHelper::BPF_FUNC_probe_read_kernel, "local lane: its window"),
    ("sk_assign", ProgramType::SkLookup, BpfHelper::BPF_FUNC_sk_assign, "steering"),
    ("sk_select_reuseport", ProgramType::SkReuseport, BpfHelper::BPF_FUNC_sk_select_reuseport, "steering"),
    ("skc_lookup_tcp", ProgramType::Xdp, BpfHelper::BPF_FUNC_skc_lookup_tcp, COOKIES),
    ("tcp_gen_syncookie", ProgramType::Xdp, BpfHelper::BPF_FUNC_tcp_gen_syncookie, COOKIES),
    ("xdp_adjust_tail", ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_adjust_tail, COOKIES),
    ("xdp_load_bytes", ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes, COOKIES),
    ("xdp_store_bytes", ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_store_bytes, COOKIES),
    ("check_mtu", ProgramType::Xdp, BpfHelper::BPF_FUNC_check_mtu, COOKIES),
    ("tcp_raw_check_syncookie_ipv4", ProgramType::Xdp, BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv4, COOKIES),
    ("tcp_raw_check_syncookie_ipv6", ProgramType::Xdp, BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6, COOKIES),
];

const CAPABILITIES: [(&str, CapabilitySet, &str); 4] = [
    ("CAP_BPF", CapabilitySet::BPF, "loading programs and maps"),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN, "attaching programs to interfaces and sockets"),
    ("CAP_PERFMON", CapabilitySet::PERFMON, "the verifier lets programs compute with addresses"),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE, "listening on ports below 1024"),
];

/// A sysctl, the least number that is good, and what it is for.
const SYSCTLS: [(&str, u64, &str); 6] = [
    ("net.core.bpf_jit_enable", 1, "without the JIT programs are interpreted, many times slower"),
    ("net.core.rmem_max", 1 << 20, "socket buffers that hold a splice's window"),
    ("net.core.wmem_max", 1 << 20, "socket buffers that hold a splice's window"),
    ("net.core.somaxconn", 4_096, "connections that may wait for a worker to accept them"),
    ("net.ipv4.tcp_syncookies", 1, "without cookies of the kernel's own the guard can only drop what a flood sends"),
    ("net.ipv4.tcp_migrate_req", 1, "connections in the accept queue survive a worker's end"),
];

const ENABLE_KERNEL: &str = "use a kernel that has it (Linux 6.1 or newer, with CONFIG_BPF_SYSCALL and CONFIG_NET)";
const NEED_RIGHTS: &str = "ask as root: without CAP_BPF it cannot be tried";

/// Looks at everything that the kernel part needs of this host. `longest_head`: of a request, by the configuration.
#[must_use]
pub fn doctor(kernel: &Kernel, longest_head: usize) -> Vec<Finding> {
    let may_try = load::lacking_capabilities().is_empty();
    let mut findings = vec![object()];
    findings.extend(CAPABILITIES.map(|(name, capability, purpose)| has_capability(name, capability, purpose)));
    findings.push(unprivileged_bpf());
    findings.extend(PROGRAMS.map(|(name, program, purpose)| {
        tried(name, "program", purpose, may_try, || is_program_supported(program).map_err(|error| error.to_string()))
    }));
    findings.extend(MAPS.map(|(name, map, purpose)| {
        tried(name, "map", purpose, may_try, || is_map_supported(map).map_err(|error| error.to_string()))
    }));
    findings.extend(HELPERS.map(|(name, program, helper, purpose)| {
        let supported = || is_helper_supported(program, helper).map_err(|error| error.to_string());
        tried(name, "helper", purpose, may_try, supported)
    }));
    findings.push(btf());
    findings.extend(lanes::lanes(kernel, longest_head, may_try));
    findings.push(bpffs(&kernel.pin_dir));
    findings.push(cgroup());
    findings.extend(kernel.interfaces.iter().map(|name| interface(name)));
    findings.extend(SYSCTLS.map(|(name, least, purpose)| sysctl(name, least, purpose)));
    findings
}

fn finding(name: &str, kind: &'static str, ok: bool, detail: String, way_out: &str) -> Finding {
    Finding { name: name.to_owned(), kind, ok, detail, way_out: (!ok).then(|| way_out.to_owned()) }
}

fn object() -> Finding {
    let ok = load::is_built_in();
    let detail = if ok { "embedded in this binary" } else { "this binary was built without it" };
    finding("BPF object", "object", ok, detail.to_owned(), "run `cargo xtask build`")
}

fn has_capability(name: &str, capability: CapabilitySet, purpose: &str) -> Finding {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let ok = effective.contains(capability);
    let way_out = format!("start as root, or with AmbientCapabilities={name} in the systemd unit");
    finding(name, "capability", ok, purpose.to_owned(), &way_out)
}

/// Only told, never a fault: the daemon has the rights or does without.
fn unprivileged_bpf() -> Finding {
    let name = "kernel.unprivileged_bpf_disabled";
    let detail = match read_sysctl(name) {
        Some(0) => "0: every user may load simple programs; cmim's still need CAP_BPF".to_owned(),
        Some(value) => format!("{value}: BPF is for privileged processes only, as it should be"),
        None => "not there".to_owned(),
    };
    finding(name, "sysctl", true, detail, "")
}

fn tried(
    name: &str,
    kind: &'static str,
    purpose: &str,
    may_try: bool,
    supported: impl FnOnce() -> Result<bool, String>,
) -> Finding {
    if !may_try {
        return finding(name, kind, false, format!("not tried ({purpose})"), NEED_RIGHTS);
    }
    match supported() {
        Ok(true) => finding(name, kind, true, purpose.to_owned(), ""),
        Ok(false) => finding(name, kind, false, format!("this kernel has none ({purpose})"), ENABLE_KERNEL),
        Err(error) => finding(name, kind, false, format!("{error} ({purpose})"), ENABLE_KERNEL),
    }
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    let ok = Path::new(path).is_file();
    let detail = "the kernel's own types; the windows of the sockmap and local lanes are read with them".to_owned();
    finding(path, "btf", ok, detail, "use a kernel built with CONFIG_DEBUG_INFO_BTF")
}

fn bpffs(pin_dir: &Path) -> Finding {
    let existing = pin_dir.ancestors().find(|ancestor| ancestor.is_dir());
    let ok = existing.is_some_and(pin::is_bpffs);
    let detail = format!("{} {} on a BPF file system", pin_dir.display(), if ok { "is" } else { "is not" });
    let way_out = "run `mount -t bpf bpf /sys/fs/bpf`, or set kernel.pin_dir below a BPF file system";
    finding("kernel.pin_dir", "bpffs", ok, detail, way_out)
}

fn cgroup() -> Finding {
    let root = local::cgroup_root();
    let detail = root.as_ref().map_or_else(
        || "no cgroup2 hierarchy is mounted (local lane)".to_owned(),
        |root| format!("mounted at {} (local lane)", root.display()),
    );
    finding("cgroup2", "cgroup", root.is_some(), detail, "run `mount -t cgroup2 none /sys/fs/cgroup`")
}

fn interface(name: &str) -> Finding {
    // Not /sys/class/net: that shows the namespace it was mounted in.
    let ok = fs::read_to_string("/proc/self/net/dev").is_ok_and(|devices| {
        devices.lines().any(|line| line.trim_start().split_once(':').is_some_and(|(known, _)| known == name))
    });
    let detail = if ok { "the guard can be attached" } else { "there is no such interface" };
    finding(name, "interface", ok, detail.to_owned(), "`ip link` lists those there are; correct kernel.interfaces")
}

fn sysctl(name: &str, least: u64, purpose: &str) -> Finding {
    let way_out = format!("run `sysctl -w {name}={least}`");
    match read_sysctl(name) {
        Some(value) => finding(name, "sysctl", value >= least, format!("{value} ({purpose})"), &way_out),
        None => finding(name, "sysctl", false, format!("not there ({purpose})"), ENABLE_KERNEL),
    }
}
