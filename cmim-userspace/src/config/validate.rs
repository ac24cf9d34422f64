//! From the raw [`super::document`] to the valid [`Config`], with every error on the way.
//!
//! Owns the keys of the device as a whole; those of listeners and upstreams have their own files beside this one.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{
    EXPECTED_INTERFACE, EXPECTED_LISTEN, EXPECTED_PATH, parse_absolute, parse_control_socket, parse_interface,
    parse_one_address,
};
use super::choice::{self, Choice};
use super::defaults;
use super::document::{Node, Table, Value};
use super::error::{ConfigErrors, Unfit, nearest, quoted};
use super::listen_address::ListenAddress;
use super::listener;
use super::model::{
    AccessLog, AccessLogFormat, AccessLogPath, Buffer, Config, Daemon, Kernel, KernelMode, Limits, LocalBypass,
    SpliceMode, Tier, TierKind, Timeouts, XdpMode,
};
use super::section::{LARGEST_COUNT, Report, Section, Unique};
use super::units::format_size;
use super::upstream;

/// Most event loops. More than the CPUs of any host would only cost memory.
const MOST_WORKERS: usize = 1024;

/// Largest head that can be allowed: a head is held in RAM as a whole, once per connection.
const LARGEST_HEAD: u64 = 16 << 20;

/// Most header fields that can be allowed; each costs an entry of the parser's table.
const MOST_HEADERS: usize = 10_000;

const EXPECTED_WORKERS: &str = "\"auto\" or a whole number from 1 to 1024";
const EXPECTED_LOG: &str = "\"stdout\", \"off\" or an absolute path";

const ADD_LISTENER: &str = "add a section [[listener]] with an address, such as address = \"0.0.0.0:80\"";
const ADD_UPSTREAM: &str =
    "add a section [[upstream]] with its servers, such as servers = [{ address = \"127.0.0.1:9001\" }]";

/// Timeouts of nothing would end every connection at once.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// Reads a whole document.
pub(super) fn validate(document: &Node) -> Result<Config, ConfigErrors> {
    let empty = Table::default();
    let table = match &document.value {
        Value::Table(table) => table,
        _ => &empty,
    };
    let report = Report::default();
    let config = config(Section::root(table, document.place.clone(), &report));
    let errors = report.into_errors();
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors::new(errors)) }
}

fn config(mut root: Section<'_>) -> Config {
    let mut addresses = Unique::new("address");
    let daemon = daemon(root.section("daemon"), &mut addresses);
    let kernel = kernel(root.section("kernel"));
    let buffer = buffer(root.section("buffer"));
    let limits = limits(root.section("limits"));
    let timeouts = timeouts(root.section("timeouts"));
    let access_log = access_log(root.section("access_log"));
    let listener_sections = root.need_sections("listener", ADD_LISTENER);
    let upstreams = upstream::upstreams(root.need_sections("upstream", ADD_UPSTREAM));
    let listeners = listener::listeners(listener_sections, kernel.mode, &upstreams, &mut addresses);
    root.close();
    Config { daemon, kernel, buffer, limits, timeouts, access_log, listeners, upstreams }
}

fn daemon(mut section: Section<'_>, addresses: &mut Unique<ListenAddress>) -> Daemon {
    let default = defaults::daemon();
    let metrics = section.find("metrics_address");
    let metrics_address = metrics.and_then(|found| {
        let address = found.parsed(EXPECTED_LISTEN, parse_one_address)?;
        // A free port is nobody else's.
        if address.port() != 0 {
            addresses.admit(address.into(), &found);
        }
        Some(address)
    });
    let daemon = Daemon {
        workers: workers(&mut section, default.workers),
        control_socket: section
            .parsed("control_socket", EXPECTED_PATH, parse_control_socket)
            .unwrap_or(default.control_socket),
        user: section.parsed("user", EXPECTED_USER, parse_user),
        shutdown_grace: section.duration("shutdown_grace", default.shutdown_grace, Duration::ZERO),
        metrics_address,
    };
    section.close();
    daemon
}

const EXPECTED_USER: &str = "the name of a user, such as \"cmim\"";

fn parse_user(text: &str) -> Result<String, Unfit> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    fits.then(|| text.to_owned()).ok_or_else(|| Unfit::new(EXPECTED_USER))
}

fn workers(section: &mut Section<'_>, auto: usize) -> usize {
    let Some(found) = section.find("workers") else {
        return auto;
    };
    let read = if found.is_integer() {
        found.count(&(1..=MOST_WORKERS))
    } else {
        found.parsed(EXPECTED_WORKERS, |text| match text {
            "auto" => Ok(auto),
            _ => Err(Unfit::new(EXPECTED_WORKERS).instead(nearest(text, ["auto"]).map(str::to_owned))),
        })
    };
    read.unwrap_or(auto)
}

fn kernel(mut section: Section<'_>) -> Kernel {
    let default = defaults::kernel();
    let kernel = Kernel {
        mode: section.choice::<KernelMode>("mode", default.mode),
        pin_dir: section.parsed("pin_dir", EXPECTED_PATH, parse_absolute).unwrap_or(default.pin_dir),
        interfaces: interfaces(&mut section),
        xdp_mode: section.choice::<XdpMode>("xdp_mode", default.xdp_mode),
        splice: section.choice::<SpliceMode>("splice", default.splice),
        splice_min: section.size("splice_min", default.splice_min, 0),
        splice_window: section.size("splice_window", default.splice_window, 1),
        local_bypass: section.choice::<LocalBypass>("local_bypass", default.local_bypass),
        syn_rate_per_source: syn_rate(&mut section, "syn_rate_per_source", default.syn_rate_per_source),
        syn_rate_per_listener: syn_rate(&mut section, "syn_rate_per_listener", default.syn_rate_per_listener),
    };
    section.close();
    kernel
}

/// SYNs a second; 0: no limit.
fn syn_rate(section: &mut Section<'_>, key: &'static str, default: u64) -> u64 {
    let default = usize::try_from(default).unwrap_or(LARGEST_COUNT);
    section.count(key, default, 0..=LARGEST_COUNT) as u64
}

fn interfaces(section: &mut Section<'_>) -> Vec<String> {
    let found = section.find("interfaces");
    let items = found.and_then(|found| found.items("a list of interfaces such as [\"eth0\"]"));
    let mut names = Unique::new("interface");
    let read = items.unwrap_or_default().into_iter().filter_map(|item| {
        let name = item.parsed(EXPECTED_INTERFACE, parse_interface)?;
        names.admit(name.clone(), &item);
        Some(name)
    });
    read.collect()
}

fn buffer(mut section: Section<'_>) -> Buffer {
    let default = defaults::buffer();
    let memory = section.size("memory", default.memory, 1);
    let per_reply = section.find("memory_per_reply");
    // A device with less RAM than one default share needs no second key for that.
    let memory_per_reply = section.size("memory_per_reply", default.memory_per_reply.min(memory), 1);
    if let Some(found) = per_reply.filter(|_| memory_per_reply > memory) {
        let expected = format!("a size of at most buffer.memory, which is {}", format_size(memory));
        found.unfit(Unfit::new(expected));
    }
    let mut kinds = Unique::new("kind of tier");
    let mut paths = Unique::new("path");
    let sections = section.sections("tier");
    let tiers = sections.into_iter().filter_map(|mut section| {
        let tier = tier(&mut section, &mut kinds, &mut paths);
        section.close();
        tier
    });
    let tiers = tiers.collect();
    section.close();
    Buffer { memory, memory_per_reply, tiers }
}

fn tier(section: &mut Section<'_>, kinds: &mut Unique<TierKind>, paths: &mut Unique<PathBuf>) -> Option<Tier> {
    let kind_found = section.need("kind", "add kind = \"flash\" or kind = \"disk\"");
    let kind = kind_found.as_ref().and_then(|found| {
        let kind = found.parsed(&choice::expected::<TierKind>(), TierKind::parse)?;
        kinds.admit(kind, found);
        Some(kind)
    });
    let path = if let Some(found) = section.find("path") {
        let path = found.parsed(EXPECTED_PATH, parse_absolute);
        if let Some(path) = &path {
            paths.admit(path.clone(), &found);
        }
        path
    } else {
        let path = kind.map(defaults::tier_path);
        if let Some((path, found)) = path.clone().zip(kind_found) {
            let shown = quoted(&path.to_string_lossy());
            paths.admit_as(path, &shown, &found);
        }
        path
    };
    let size = section.size("size", kind.map_or(0, defaults::tier_size), 1);
    Some(Tier { kind: kind?, path: path?, size })
}

fn limits(mut section: Section<'_>) -> Limits {
    let default = defaults::limits();
    let limits = Limits {
        request_head: head_size(&mut section, "request_head", default.request_head),
        request_headers: section.count("request_headers", default.request_headers, 1..=MOST_HEADERS),
        request_target: head_size(&mut section, "request_target", default.request_target),
        request_content: section.size("request_content", default.request_content, 1),
        reply_head: head_size(&mut section, "reply_head", default.reply_head),
        client_connections: section.count("client_connections", default.client_connections, 1..=LARGEST_COUNT),
        client_connections_per_address: section
            .count_or_unlimited("client_connections_per_address", default.client_connections_per_address),
    };
    section.close();
    limits
}

fn head_size(section: &mut Section<'_>, key: &'static str, default: usize) -> usize {
    let found = section.find(key);
    let size = section.size(key, u64::try_from(default).unwrap_or(LARGEST_HEAD), 1);
    if let Some(found) = found.filter(|_| size > LARGEST_HEAD) {
        let expected = format!("a size of at most {}", format_size(LARGEST_HEAD));
        found.unfit(Unfit::new(expected));
    }
    usize::try_from(size).unwrap_or(default)
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let default = defaults::timeouts();
    let mut read = |key, default| section.duration(key, default, SHORTEST_TIMEOUT);
    let timeouts = Timeouts {
        client_head: read("client_head", default.client_head),
        client_idle: read("client_idle", default.client_idle),
        client_write: read("client_write", default.client_write),
        server_connect: read("server_connect", default.server_connect),
        server_first_byte: read("server_first_byte", default.server_first_byte),
        server_idle: read("server_idle", default.server_idle),
        server_keep_alive: read("server_keep_alive", default.server_keep_alive),
    };
    section.close();
    timeouts
}

fn access_log(mut section: Section<'_>) -> AccessLog {
    let default = defaults::access_log();
    let log = AccessLog {
        path: section.parsed("path", EXPECTED_LOG, parse_log_path).unwrap_or(default.path),
        format: section.choice::<AccessLogFormat>("format", default.format),
    };
    section.close();
    log
}

fn parse_log_path(text: &str) -> Result<AccessLogPath, Unfit> {
    match text {
        "stdout" => Ok(AccessLogPath::Stdout),
        "off" => Ok(AccessLogPath::Off),
        _ => parse_absolute(text).map(AccessLogPath::File).map_err(|_| {
            let instead = nearest(text, ["stdout", "off"]).map(str::to_owned);
            Unfit::new(EXPECTED_LOG).instead(instead)
        }),
    }
}
