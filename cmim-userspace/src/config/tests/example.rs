//! The file of the project's specification, key by key.

use std::path::PathBuf;
use std::time::Duration;

use super::{SMALLEST, read};
use crate::config::defaults;
use crate::config::model::{
    AccessLog, AccessLogFormat, AccessLogPath, Balance, Buffer, Daemon, HashOn, Health, Kernel, KernelMode,
    LengthRewrite, Limits, Listener, LocalBypass, RequestBuffering, Route, SendProxyProtocol, Server, ServerAddress,
    SpliceMode, Tier, TierKind, Timeouts, Upstream, UpstreamIndex, XdpMode,
};

pub(super) const EXAMPLE: &str = include_str!("example.toml");

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_example_s_device_is_read_as_written() {
    let config = read(EXAMPLE).unwrap();
    let daemon = Daemon {
        workers: defaults::workers(),
        control_socket: PathBuf::from("/run/cmim/control.sock"),
        user: Some("cmim".to_owned()),
        shutdown_grace: seconds(30),
        metrics_address: None,
    };
    let kernel = Kernel {
        mode: KernelMode::Auto,
        pin_dir: PathBuf::from("/sys/fs/bpf/cmim"),
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Auto,
        splice: SpliceMode::Auto,
        splice_min: 65_536,
        splice_window: 1_048_576,
        local_bypass: LocalBypass::Auto,
        syn_rate_per_source: 0,
        syn_rate_per_listener: 10_000,
    };
    let tier = |kind, path: &str, size| Tier { kind, path: PathBuf::from(path), size };
    let buffer = Buffer {
        memory: 268_435_456,
        memory_per_reply: 1_048_576,
        tiers: vec![
            tier(TierKind::Flash, "/var/cache/cmim/flash", 4 << 30),
            tier(TierKind::Disk, "/var/cache/cmim/disk", 64 << 30),
        ],
    };
    let limits = Limits {
        request_head: 32_768,
        request_headers: 100,
        request_target: 8192,
        request_content: 1 << 30,
        reply_head: 65_536,
        client_connections: 100_000,
        client_connections_per_address: None,
    };
    let timeouts = Timeouts {
        client_head: seconds(10),
        client_idle: seconds(60),
        client_write: seconds(60),
        server_connect: seconds(3),
        server_first_byte: seconds(60),
        server_idle: seconds(60),
        server_keep_alive: seconds(60),
    };
    let access_log = AccessLog {
        path: AccessLogPath::File(PathBuf::from("/var/log/cmim/access.log")),
        format: AccessLogFormat::Json,
    };
    assert_eq!(config.daemon, daemon);
    assert_eq!(config.kernel, kernel);
    assert_eq!(config.buffer, buffer);
    assert_eq!(config.limits, limits);
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.access_log, access_log);
}

#[test]
fn the_example_s_listener_is_read_as_written() {
    let config = read(EXAMPLE).unwrap();
    let listener = Listener {
        name: "web".to_owned(),
        address: vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()],
        upstream: UpstreamIndex(0),
        pipeline_depth: 16,
        accept_proxy_protocol: false,
        trusted_proxies: Vec::new(),
        routes: vec![Route {
            host: Some("img.example.org".to_owned()),
            path: "/static/".to_owned(),
            upstream: UpstreamIndex(1),
        }],
        allow_connect: false,
    };
    assert_eq!(config.listeners, [listener]);
}

#[test]
fn the_example_s_upstreams_are_read_as_written() {
    let config = read(EXAMPLE).unwrap();
    let server = |address| Server { address, weight: 1, max_requests: None, backup: false };
    let app = Upstream {
        name: "app".to_owned(),
        balance: Balance::LeastRequests,
        hash_on: HashOn::ClientAddress,
        length_rewrite: LengthRewrite::Auto,
        hold_time: seconds(2),
        hold_size: 64 << 20,
        request_buffering: RequestBuffering::Auto,
        max_idle: 64,
        server_pipeline: 1,
        retries: 2,
        queue_limit: 1024,
        queue_timeout: seconds(30),
        servers: vec![
            server(ServerAddress::Tcp("10.0.0.11:8080".parse().unwrap())),
            server(ServerAddress::Unix(PathBuf::from("/run/app.sock"))),
        ],
        health: Some(Health { path: "/healthz".to_owned(), every: seconds(2), timeout: seconds(1), rise: 2, fall: 3 }),
        send_proxy_protocol: SendProxyProtocol::Off,
    };
    let fixed = Server {
        address: ServerAddress::Tcp("[2001:db8::12]:80".parse().unwrap()),
        weight: 2,
        max_requests: Some(50),
        backup: true,
    };
    let fixed = Upstream { name: "static".to_owned(), servers: vec![fixed], health: None, ..app.clone() };
    assert_eq!(config.upstreams, [app, fixed]);
}

#[test]
fn a_file_with_an_address_and_a_server_has_the_defaults_for_all_else() {
    let config = read(SMALLEST).unwrap();
    let mut expected = defaults::config();
    expected.listeners[0].address = vec!["127.0.0.1:8080".parse().unwrap()];
    expected.upstreams[0].servers = vec![Server {
        address: ServerAddress::Tcp("127.0.0.1:9001".parse().unwrap()),
        weight: 1,
        max_requests: None,
        backup: false,
    }];
    assert_eq!(config, expected);
}

#[test]
fn unnamed_listeners_and_upstreams_get_names_that_are_free() {
    let text = "\
[[listener]]
address = \"127.0.0.1:1\"
upstream = \"app\"
[[listener]]
name = \"web\"
address = \"127.0.0.1:2\"
upstream = \"app-2\"
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
";
    let config = read(text).unwrap();
    let listeners: Vec<&str> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
    let upstreams: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(listeners, ["web-2", "web"]);
    assert_eq!(upstreams, ["app", "app-2"]);
    assert_eq!(config.listeners[1].upstream, UpstreamIndex(1));
}

#[test]
fn routes_are_tried_longest_host_first_then_longest_path() {
    let routes = r#"
routes = [
    { path = "/", upstream = "app" },
    { host = "b.org", upstream = "app" },
    { path = "/static/", upstream = "app" },
    { host = "IMG.b.org", path = "/a", upstream = "app" },
    { host = "img.b.org", path = "/a/b", upstream = "app" },
    { host = "b.org", path = "/long/path/", upstream = "app" },
]
[[upstream]]"#;
    let config = read(&SMALLEST.replace("[[upstream]]", routes)).unwrap();
    let order: Vec<(Option<&str>, &str)> =
        config.listeners[0].routes.iter().map(|route| (route.host.as_deref(), route.path.as_str())).collect();
    assert_eq!(
        order,
        [
            (Some("img.b.org"), "/a/b"),
            (Some("img.b.org"), "/a"),
            (Some("b.org"), "/long/path/"),
            (Some("b.org"), "/"),
            (None, "/static/"),
            (None, "/"),
        ]
    );
}

#[test]
fn values_that_mean_no_limit_or_never_are_taken() {
    let device = "\
daemon.shutdown_grace = \"0s\"
kernel.splice_min = 0
limits.client_connections_per_address = 0
buffer.memory = \"512KiB\"
";
    let upstream = "[[upstream]]\nmax_idle = 0\nretries = 0\nqueue_limit = 0\nhealth = {}";
    let config = read(&format!("{device}{}", SMALLEST.replace("[[upstream]]", upstream))).unwrap();
    assert_eq!(config.daemon.shutdown_grace, Duration::ZERO);
    assert_eq!(config.kernel.splice_min, 0);
    assert_eq!(config.limits.client_connections_per_address, None);
    assert_eq!(config.buffer.memory_per_reply, 512 << 10, "a share is never more than the whole");
    let app = &config.upstreams[0];
    assert_eq!((app.max_idle, app.retries, app.queue_limit), (0, 0, 0));
    assert_eq!(app.health, Some(defaults::health()));
}

#[test]
fn a_proxy_is_trusted_by_its_network_or_its_own_address() {
    let text = SMALLEST.replace("[[upstream]]", "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n[[upstream]]");
    let config = read(&text).unwrap();
    let listener = &config.listeners[0];
    assert!(listener.trusts("10.9.8.7".parse().unwrap()));
    assert!(listener.trusts("::1".parse().unwrap()));
    assert!(!listener.trusts("11.0.0.1".parse().unwrap()));
}
