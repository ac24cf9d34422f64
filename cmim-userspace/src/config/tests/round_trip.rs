//! What is printed loads again: the defaults to the defaults, any configuration to an equal one.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::{SMALLEST, messages, read};
use crate::config::choice::Choice;
use crate::config::model::{
    AccessLog, AccessLogPath, Buffer, Config, Daemon, HashOn, Health, Kernel, KernelMode, Limits, ListenAddress,
    Listener, Route, Server, ServerAddress, Tier, TierKind, Timeouts, Upstream, UpstreamIndex,
};
use crate::config::{defaults_text, to_toml};

#[test]
fn the_printed_defaults_with_an_address_and_a_server_load_to_the_defaults() {
    let text = defaults_text()
        .replace("# address = [\"0.0.0.0:80\", \"[::]:80\"]", "address = \"127.0.0.1:8080\"")
        .replace("# servers = ", "servers = ");
    assert_eq!(read(&text).unwrap(), read(SMALLEST).unwrap());
}

#[test]
fn the_printed_defaults_as_they_are_lack_just_an_address_and_a_server() {
    let refused = messages(&defaults_text());
    let keys: Vec<&str> = refused.iter().filter_map(|message| message.split(": ").nth(1)).collect();
    assert_eq!(keys, ["listener[0].address", "upstream[0].servers"]);
}

#[test]
fn the_printed_defaults_are_the_same_whoever_prints_them() {
    let text = defaults_text();
    let sockets: Vec<&str> = text.lines().filter(|line| line.contains("control_socket")).collect();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    // Absent: a file made by one user may be root's in the end, as `cargo xtask install` has it.
    assert!(sockets[0].starts_with("# control_socket = \"/run/cmim/control.sock\" "), "{sockets:?}");
}

#[test]
fn every_commented_example_in_the_printed_defaults_is_valid() {
    let uncommented: Vec<String> = defaults_text()
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let is_setting = bare.contains(" = ") || bare.starts_with("[[");
            if is_setting { bare.to_owned() } else { line.to_owned() }
        })
        .collect();
    let config = read(&uncommented.join("\n")).unwrap();
    assert_eq!(config.buffer.tiers.len(), 2);
    assert!(config.upstreams[0].health.is_some());
    assert!(config.daemon.user.is_some());
    assert_eq!(config.listeners[0].routes.len(), 1);
}

fn choice<T: Choice + std::fmt::Debug>() -> impl Strategy<Value = T> {
    let values: Vec<T> = T::NAMES.iter().map(|(_, value)| *value).collect();
    select(values)
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![1..100_000_u64, (1..48_u64).prop_map(|hours| hours * 3_600_000)].prop_map(Duration::from_millis)
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![1..100_000_u64, (1..64_u64).prop_map(|gib| gib << 30), Just(1 << 60)]
}

fn small_size() -> impl Strategy<Value = usize> {
    prop_oneof![1..100_000_usize, (1..16_usize).prop_map(|mib| mib << 20)]
}

fn path() -> impl Strategy<Value = PathBuf> {
    // Quotes, backslashes, line ends and letters outside of ASCII are all legal in a path.
    "/[a-z\"'\\\\#ä \n\t.]{1,12}".prop_map(PathBuf::from)
}

fn socket_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// One address, or a network with its ports; each still with the port of nothing.
fn listen_address() -> impl Strategy<Value = ListenAddress> {
    let many = |(network, ports)| ListenAddress::Many { network, first_port: 0, last_port: ports };
    prop_oneof![
        any::<IpAddr>().prop_map(|ip| ListenAddress::One(SocketAddr::new(ip, 0))),
        (network(), 0..10_u16).prop_map(many),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=32_u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc())
}

fn daemon() -> impl Strategy<Value = Daemon> {
    (1..=1024_usize, path(), option::of("[a-z]{1,8}"), duration(), option::of(1..=u16::MAX)).prop_map(
        |(workers, control_socket, user, shutdown_grace, metrics_port)| Daemon {
            workers,
            control_socket,
            user,
            shutdown_grace,
            // A network of its own, so that it is never a listener's address.
            metrics_address: metrics_port.map(|port| SocketAddr::from(([127, 9, 9, 9], port))),
        },
    )
}

fn kernel() -> impl Strategy<Value = Kernel> {
    let names = btree_set("[a-z]{1,6}[0-9]{1,3}", 0..3).prop_map(|names| names.into_iter().collect());
    let rates = [0..=1_000_000_000_u64, 0..=1_000_000_000];
    (choice(), path(), names, choice(), choice(), 0..=1_u64 << 60, size(), choice(), rates).prop_map(
        |(mode, pin_dir, interfaces, xdp_mode, splice, splice_min, splice_window, local_bypass, rates)| Kernel {
            mode,
            pin_dir,
            interfaces,
            xdp_mode,
            splice,
            splice_min,
            splice_window,
            local_bypass,
            syn_rate_per_source: rates[0],
            syn_rate_per_listener: rates[1],
        },
    )
}

fn buffer() -> impl Strategy<Value = Buffer> {
    let kinds = select(vec![
        vec![],
        vec![TierKind::Disk],
        vec![TierKind::Flash, TierKind::Disk],
        vec![TierKind::Disk, TierKind::Flash],
    ]);
    (size(), size(), kinds, vec(size(), 2)).prop_map(|(one, other, kinds, sizes)| Buffer {
        memory: one.max(other),
        memory_per_reply: one.min(other),
        tiers: kinds
            .into_iter()
            .zip(sizes)
            .map(|(kind, size)| Tier { kind, path: PathBuf::from(format!("/{}", kind.name())), size })
            .collect(),
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let heads = [small_size(), small_size(), small_size()];
    (heads, 1..=10_000_usize, size(), 1..1_000_000_usize, option::of(1..1000_usize)).prop_map(
        |(heads, request_headers, request_content, client_connections, client_connections_per_address)| {
            let [request_head, request_target, reply_head] = heads;
            Limits {
                request_head,
                request_headers,
                request_target,
                request_content,
                reply_head,
                client_connections,
                client_connections_per_address,
            }
        },
    )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    vec(duration(), 7).prop_map(|times| Timeouts {
        client_head: times[0],
        client_idle: times[1],
        client_write: times[2],
        server_connect: times[3],
        server_first_byte: times[4],
        server_idle: times[5],
        server_keep_alive: times[6],
    })
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    let target =
        prop_oneof![Just(AccessLogPath::Stdout), Just(AccessLogPath::Off), path().prop_map(AccessLogPath::File)];
    (target, choice()).prop_map(|(path, format)| AccessLog { path, format })
}

fn server_address() -> impl Strategy<Value = ServerAddress> {
    prop_oneof![socket_address().prop_map(ServerAddress::Tcp), path().prop_map(ServerAddress::Unix)]
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    let rest = (1..=256_u32, option::of(1..1000_usize), any::<bool>());
    btree_map(server_address(), rest, 1..4).prop_map(|servers| {
        servers
            .into_iter()
            .map(|(address, (weight, max_requests, backup))| Server { address, weight, max_requests, backup })
            .collect()
    })
}

fn hash_on() -> impl Strategy<Value = HashOn> {
    prop_oneof![
        Just(HashOn::ClientAddress),
        Just(HashOn::Target),
        "[a-z-]{1,8}".prop_map(HashOn::Header),
        "[A-Za-z-]{1,8}".prop_map(HashOn::Cookie),
    ]
}

fn health() -> impl Strategy<Value = Health> {
    ("/[a-z'\"\\\\]{0,8}", duration(), duration(), 1..=1000_u32, 1..=1000_u32)
        .prop_map(|(path, every, timeout, rise, fall)| Health { path, every, timeout, rise, fall })
}

/// An upstream that still has the name of nothing.
fn upstream() -> impl Strategy<Value = Upstream> {
    let rules = (choice(), hash_on(), choice(), choice(), choice());
    let numbers = (size(), 0..100_usize, 1..=64_usize, 0..=100_u32, 0..5000_usize);
    (rules, numbers, [duration(), duration()], servers(), option::of(health())).prop_map(
        |(rules, numbers, times, servers, health)| {
            let (balance, hash_on, length_rewrite, request_buffering, send_proxy_protocol) = rules;
            let (hold_size, max_idle, server_pipeline, retries, queue_limit) = numbers;
            let [hold_time, queue_timeout] = times;
            Upstream {
                name: String::new(),
                balance,
                hash_on,
                length_rewrite,
                hold_time,
                hold_size,
                request_buffering,
                max_idle,
                server_pipeline,
                retries,
                queue_limit,
                queue_timeout,
                servers,
                health,
                send_proxy_protocol,
            }
        },
    )
}

fn routes(upstreams: usize) -> impl Strategy<Value = Vec<Route>> {
    let key = (option::of("[a-z]{1,6}[.]org"), "/[a-z'\"\\\\]{0,6}");
    btree_map(key, 0..upstreams, 0..4).prop_map(|routes| {
        let mut routes: Vec<Route> = routes
            .into_iter()
            .map(|((host, path), upstream)| Route { host, path, upstream: UpstreamIndex(upstream) })
            .collect();
        let length = |route: &Route| route.host.as_ref().map_or(0, String::len);
        routes.sort_by(|one, other| {
            (length(other), other.path.len())
                .cmp(&(length(one), one.path.len()))
                .then_with(|| (&one.host, &one.path).cmp(&(&other.host, &other.path)))
        });
        routes
    })
}

fn listener(upstreams: usize) -> impl Strategy<Value = Listener> {
    let rest = (1..=1024_usize, any::<bool>(), any::<bool>(), vec(network(), 0..3));
    (vec(listen_address(), 1..3), 0..upstreams, routes(upstreams), rest).prop_map(
        |(address, upstream, routes, (pipeline_depth, accept_proxy_protocol, allow_connect, trusted_proxies))| {
            Listener {
                name: String::new(),
                address,
                upstream: UpstreamIndex(upstream),
                pipeline_depth,
                accept_proxy_protocol,
                trusted_proxies,
                routes,
                allow_connect,
            }
        },
    )
}

fn traffic() -> BoxedStrategy<(Vec<Listener>, Vec<Upstream>)> {
    let upstreams = vec(upstream(), 1..4);
    let both = upstreams.prop_flat_map(|upstreams| {
        let listeners = vec(listener(upstreams.len()), 1..3);
        (listeners, Just(upstreams))
    });
    both.prop_map(|(mut listeners, mut upstreams)| {
        for (position, listener) in listeners.iter_mut().enumerate() {
            listener.name = format!("listener-{position}");
            for (number, address) in listener.address.iter_mut().enumerate() {
                // Every address once: ports of its own for each, as many as it has.
                let port = u16::try_from(1 + (position * 10 + number) * 10).unwrap();
                match address {
                    ListenAddress::One(address) => address.set_port(port),
                    ListenAddress::Many { first_port, last_port, .. } => {
                        *first_port = port;
                        *last_port += port;
                    }
                }
            }
        }
        for (position, upstream) in upstreams.iter_mut().enumerate() {
            upstream.name = format!("upstream-{position}");
        }
        (listeners, upstreams)
    })
    .boxed()
}

fn config() -> impl Strategy<Value = Config> {
    (daemon(), kernel(), buffer(), limits(), timeouts(), access_log(), traffic()).prop_map(
        |(daemon, kernel, buffer, limits, timeouts, access_log, (mut listeners, upstreams))| {
            if kernel.mode == KernelMode::Off {
                // Networks need the kernel part.
                for address in listeners.iter_mut().flat_map(|listener| &mut listener.address) {
                    *address = address.bind_address().into();
                }
            }
            Config { daemon, kernel, buffer, limits, timeouts, access_log, listeners, upstreams }
        },
    )
}

proptest! {
    #[test]
    fn any_configuration_survives_its_toml(config in config()) {
        let text = to_toml(&config);
        match read(&text) {
            Ok(again) => prop_assert_eq!(again, config),
            Err(errors) => panic!("{errors}\nin:\n{text}"),
        }
    }
}
