//! A configuration as TOML: the commented defaults, and the effective values of a running device.
//!
//! Both are the same list of lines. The defaults keep the comments and the examples of keys that are absent; the
//! effective configuration keeps the values only and loads again to an equal one.

use super::choice::{Choice, listed};
use super::defaults;
use super::lines::{Block, Line, Style, duration, list, path, quoted, rows, size};
use super::model::{
    AccessLog, AccessLogFormat, AccessLogPath, Balance, Buffer, Config, Daemon, HashOn, Health, Kernel, KernelMode,
    LengthRewrite, Limits, Listener, LocalBypass, RequestBuffering, Route, SendProxyProtocol, Server, SpliceMode, Tier,
    TierKind, Timeouts, Upstream, UpstreamIndex, XdpMode,
};

const HEAD: &str = "\
# Every key of cmim with its default. Only a listener's `address` and an upstream's `servers` have none: take the
# \"# \" away in front of them, put yours, and this file is whole. Keys that you leave out keep the value shown here.
# Sizes are \"64KiB\", \"256MiB\", \"4GiB\" or a number of bytes; durations are \"250ms\", \"10s\", \"5m\", \"1h\".
";

/// The defaults of every key with what it means, for `cmim config defaults`.
#[must_use]
pub fn defaults_text() -> String {
    let mut blocks = blocks(&defaults::config());
    // Here the default itself is meant, not what it comes to on this host and for this user.
    for line in blocks.iter_mut().flat_map(|block| &mut block.lines) {
        match line.key {
            "workers" => line.value = quoted("auto"),
            "control_socket" => line.leave_out(quoted(defaults::ROOTS_CONTROL_SOCKET)),
            _ => {}
        }
    }
    let mut text = HEAD.to_owned();
    for block in &blocks {
        block.render(&mut text, Style::Commented);
    }
    text
}

/// The whole configuration in the file's keys, for `cmim config show`.
#[must_use]
pub fn to_toml(config: &Config) -> String {
    let mut text = String::new();
    for block in &blocks(config) {
        block.render(&mut text, Style::ValuesOnly);
    }
    text.trim_start().to_owned()
}

fn blocks(config: &Config) -> Vec<Block> {
    let mut blocks = vec![
        Block::new("[daemon]", daemon(&config.daemon)),
        Block::new("[kernel]", kernel(&config.kernel)),
        Block::new("[buffer]", buffer(&config.buffer)),
    ];
    blocks.extend(tiers(&config.buffer.tiers));
    blocks.push(Block::new("[limits]", limits(&config.limits)));
    blocks.push(Block::new("[timeouts]", timeouts(&config.timeouts)));
    blocks.push(Block::new("[access_log]", access_log(&config.access_log)));
    for each in &config.listeners {
        blocks.push(Block::new("[[listener]]", listener(each, &config.upstreams)));
    }
    for each in &config.upstreams {
        blocks.push(Block::new("[[upstream]]", upstream(each)));
    }
    blocks
}

fn daemon(daemon: &Daemon) -> Vec<Line> {
    let metrics = daemon.metrics_address.map(quoted);
    vec![
        Line::new("workers", daemon.workers.to_string(), "\"auto\": one event loop per CPU; or a number"),
        Line::new(
            "control_socket",
            path(&daemon.control_socket),
            "root's; absent, another user has $XDG_RUNTIME_DIR/cmim/control.sock",
        ),
        Line::optional(
            "user",
            daemon.user.as_ref().map(quoted),
            "\"cmim\"",
            "dropped to once the kernel part is loaded; absent: stay who you are",
        ),
        Line::new("shutdown_grace", duration(daemon.shutdown_grace), "how long requests may go on after SIGTERM"),
        Line::optional(
            "metrics_address",
            metrics,
            "\"127.0.0.1:9900\"",
            "Prometheus /metrics, /healthz, /readyz and the status page; absent: none",
        ),
    ]
}

fn kernel(kernel: &Kernel) -> Vec<Line> {
    vec![
        choice::<KernelMode>("mode", kernel.mode, "auto: what this host allows, and say what is missing"),
        Line::new("pin_dir", path(&kernel.pin_dir), "where the maps are pinned for bpftool"),
        Line::new("interfaces", list(&kernel.interfaces), "the XDP guard is attached to these, such as [\"eth0\"]"),
        choice::<XdpMode>("xdp_mode", kernel.xdp_mode, "auto: native, else generic"),
        choice::<SpliceMode>("splice", kernel.splice, "the lane of large contents"),
        Line::new("splice_min", size(kernel.splice_min), "smaller contents are copied"),
        Line::new(
            "splice_window",
            size(kernel.splice_window),
            "most bytes in flight between the two sockets of one splice",
        ),
        choice::<LocalBypass>("local_bypass", kernel.local_bypass, "shortcut to servers on this host"),
        Line::new(
            "syn_rate_per_source",
            kernel.syn_rate_per_source.to_string(),
            "SYNs a second of one address (IPv6: one /64) to listeners, more are dropped; 0: no limit",
        ),
        Line::new(
            "syn_rate_per_listener",
            kernel.syn_rate_per_listener.to_string(),
            "SYNs a second to one address, from where on the guard answers with SYN cookies; 0: never",
        ),
    ]
}

fn buffer(buffer: &Buffer) -> Vec<Line> {
    vec![
        Line::new("memory", size(buffer.memory), "RAM tier of the whole device"),
        Line::new(
            "memory_per_reply",
            size(buffer.memory_per_reply),
            "one reply's share of RAM before it moves on to the next tier",
        ),
    ]
}

/// The tiers; without any, an example of each kind.
fn tiers(tiers: &[Tier]) -> Vec<Block> {
    const HEADER: &str = "[[buffer.tier]]";
    let lines = |tier: &Tier| {
        vec![
            choice::<TierKind>("kind", tier.kind, "each at most once, tried in the order of the file"),
            Line::new("path", path(&tier.path), ""),
            Line::new("size", size(tier.size), ""),
        ]
    };
    if !tiers.is_empty() {
        return tiers.iter().map(|tier| Block::new(HEADER, lines(tier))).collect();
    }
    let example = |kind| {
        let tier = Tier { kind, path: defaults::tier_path(kind), size: defaults::tier_size(kind) };
        Block::example(HEADER, lines(&tier))
    };
    TierKind::NAMES.iter().map(|(_, kind)| example(*kind)).collect()
}

fn limits(limits: &Limits) -> Vec<Line> {
    let per_address = limits.client_connections_per_address.unwrap_or(0);
    vec![
        Line::new("request_head", size(limits.request_head), "431 above"),
        Line::new("request_headers", limits.request_headers.to_string(), "431 above"),
        Line::new("request_target", size(limits.request_target), "414 above"),
        Line::new("request_content", size(limits.request_content), "413 above"),
        Line::new("reply_head", size(limits.reply_head), "502 above"),
        Line::new("client_connections", limits.client_connections.to_string(), "further ones wait in the accept queue"),
        Line::new("client_connections_per_address", per_address.to_string(), "0: no limit"),
    ]
}

fn timeouts(timeouts: &Timeouts) -> Vec<Line> {
    vec![
        Line::new("client_head", duration(timeouts.client_head), "from the first byte of a head to its end; 408"),
        Line::new("client_idle", duration(timeouts.client_idle), "keep-alive"),
        Line::new("client_write", duration(timeouts.client_write), "no progress sending to a client"),
        Line::new("server_connect", duration(timeouts.server_connect), "504 after the retries"),
        Line::new("server_first_byte", duration(timeouts.server_first_byte), "504"),
        Line::new("server_idle", duration(timeouts.server_idle), "no progress in a reply"),
        Line::new(
            "server_keep_alive",
            duration(timeouts.server_keep_alive),
            "a pooled idle connection is closed after this",
        ),
    ]
}

fn access_log(log: &AccessLog) -> Vec<Line> {
    let target = match &log.path {
        AccessLogPath::Stdout => quoted("stdout"),
        AccessLogPath::Off => quoted("off"),
        AccessLogPath::File(file) => path(file),
    };
    vec![
        Line::new("path", target, "or \"stdout\" (the default without a file), \"off\""),
        choice::<AccessLogFormat>("format", log.format, ""),
    ]
}

fn listener(listener: &Listener, upstreams: &[Upstream]) -> Vec<Line> {
    let routes = (!listener.routes.is_empty()).then(|| rows(&listener.routes, |row| route(row, upstreams)));
    let addresses = (!listener.address.is_empty()).then(|| list(&listener.address));
    vec![
        Line::new("name", quoted(&listener.name), ""),
        Line::optional(
            "address",
            addresses,
            "[\"0.0.0.0:80\", \"[::]:80\"]",
            "one or a list; \"203.0.113.0/24:80-89\" is a network with its ports (needs the kernel part)",
        ),
        Line::new("upstream", upstream_name(listener.upstream, upstreams), "where no route fits"),
        Line::new(
            "pipeline_depth",
            listener.pipeline_depth.to_string(),
            "stacked requests read ahead on one client connection; 1: no distribution",
        ),
        Line::new("accept_proxy_protocol", listener.accept_proxy_protocol.to_string(), "v1 and v2"),
        Line::new(
            "trusted_proxies",
            list(&listener.trusted_proxies),
            "networks whose X-Forwarded-* and Forwarded are kept, such as [\"10.0.0.0/8\"]",
        ),
        Line::optional(
            "routes",
            routes,
            "[{ host = \"img.example.org\", path = \"/static/\", upstream = \"app\" }]",
            "longest host, then longest path prefix; absent: none",
        ),
        Line::new("allow_connect", listener.allow_connect.to_string(), "false: CONNECT is answered 405"),
    ]
}

fn upstream(upstream: &Upstream) -> Vec<Line> {
    let servers = (!upstream.servers.is_empty()).then(|| rows(&upstream.servers, server));
    let mut lines = vec![
        Line::new("name", quoted(&upstream.name), ""),
        Line::optional(
            "servers",
            servers,
            "[{ address = \"127.0.0.1:9001\", weight = 1, max_requests = 0, backup = false }]",
            "an address may be \"unix:/run/app.sock\" too; max_requests: in flight at once, 0: no limit",
        ),
        choice::<Balance>("balance", upstream.balance, ""),
        Line::new("hash_on", quoted(hash_on(&upstream.hash_on)), "client-address | target | header:NAME | cookie:NAME"),
    ];
    lines.extend(holding(upstream));
    lines.extend([
        Line::new("max_idle", upstream.max_idle.to_string(), "pooled idle connections per server"),
        Line::new(
            "server_pipeline",
            upstream.server_pipeline.to_string(),
            "requests at once on one server connection; 1: off",
        ),
        Line::new("retries", upstream.retries.to_string(), "of a request that no server has begun to answer"),
        Line::new(
            "queue_limit",
            upstream.queue_limit.to_string(),
            "requests waiting for this upstream; 503 with Retry-After above",
        ),
        Line::new("queue_timeout", duration(upstream.queue_timeout), "503"),
        Line::optional(
            "health",
            upstream.health.as_ref().map(health),
            &health(&defaults::health()),
            "absent: passive only",
        ),
        choice::<SendProxyProtocol>("send_proxy_protocol", upstream.send_proxy_protocol, ""),
    ]);
    lines
}

fn holding(upstream: &Upstream) -> [Line; 4] {
    [
        choice::<LengthRewrite>(
            "length_rewrite",
            upstream.length_rewrite,
            "whether a reply without a length is held to learn it",
        ),
        Line::new(
            "hold_time",
            duration(upstream.hold_time),
            "auto: longest time a reply is held back to learn its length",
        ),
        Line::new("hold_size", size(upstream.hold_size), "auto: largest reply that is held back"),
        choice::<RequestBuffering>("request_buffering", upstream.request_buffering, ""),
    ]
}

fn choice<T: Choice>(key: &'static str, value: T, comment: &str) -> Line {
    let names = listed::<T>();
    let comment = if comment.is_empty() { names } else { format!("{names}; {comment}") };
    Line::new(key, quoted(value.name()), comment)
}

fn route(route: &Route, upstreams: &[Upstream]) -> String {
    let host = route.host.as_ref().map(|host| format!("host = {}, ", quoted(host)));
    format!(
        "{{ {}path = {}, upstream = {} }}",
        host.unwrap_or_default(),
        quoted(&route.path),
        upstream_name(route.upstream, upstreams)
    )
}

fn server(server: &Server) -> String {
    format!(
        "{{ address = {}, weight = {}, max_requests = {}, backup = {} }}",
        quoted(&server.address),
        server.weight,
        server.max_requests.unwrap_or(0),
        server.backup
    )
}

fn health(health: &Health) -> String {
    format!(
        "{{ path = {}, every = {}, timeout = {}, rise = {}, fall = {} }}",
        quoted(&health.path),
        duration(health.every),
        duration(health.timeout),
        health.rise,
        health.fall
    )
}

pub(super) fn hash_on(hash_on: &HashOn) -> String {
    match hash_on {
        HashOn::ClientAddress => "client-address".to_owned(),
        HashOn::Target => "target".to_owned(),
        HashOn::Header(name) => format!("header:{name}"),
        HashOn::Cookie(name) => format!("cookie:{name}"),
    }
}

fn upstream_name(index: UpstreamIndex, upstreams: &[Upstream]) -> String {
    upstreams.get(index.0).map_or_else(String::new, |upstream| quoted(&upstream.name))
}
