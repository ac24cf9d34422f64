//! The default of every key: the one place where they are written.
//!
//! `validate` takes what a file leaves out from here, and `print` prints it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::{
    AccessLog, AccessLogFormat, AccessLogPath, Balance, Buffer, Config, Daemon, HashOn, Health, Kernel, KernelMode,
    LengthRewrite, Limits, Listener, LocalBypass, RequestBuffering, SendProxyProtocol, SpliceMode, TierKind, Timeouts,
    Upstream, UpstreamIndex, XdpMode,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Name of the first listener that has none; the others are `web-2` and so on.
pub(super) const LISTENER_NAME: &str = "web";
/// Name of the first upstream that has none; the others are `app-2` and so on.
pub(super) const UPSTREAM_NAME: &str = "app";

pub(super) const ROUTE_PATH: &str = "/";

pub(super) const SERVER_WEIGHT: usize = 1;

/// Where root's control socket stands.
pub(super) const ROOTS_CONTROL_SOCKET: &str = "/run/cmim/control.sock";

/// Where the control socket stands unless the configuration or a flag says otherwise: in root's run directory for
/// root, else in the user's own.
#[must_use]
pub fn default_control_socket() -> PathBuf {
    let user = rustix::process::geteuid();
    control_socket_of(user.as_raw(), std::env::var_os("XDG_RUNTIME_DIR").as_deref())
}

fn control_socket_of(user: u32, run_directory: Option<&OsStr>) -> PathBuf {
    const ROOT: u32 = 0;
    if user == ROOT {
        return PathBuf::from(ROOTS_CONTROL_SOCKET);
    }
    let run_directory = run_directory.map(Path::new).filter(|directory| directory.is_absolute());
    run_directory.map_or_else(
        || PathBuf::from(format!("/tmp/cmim-{user}/control.sock")),
        |directory| directory.join("cmim/control.sock"),
    )
}

/// One event loop for each CPU that this process may run on.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn daemon() -> Daemon {
    Daemon {
        workers: workers(),
        control_socket: default_control_socket(),
        user: None,
        shutdown_grace: Duration::from_secs(30),
        metrics_address: None,
    }
}

pub(super) fn kernel() -> Kernel {
    Kernel {
        mode: KernelMode::Auto,
        pin_dir: PathBuf::from("/sys/fs/bpf/cmim"),
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Auto,
        splice: SpliceMode::Auto,
        splice_min: 64 * KIB,
        splice_window: MIB,
        local_bypass: LocalBypass::Auto,
        // Whole companies and mobile networks share one address.
        syn_rate_per_source: 0,
        // Far above what one host serves of fresh connections, far below what its kernel can answer.
        syn_rate_per_listener: 10_000,
    }
}

pub(super) fn buffer() -> Buffer {
    Buffer { memory: 256 * MIB, memory_per_reply: MIB, tiers: Vec::new() }
}

pub(super) fn tier_path(kind: TierKind) -> PathBuf {
    PathBuf::from(match kind {
        TierKind::Flash => "/var/cache/cmim/flash",
        TierKind::Disk => "/var/cache/cmim/disk",
    })
}

pub(super) fn tier_size(kind: TierKind) -> u64 {
    match kind {
        TierKind::Flash => 4 * GIB,
        TierKind::Disk => 64 * GIB,
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        request_head: 32 << 10,
        request_headers: 100,
        request_target: 8 << 10,
        request_content: GIB,
        reply_head: 64 << 10,
        client_connections: 100_000,
        client_connections_per_address: None,
    }
}

pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        client_head: Duration::from_secs(10),
        client_idle: Duration::from_secs(60),
        client_write: Duration::from_secs(60),
        server_connect: Duration::from_secs(3),
        server_first_byte: Duration::from_secs(60),
        server_idle: Duration::from_secs(60),
        server_keep_alive: Duration::from_secs(60),
    }
}

/// The log of a device that has a file; without one it goes to stdout.
pub(super) fn access_log() -> AccessLog {
    AccessLog { path: AccessLogPath::File(PathBuf::from("/var/log/cmim/access.log")), format: AccessLogFormat::Json }
}

/// A listener without the address that every real one has.
pub(super) fn listener() -> Listener {
    Listener {
        name: LISTENER_NAME.to_owned(),
        address: Vec::new(),
        upstream: UpstreamIndex(0),
        pipeline_depth: 16,
        accept_proxy_protocol: false,
        trusted_proxies: Vec::new(),
        routes: Vec::new(),
        allow_connect: false,
    }
}

/// An upstream without the servers that every real one has.
pub(super) fn upstream() -> Upstream {
    Upstream {
        name: UPSTREAM_NAME.to_owned(),
        balance: Balance::LeastRequests,
        hash_on: HashOn::ClientAddress,
        length_rewrite: LengthRewrite::Auto,
        hold_time: Duration::from_secs(2),
        hold_size: 64 * MIB,
        request_buffering: RequestBuffering::Auto,
        max_idle: 64,
        server_pipeline: 1,
        retries: 2,
        queue_limit: 1024,
        queue_timeout: Duration::from_secs(30),
        servers: Vec::new(),
        health: None,
        send_proxy_protocol: SendProxyProtocol::Off,
    }
}

/// What a health table leaves out; without the table there are no checks.
pub(super) fn health() -> Health {
    Health {
        path: "/healthz".to_owned(),
        every: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    }
}

/// Every default at once, with one listener and one upstream, both without an address.
pub(super) fn config() -> Config {
    Config {
        daemon: daemon(),
        kernel: kernel(),
        buffer: buffer(),
        limits: limits(),
        timeouts: timeouts(),
        access_log: access_log(),
        listeners: vec![listener()],
        upstreams: vec![upstream()],
    }
}

#[cfg(test)]
mod tests {
    use super::control_socket_of;
    use std::ffi::OsStr;
    use std::path::Path;

    #[test]
    fn the_control_socket_stands_in_the_run_directory_of_its_user() {
        let run = Some(OsStr::new("/run/user/1000"));
        assert_eq!(control_socket_of(0, run), Path::new("/run/cmim/control.sock"));
        assert_eq!(control_socket_of(1000, run), Path::new("/run/user/1000/cmim/control.sock"));
        for unset in [None, Some(OsStr::new("")), Some(OsStr::new("run"))] {
            assert_eq!(control_socket_of(1000, unset), Path::new("/tmp/cmim-1000/control.sock"));
        }
    }
}
