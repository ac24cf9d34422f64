//! What a device with this configuration would do, in a few lines for people: the answer of `cmim check`.

use std::fmt::Display;

use super::choice::Choice;
use super::model::{
    AccessLogPath, Balance, Config, Kernel, KernelMode, LengthRewrite, Listener, Server, Upstream, UpstreamIndex,
};
use super::print::hash_on;
use super::units::{format_duration, format_size};

/// Width of the first column.
const LABEL_WIDTH: usize = 10;

/// Servers named one by one; of more, only these and the number of the others.
const SERVERS_NAMED: usize = 4;

/// Few lines: who listens where and leads to which servers, what is held back, what is limited.
#[must_use]
pub fn describe(config: &Config) -> String {
    let mut text = Text::default();
    for listener in &config.listeners {
        describe_listener(&mut text, listener, &config.upstreams);
    }
    for upstream in &config.upstreams {
        describe_upstream(&mut text, upstream);
    }
    describe_buffer(&mut text, config);
    describe_limits(&mut text, config);
    describe_kernel(&mut text, config);
    describe_device(&mut text, config);
    text.lines
}

/// Lines under a label; the label is not repeated.
#[derive(Debug, Default)]
struct Text {
    lines: String,
}

impl Text {
    fn line(&mut self, label: &str, line: &str) {
        let line = format!("{label:LABEL_WIDTH$} {line}\n");
        self.lines.push_str(&line);
    }
}

fn describe_listener(text: &mut Text, listener: &Listener, upstreams: &[Upstream]) {
    let target = |index: UpstreamIndex| upstreams.get(index.0).map_or("?", |upstream| upstream.name.as_str());
    let addresses = joined(&listener.address);
    let default = target(listener.upstream);
    text.line("listener", &format!("{}: {addresses} -> {default}", listener.name));
    for route in &listener.routes {
        let host = route.host.as_deref().unwrap_or("any host, ");
        text.line("", &format!("{host}{} -> {}", route.path, target(route.upstream)));
    }
    let mut notes = vec![match listener.pipeline_depth {
        1 => "stacked requests are taken one after the other".to_owned(),
        depth => format!("up to {depth} stacked requests of a client are worked on at once"),
    }];
    if listener.accept_proxy_protocol {
        notes.push("PROXY protocol is expected".to_owned());
    }
    if !listener.trusted_proxies.is_empty() {
        notes.push(format!("forwarding fields are kept from {}", joined(&listener.trusted_proxies)));
    }
    if listener.allow_connect {
        notes.push("CONNECT is allowed".to_owned());
    }
    text.line("", &notes.join("; "));
}

fn describe_upstream(text: &mut Text, upstream: &Upstream) {
    let balance = match upstream.balance {
        Balance::Hash => format!("hash on {}", hash_on(&upstream.hash_on)),
        other => other.name().to_owned(),
    };
    let count = counted(upstream.servers.len(), "server");
    let named: Vec<String> = upstream.servers.iter().take(SERVERS_NAMED).map(server).collect();
    let others = upstream.servers.len().saturating_sub(SERVERS_NAMED);
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    text.line("upstream", &format!("{}: {balance} over {count}: {}{others}", upstream.name, named.join(", ")));
    let held = match upstream.length_rewrite {
        LengthRewrite::Auto => format!(
            "are held up to {} or {} to send their Content-Length, else streamed",
            format_duration(upstream.hold_time),
            format_size(upstream.hold_size)
        ),
        LengthRewrite::Always => "are held to their end and sent with Content-Length".to_owned(),
        LengthRewrite::Never => "are streamed at once".to_owned(),
    };
    text.line("", &format!("replies without a length {held}"));
    let queue = match upstream.queue_limit {
        0 => "no request waits when all servers are full".to_owned(),
        limit => format!("up to {limit} requests wait, {} at most", format_duration(upstream.queue_timeout)),
    };
    let retries = counted(usize::try_from(upstream.retries).unwrap_or(0), "retry");
    text.line("", &format!("{queue}; {retries}; {} idle connections are kept per server", upstream.max_idle));
    if upstream.server_pipeline > 1 {
        let most = upstream.server_pipeline;
        text.line("", &format!("up to {most} GET, HEAD or OPTIONS requests at once on one server connection"));
    }
    let health = upstream.health.as_ref().map_or_else(
        || "no health checks: failing requests take a server out".to_owned(),
        |health| format!("health check of {} every {}", health.path, format_duration(health.every)),
    );
    text.line("", &health);
}

fn server(server: &Server) -> String {
    let mut notes = Vec::new();
    if server.weight != 1 {
        notes.push(format!("weight {}", server.weight));
    }
    if let Some(most) = server.max_requests {
        notes.push(format!("at most {most} at once"));
    }
    if server.backup {
        notes.push("backup".to_owned());
    }
    if notes.is_empty() {
        return server.address.to_string();
    }
    format!("{} ({})", server.address, notes.join(", "))
}

fn describe_buffer(text: &mut Text, config: &Config) {
    let buffer = &config.buffer;
    let mut tiers =
        vec![format!("{} of RAM ({} per reply)", format_size(buffer.memory), format_size(buffer.memory_per_reply))];
    for tier in &buffer.tiers {
        tiers.push(format!("{} of {} in {}", format_size(tier.size), tier.kind.name(), tier.path.display()));
    }
    text.line("buffer", &tiers.join(", then "));
}

fn describe_limits(text: &mut Text, config: &Config) {
    let limits = &config.limits;
    let size = |bytes: usize| format_size(u64::try_from(bytes).unwrap_or(u64::MAX));
    text.line(
        "limits",
        &format!(
            "request head {} and {} fields, content {}; reply head {}",
            size(limits.request_head),
            limits.request_headers,
            format_size(limits.request_content),
            size(limits.reply_head)
        ),
    );
    let per_address =
        limits.client_connections_per_address.map_or_else(String::new, |most| format!(", {most} per address"));
    let timeouts = &config.timeouts;
    text.line(
        "",
        &format!(
            "{} client connections{per_address}; a client may idle {}, a server may take {} to its first byte",
            limits.client_connections,
            format_duration(timeouts.client_idle),
            format_duration(timeouts.server_first_byte)
        ),
    );
}

fn describe_kernel(text: &mut Text, config: &Config) {
    let kernel = &config.kernel;
    let mode = match kernel.mode {
        KernelMode::Off => {
            text.line("kernel", "off: everything is done in userspace");
            return;
        }
        KernelMode::Auto => "auto: what this host allows",
        KernelMode::Required => "required: no start without it",
    };
    let guard = if kernel.interfaces.is_empty() {
        "no guard".to_owned()
    } else {
        format!("guard on {} ({}; {})", kernel.interfaces.join(", "), kernel.xdp_mode.name(), syn_rates(kernel))
    };
    text.line("kernel", &format!("{mode}; {guard}; maps in {}", kernel.pin_dir.display()));
}

fn syn_rates(kernel: &Kernel) -> String {
    let rates = [(kernel.syn_rate_per_source, "source"), (kernel.syn_rate_per_listener, "listener")];
    let limited: Vec<String> =
        rates.iter().filter(|(rate, _)| *rate > 0).map(|(rate, whose)| format!("{rate} SYN/s per {whose}")).collect();
    if limited.is_empty() { "no SYN limits".to_owned() } else { limited.join(", ") }
}

fn describe_device(text: &mut Text, config: &Config) {
    let log = match &config.access_log.path {
        AccessLogPath::Stdout => format!("{} to stdout", config.access_log.format.name()),
        AccessLogPath::Off => "off".to_owned(),
        AccessLogPath::File(path) => format!("{} to {}", config.access_log.format.name(), path.display()),
    };
    text.line("log", &log);
    let daemon = &config.daemon;
    let user = daemon.user.as_ref().map_or_else(String::new, |user| format!(" as user {user}"));
    let metrics =
        daemon.metrics_address.map_or_else(|| "no metrics".to_owned(), |address| format!("metrics on {address}"));
    text.line(
        "device",
        &format!(
            "{}{user}; control socket {}; {metrics}; {} to finish on SIGTERM",
            counted(daemon.workers, "worker"),
            daemon.control_socket.display(),
            format_duration(daemon.shutdown_grace)
        ),
    );
}

fn joined<T: Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "retry") => format!("{count} retries"),
        _ => format!("{count} {noun}s"),
    }
}
