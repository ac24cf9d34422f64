//! The keys of `[[upstream]]`: servers, balance, queue, health.

use super::address::{
    EXPECTED_HASH_ON, EXPECTED_SERVER, EXPECTED_URL_PATH, parse_hash_on, parse_server, parse_url_path,
};
use super::defaults;
use super::error::Unfit;
use super::model::{
    Balance, Health, LengthRewrite, RequestBuffering, SendProxyProtocol, Server, ServerAddress, Upstream,
};
use super::section::{Found, LARGEST_COUNT, Section, Unique};
use super::validate::SHORTEST_TIMEOUT;

/// Most retries of one request. More would turn one failing request into a flood of them.
const MOST_RETRIES: usize = 100;

/// Most requests at once on one server connection: what one system call sends, and what waits behind one slow reply.
const MOST_PIPELINED: usize = 64;

/// Largest weight: the shares of servers need no finer steps, and Maglev's table stays small.
const LARGEST_WEIGHT: usize = 256;

/// Most checks in a row that `rise` and `fall` can ask for.
const MOST_CHECKS: usize = 1000;

/// Longest name of a listener or upstream: it stands in tables and metrics.
const LONGEST_NAME: usize = 64;

const EXPECTED_SERVERS: &str = "a list of servers such as [{ address = \"10.0.0.11:8080\" }]";
const EXPECTED_ONE_SERVER: &str = "a server such as { address = \"10.0.0.11:8080\" }";
const ADD_SERVERS: &str = "add at least one server, such as servers = [{ address = \"127.0.0.1:9001\" }]";
const ADD_ADDRESS: &str = "add the server's address, such as address = \"127.0.0.1:9001\"";
const EXPECTED_HEALTH: &str = "a table such as { path = \"/healthz\", every = \"2s\" }";
const EXPECTED_NAME: &str = "a name of letters, digits, \".\", \"_\" and \"-\", at most 64 of them";

pub(super) fn upstreams(sections: Vec<Section<'_>>) -> Vec<Upstream> {
    let mut sections = sections;
    let names = names(&mut sections, "upstream name", defaults::UPSTREAM_NAME);
    let named = sections.into_iter().zip(names);
    named.map(|(section, name)| upstream(section, name)).collect()
}

/// The `name` of each section; one without a name takes the first free of `base`, `base-2`, `base-3` ….
pub(super) fn names(sections: &mut [Section<'_>], what: &'static str, base: &str) -> Vec<String> {
    let mut unique = Unique::new(what);
    let mut read = |section: &mut Section<'_>| {
        let found = section.find("name")?;
        let name = found.parsed(EXPECTED_NAME, parse_name)?;
        unique.admit(name.clone(), &found);
        Some(name)
    };
    let given: Vec<Option<String>> = sections.iter_mut().map(&mut read).collect();
    let mut taken: Vec<String> = given.iter().flatten().cloned().collect();
    let mut named = Vec::with_capacity(given.len());
    for (position, name) in given.into_iter().enumerate() {
        named.push(name.unwrap_or_else(|| {
            let free = free_name(base, position, &taken);
            taken.push(free.clone());
            free
        }));
    }
    named
}

fn free_name(base: &str, position: usize, taken: &[String]) -> String {
    let mut number = position.saturating_add(1);
    loop {
        let name = if number == 1 { base.to_owned() } else { format!("{base}-{number}") };
        if !taken.contains(&name) {
            return name;
        }
        number = number.saturating_add(1);
    }
}

fn parse_name(text: &str) -> Result<String, Unfit> {
    let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(name_byte);
    fits.then(|| text.to_owned()).ok_or_else(|| Unfit::new(EXPECTED_NAME))
}

fn upstream(mut section: Section<'_>, name: String) -> Upstream {
    let default = defaults::upstream();
    let retries = usize::try_from(default.retries).unwrap_or(MOST_RETRIES);
    let upstream = Upstream {
        name,
        balance: section.choice::<Balance>("balance", default.balance),
        hash_on: section.parsed("hash_on", EXPECTED_HASH_ON, parse_hash_on).unwrap_or(default.hash_on),
        length_rewrite: section.choice::<LengthRewrite>("length_rewrite", default.length_rewrite),
        hold_time: section.duration("hold_time", default.hold_time, SHORTEST_TIMEOUT),
        hold_size: section.size("hold_size", default.hold_size, 1),
        request_buffering: section.choice::<RequestBuffering>("request_buffering", default.request_buffering),
        max_idle: section.count("max_idle", default.max_idle, 0..=LARGEST_COUNT),
        server_pipeline: section.count("server_pipeline", default.server_pipeline, 1..=MOST_PIPELINED),
        retries: narrow(section.count("retries", retries, 0..=MOST_RETRIES)),
        queue_limit: section.count("queue_limit", default.queue_limit, 0..=LARGEST_COUNT),
        queue_timeout: section.duration("queue_timeout", default.queue_timeout, SHORTEST_TIMEOUT),
        servers: servers(&mut section),
        health: section.find("health").and_then(|found| found.section(EXPECTED_HEALTH)).map(health),
        send_proxy_protocol: section.choice::<SendProxyProtocol>("send_proxy_protocol", default.send_proxy_protocol),
    };
    section.close();
    upstream
}

fn servers(section: &mut Section<'_>) -> Vec<Server> {
    let found = section.need("servers", ADD_SERVERS);
    let Some((found, items)) = found.and_then(|found| {
        let items = found.items(EXPECTED_SERVERS)?;
        Some((found, items))
    }) else {
        return Vec::new();
    };
    if items.is_empty() {
        found.unfit(Unfit::new("at least one server such as { address = \"10.0.0.11:8080\" }"));
    }
    let mut addresses = Unique::new("address");
    let servers = items.iter().filter_map(|item| {
        let mut section = item.section(EXPECTED_ONE_SERVER)?;
        let server = server(&mut section, |address, found| addresses.admit(address, found));
        section.close();
        server
    });
    servers.collect()
}

fn server(section: &mut Section<'_>, admit: impl FnOnce(ServerAddress, &Found<'_>)) -> Option<Server> {
    let address = section.need("address", ADD_ADDRESS).and_then(|found| {
        let address = found.parsed(EXPECTED_SERVER, parse_server)?;
        admit(address.clone(), &found);
        Some(address)
    });
    let weight = narrow(section.count("weight", defaults::SERVER_WEIGHT, 1..=LARGEST_WEIGHT));
    let max_requests = section.count_or_unlimited("max_requests", None);
    let backup = section.switch("backup", false);
    Some(Server { address: address?, weight, max_requests, backup })
}

fn health(mut section: Section<'_>) -> Health {
    let default = defaults::health();
    let checks = |number: u32| usize::try_from(number).unwrap_or(MOST_CHECKS);
    let health = Health {
        path: section.parsed("path", EXPECTED_URL_PATH, parse_url_path).unwrap_or(default.path),
        every: section.duration("every", default.every, SHORTEST_TIMEOUT),
        timeout: section.duration("timeout", default.timeout, SHORTEST_TIMEOUT),
        rise: narrow(section.count("rise", checks(default.rise), 1..=MOST_CHECKS)),
        fall: narrow(section.count("fall", checks(default.fall), 1..=MOST_CHECKS)),
    };
    section.close();
    health
}

/// For counts whose range fits 32 bits.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
