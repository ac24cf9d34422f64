//! The keys of `[[listener]]`: addresses, routes, whom to trust.

use std::cmp::Reverse;

use ipnet::IpNet;

use super::address::{
    EXPECTED_HOST, EXPECTED_LISTEN, EXPECTED_NETWORK, EXPECTED_URL_PATH, parse_host, parse_listen, parse_network,
    parse_url_path,
};
use super::defaults;
use super::error::{Problem, Unfit, nearest, quoted};
use super::listen_address::{Clash, ListenAddress};
use super::model::{KernelMode, Listener, Route, Upstream, UpstreamIndex};
use super::section::{Found, Section, Unique};
use super::upstream::names;

/// Most requests read ahead on one connection: each of them may hold a job and a share of the buffer.
const DEEPEST_PIPELINE: usize = 1024;

const ADD_ADDRESS: &str = "add where to listen, such as address = \"0.0.0.0:80\"";
const EXPECTED_ADDRESSES: &str = "an address such as \"0.0.0.0:80\", or a list of them";
/// Nothing else leads connections for a network to a socket.
const EXPECTED_UNSTEERED: &str =
    "one address and one port, since networks and ranges of ports need the kernel part and kernel.mode is \"off\"";
const ONE_FREE_PORT: &str = "(one port of the kernel's choice for each IP; give this one its number)";
const EXPECTED_NETWORKS: &str = "a list of networks such as [\"10.0.0.0/8\"]";
const EXPECTED_ROUTES: &str = "a list of routes such as [{ path = \"/static/\", upstream = \"static\" }]";
const EXPECTED_ROUTE: &str = "a route such as { path = \"/static/\", upstream = \"static\" }";
const EXPECTED_UPSTREAM: &str = "the name of an upstream";

/// Reads all listeners. `addresses` holds what the device listens on otherwise.
pub(super) fn listeners(
    sections: Vec<Section<'_>>,
    mode: KernelMode,
    upstreams: &[Upstream],
    addresses: &mut Unique<ListenAddress>,
) -> Vec<Listener> {
    let mut sections = sections;
    let names = names(&mut sections, "listener name", defaults::LISTENER_NAME);
    let named = sections.into_iter().zip(names);
    named.map(|(section, name)| listener(section, name, mode, upstreams, addresses)).collect()
}

fn listener(
    mut section: Section<'_>,
    name: String,
    mode: KernelMode,
    upstreams: &[Upstream],
    addresses: &mut Unique<ListenAddress>,
) -> Listener {
    let default = defaults::listener();
    let listener = Listener {
        name,
        address: listen_addresses(&mut section, mode, addresses),
        upstream: default_upstream(&mut section, upstreams),
        pipeline_depth: section.count("pipeline_depth", default.pipeline_depth, 1..=DEEPEST_PIPELINE),
        accept_proxy_protocol: section.switch("accept_proxy_protocol", default.accept_proxy_protocol),
        trusted_proxies: trusted_proxies(&mut section),
        routes: routes(&mut section, upstreams),
        allow_connect: section.switch("allow_connect", default.allow_connect),
    };
    section.close();
    listener
}

fn listen_addresses(
    section: &mut Section<'_>,
    mode: KernelMode,
    addresses: &mut Unique<ListenAddress>,
) -> Vec<ListenAddress> {
    let Some(found) = section.need("address", ADD_ADDRESS) else {
        return Vec::new();
    };
    let Some(items) = found.items_or_text(EXPECTED_ADDRESSES) else {
        return Vec::new();
    };
    if items.is_empty() {
        found.unfit(Unfit::new("at least one address such as \"0.0.0.0:80\""));
    }
    let read = items.iter().filter_map(|item| {
        let address = item.parsed(EXPECTED_LISTEN, parse_listen)?;
        if mode == KernelMode::Off && address.needs_steering() {
            item.unfit(Unfit::new(EXPECTED_UNSTEERED));
        }
        // Sockets are known by their address as it is written, at a reload and at an upgrade too: with port 0 twice for
        // one IP, the clients of either port would be the first listener's.
        if address.bind_address().port() == 0 {
            addresses.admit_as(address, &format!("{} {ONE_FREE_PORT}", quoted(&address.to_string())), item);
        } else {
            admit(address, item, addresses);
        }
        Some(address)
    });
    read.collect()
}

/// Notes an address; reports one that stands already, and one of which another has the connections or the sockets.
fn admit(address: ListenAddress, item: &Found<'_>, addresses: &mut Unique<ListenAddress>) {
    let clash = addresses.find(|seen| if *seen == address { None } else { seen.clash(&address) });
    let (what, value, first) = match clash {
        None => return addresses.admit(address, item),
        Some((Clash::Connections, first)) => ("network with some of the ports", format!("\"{address}\""), first),
        Some((Clash::Sockets { address: socket }, first)) => {
            let whose = if address.needs_steering() { format!(", of \"{address}\",") } else { String::new() };
            ("socket address", format!("{socket}{whose}"), first)
        }
    };
    item.refuse(Problem::Duplicate { what, value, first: first.clone() });
}

/// `upstream`, or the only upstream that there is.
fn default_upstream(section: &mut Section<'_>, upstreams: &[Upstream]) -> UpstreamIndex {
    let stand_in = UpstreamIndex(0);
    if let Some(found) = section.find("upstream") {
        return resolve(&found, upstreams).unwrap_or(stand_in);
    }
    if upstreams.len() > 1 {
        let names: Vec<String> = upstreams.iter().map(|upstream| format!("{:?}", upstream.name)).collect();
        let add = format!("there are several upstreams; add upstream = one of {}", names.join(", "));
        section.miss("upstream", &add);
    }
    stand_in
}

fn resolve(found: &Found<'_>, upstreams: &[Upstream]) -> Option<UpstreamIndex> {
    let name = found.text(EXPECTED_UPSTREAM)?;
    let position = upstreams.iter().position(|upstream| upstream.name == name);
    // Without any upstream that is what is missing, and reported, not this name.
    if position.is_none() && !upstreams.is_empty() {
        let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
        found.refuse(Problem::Dangling {
            what: "upstream",
            name: name.to_owned(),
            nearest: nearest(name, names()).map(str::to_owned),
            known: names().map(str::to_owned).collect(),
        });
    }
    position.map(UpstreamIndex)
}

fn trusted_proxies(section: &mut Section<'_>) -> Vec<IpNet> {
    let found = section.find("trusted_proxies");
    let items = found.and_then(|found| found.items(EXPECTED_NETWORKS));
    let networks = items.unwrap_or_default();
    networks.iter().filter_map(|item| item.parsed(EXPECTED_NETWORK, parse_network)).collect()
}

/// The routes in the order in which they are tried.
fn routes(section: &mut Section<'_>, upstreams: &[Upstream]) -> Vec<Route> {
    let found = section.find("routes");
    let items = found.and_then(|found| found.items(EXPECTED_ROUTES));
    let mut unique = Unique::new("route");
    let mut routes: Vec<Route> = Vec::new();
    for item in items.unwrap_or_default() {
        let Some(mut section) = item.section(EXPECTED_ROUTE) else {
            continue;
        };
        let route = route(&mut section, upstreams);
        section.close();
        if let Some(route) = route {
            let shown = format!("{}{}", route.host.as_deref().unwrap_or(""), route.path);
            unique.admit_as((route.host.clone(), route.path.clone()), &quoted(&shown), &item);
            routes.push(route);
        }
    }
    // Longest host first, none last; then longest path; the names decide only so that equal files give equal orders.
    routes.sort_by_cached_key(|route| {
        let host_length = route.host.as_ref().map_or(0, String::len);
        let lengths = (Reverse(host_length), Reverse(route.path.len()));
        (lengths, route.host.clone(), route.path.clone())
    });
    routes
}

fn route(section: &mut Section<'_>, upstreams: &[Upstream]) -> Option<Route> {
    let host = section.find("host").map(|found| found.parsed(EXPECTED_HOST, parse_host));
    let path =
        section.parsed("path", EXPECTED_URL_PATH, parse_url_path).unwrap_or_else(|| defaults::ROUTE_PATH.to_owned());
    let upstream = section
        .need("upstream", "add the name of the upstream that the route leads to")
        .and_then(|found| resolve(&found, upstreams));
    Some(Route {
        // A refused host must not make a route for every host, not even while reading goes on.
        host: match host {
            Some(read) => Some(read?),
            None => None,
        },
        path,
        upstream: upstream?,
    })
}
