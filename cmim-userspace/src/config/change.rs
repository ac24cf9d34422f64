//! From one configuration to the next in a running daemon: what of it takes effect, and what has to wait for a restart.
//!
//! Owns the list of keys that are fixed at the start. It decides and names; [`crate::worker`] acts.

use super::model::{Config, ListenAddress, Listener, Upstream};

/// A new configuration beside the one in force.
#[derive(Debug)]
pub struct Change {
    /// What can be in force: the new configuration with the old values of the keys that are fixed.
    pub config: Config,
    /// What differs and takes effect, one line each.
    pub applied: Vec<String>,
    /// Keys that differ and take effect at a restart or upgrade only.
    pub restart: Vec<String>,
}

/// What it means to go from `old` to `new`.
#[must_use]
pub fn change(old: &Config, new: Config) -> Change {
    let mut config = new;
    let restart = keep_fixed(old, &mut config);
    let mut applied = Vec::new();
    for (name, differs) in [
        ("daemon.shutdown_grace", old.daemon != config.daemon),
        ("kernel", old.kernel != config.kernel),
        ("limits", old.limits != config.limits),
        ("timeouts", old.timeouts != config.timeouts),
        ("access_log", old.access_log != config.access_log),
    ] {
        if differs {
            applied.push(format!("{name} changed"));
        }
    }
    listeners(old, &config, &mut applied);
    upstreams(old, &config, &mut applied);
    Change { config, applied, restart }
}

/// Puts the old values of what cannot change into `new`; the keys where they differed.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<String> {
    let mut restart = Vec::new();
    let mut differs = |key: &str| restart.push(key.to_owned());
    keep("daemon.workers", &old.daemon.workers, &mut new.daemon.workers, &mut differs);
    keep("daemon.control_socket", &old.daemon.control_socket, &mut new.daemon.control_socket, &mut differs);
    keep("daemon.user", &old.daemon.user, &mut new.daemon.user, &mut differs);
    keep("daemon.metrics_address", &old.daemon.metrics_address, &mut new.daemon.metrics_address, &mut differs);
    keep("kernel.mode", &old.kernel.mode, &mut new.kernel.mode, &mut differs);
    keep("kernel.pin_dir", &old.kernel.pin_dir, &mut new.kernel.pin_dir, &mut differs);
    keep("kernel.xdp_mode", &old.kernel.xdp_mode, &mut new.kernel.xdp_mode, &mut differs);
    keep("kernel.local_bypass", &old.kernel.local_bypass, &mut new.kernel.local_bypass, &mut differs);
    keep("buffer.memory", &old.buffer.memory, &mut new.buffer.memory, &mut differs);
    keep("buffer.memory_per_reply", &old.buffer.memory_per_reply, &mut new.buffer.memory_per_reply, &mut differs);
    keep("buffer.tier", &old.buffer.tiers, &mut new.buffer.tiers, &mut differs);
    restart
}

fn keep<T: Clone + PartialEq>(key: &str, old: &T, new: &mut T, differs: &mut impl FnMut(&str)) {
    if old != new {
        differs(key);
        new.clone_from(old);
    }
}

fn listeners(old: &Config, new: &Config, applied: &mut Vec<String>) {
    let (before, after) = (addresses(old), addresses(new));
    for (address, name) in after.iter().filter(|(address, _)| !has(&before, *address)) {
        applied.push(format!("listener {name}: listens on {address}"));
    }
    for (address, name) in before.iter().filter(|(address, _)| !has(&after, *address)) {
        applied.push(format!("listener {name}: no longer listens on {address}"));
    }
    for listener in &new.listeners {
        let earlier = old.listeners.iter().find(|earlier| earlier.name == listener.name);
        if earlier.is_some_and(|earlier| !is_alike(old, earlier, new, listener)) {
            applied.push(format!("listener {} changed", listener.name));
        }
    }
}

fn addresses(config: &Config) -> Vec<(ListenAddress, &str)> {
    let of = |listener: &'_ Listener| -> Vec<_> { listener.address.clone() };
    config
        .listeners
        .iter()
        .flat_map(|listener| of(listener).into_iter().map(|address| (address, &*listener.name)))
        .collect()
}

fn has(addresses: &[(ListenAddress, &str)], wanted: ListenAddress) -> bool {
    addresses.iter().any(|(address, _)| *address == wanted)
}

/// Whether two listeners are the same but for their addresses. Upstreams are compared by name: their positions may have
/// moved.
fn is_alike(old: &Config, one: &Listener, new: &Config, other: &Listener) -> bool {
    let name = |config: &Config, index: super::model::UpstreamIndex| {
        config.upstreams.get(index.0).map(|upstream| upstream.name.clone())
    };
    let routes = |config: &Config, listener: &Listener| -> Vec<_> {
        let routes = listener.routes.iter();
        routes.map(|route| (route.host.clone(), route.path.clone(), name(config, route.upstream))).collect()
    };
    let plain = |listener: &Listener| Listener {
        address: Vec::new(),
        routes: Vec::new(),
        upstream: super::model::UpstreamIndex(0),
        ..listener.clone()
    };
    plain(one) == plain(other)
        && name(old, one.upstream) == name(new, other.upstream)
        && routes(old, one) == routes(new, other)
}

fn upstreams(old: &Config, new: &Config, applied: &mut Vec<String>) {
    let find = |config: &'_ Config, name: &str| config.upstreams.iter().find(|upstream| upstream.name == name).cloned();
    for upstream in &new.upstreams {
        match find(old, &upstream.name) {
            None => applied.push(format!("upstream {} added", upstream.name)),
            Some(earlier) if earlier != *upstream => servers(&earlier, upstream, applied),
            Some(_) => {}
        }
    }
    for upstream in old.upstreams.iter().filter(|upstream| find(new, &upstream.name).is_none()) {
        applied.push(format!("upstream {} removed", upstream.name));
    }
}

fn servers(old: &Upstream, new: &Upstream, applied: &mut Vec<String>) {
    let name = &new.name;
    for server in &new.servers {
        match old.servers.iter().find(|earlier| earlier.address == server.address) {
            None => applied.push(format!("upstream {name}: server {} added", server.address)),
            Some(earlier) if earlier != server => {
                applied.push(format!("upstream {name}: server {} changed", server.address));
            }
            Some(_) => {}
        }
    }
    for server in old.servers.iter().filter(|server| !new.servers.iter().any(|other| other.address == server.address)) {
        applied.push(format!("upstream {name}: server {} removed", server.address));
    }
    if (Upstream { servers: Vec::new(), ..old.clone() }) != (Upstream { servers: Vec::new(), ..new.clone() }) {
        applied.push(format!("upstream {name} changed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const OLD: &str = "\
[daemon]
workers = 2
[[listener]]
name = \"web\"
address = [\"127.0.0.1:80\", \"127.0.0.1:81\"]
upstream = \"app\"
[[upstream]]
name = \"app\"
servers = [{ address = \"127.0.0.1:9001\" }, { address = \"127.0.0.1:9002\" }]
";

    fn changed(edit: impl Fn(&str) -> String) -> Change {
        change(&parse(OLD, "old").unwrap(), parse(&edit(OLD), "new").unwrap())
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let change = changed(str::to_owned);
        assert!(change.applied.is_empty() && change.restart.is_empty(), "{change:?}");
    }

    #[test]
    fn what_is_fixed_keeps_its_value_and_is_named() {
        let change = changed(|old| {
            old.replace("workers = 2", "workers = 3\nshutdown_grace = \"1s\"")
                + "[kernel]\npin_dir = \"/sys/fs/bpf/other\"\n"
        });
        assert_eq!(change.restart, ["daemon.workers", "kernel.pin_dir"]);
        assert_eq!(change.applied, ["daemon.shutdown_grace changed"]);
        assert_eq!(change.config.daemon.workers, 2);
    }

    #[test]
    fn addresses_and_servers_are_told_one_by_one() {
        let change = changed(|old| {
            old.replace("127.0.0.1:81", "127.0.0.1:82")
                .replace("\"127.0.0.1:9001\"", "\"127.0.0.1:9001\", weight = 3")
                .replace("9002\"", "9003\"")
        });
        assert_eq!(
            change.applied,
            [
                "listener web: listens on 127.0.0.1:82",
                "listener web: no longer listens on 127.0.0.1:81",
                "upstream app: server 127.0.0.1:9001 changed",
                "upstream app: server 127.0.0.1:9003 added",
                "upstream app: server 127.0.0.1:9002 removed",
            ]
        );
    }

    #[test]
    fn an_upstream_that_only_moved_changes_no_listener() {
        let first =
            "[[upstream]]\nname = \"new\"\nservers = [{ address = \"127.0.0.1:9009\" }]\n[[upstream]]\nname = \"app\"";
        let change = changed(|old| old.replace("[[upstream]]\nname = \"app\"", first));
        assert_eq!(change.applied, ["upstream new added"]);
    }
}
