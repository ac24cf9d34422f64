//! What the kernel part tells of itself, for the listings.

use cmim_common::connection::{ENDLESS, Lane, State};
use cmim_common::counters::Counters;
use cmim_common::names;

use super::error::KernelError;
use super::listening;
use super::loaded::Loaded;
use super::part::Rates;
use super::splice::{Listed, Splicer};
use crate::control::message;

/// The programs that are in the kernel, and what each is attached to.
pub(super) fn programs(loaded: &Loaded) -> Vec<message::Program> {
    let mut programs = Vec::new();
    if let Some(interfaces) = loaded.interfaces() {
        let attached_to = interfaces.guarded().map(|(name, _)| name.to_owned());
        programs.push(program(names::GUARD, "xdp", attached_to.collect()));
    }
    if loaded.verdict {
        programs.push(program(names::VERDICT, "sk_skb", vec![names::SOCKETS.to_owned()]));
    }
    if let Some(cgroup) = loaded.local.cgroup() {
        programs.push(program(names::LOCAL_OPS, "sock_ops", vec![cgroup.display().to_string()]));
        programs.push(program(names::LOCAL_MSG, "sk_msg", vec![names::LOCAL.to_owned()]));
    }
    if loaded.steering.is_attached() {
        let steered = loaded.listeners.iter().filter(|listener| listener.address.needs_steering());
        programs.push(program(names::STEER, "sk_lookup", steered.map(|it| it.address.to_string()).collect()));
    }
    if !loaded.spread_over.is_empty() {
        programs.push(program(names::SPREAD, "sk_reuseport", loaded.spread_over.clone()));
    }
    programs
}

/// The local lane's figures: its connections, and the bytes that went past TCP.
pub(super) const fn local(counters: &Counters) -> message::Lane {
    message::Lane {
        // Read one after the other while both grow.
        active: counters.local_connections.saturating_sub(counters.local_closed),
        splices_total: counters.local_connections,
        bytes_total: counters.local_bytes,
    }
}

fn program(name: &str, kind: &str, attached_to: Vec<String>) -> message::Program {
    message::Program { name: name.to_owned(), kind: kind.to_owned(), attached_to }
}

/// The guard: where it is, what it lets through, and what it counted.
pub(super) fn guard(loaded: &Loaded, rates: Rates) -> Result<message::Guard, KernelError> {
    let mut interfaces = Vec::new();
    if let Some(all) = loaded.interfaces() {
        interfaces.extend(all.guarded().map(|(name, place)| message::GuardedInterface {
            name: name.to_owned(),
            place: place.name().to_owned(),
            why_not: None,
        }));
        interfaces.extend(all.unguarded().map(|(name, why)| message::GuardedInterface {
            name: name.to_owned(),
            place: String::new(),
            why_not: Some(why.clause()),
        }));
    }
    let counted = loaded.maps.counters()?;
    let counters = message::GuardCounters {
        packets: counted.packets,
        bytes: counted.bytes,
        passed: counted.passed,
        dropped_denied: counted.dropped_denied,
        dropped_flags: counted.dropped_flags,
        dropped_rate: counted.dropped_rate,
        dropped_wrapped: counted.dropped_wrapped,
        cookies_sent: counted.cookies_sent,
        cookies_returned: counted.cookies_returned,
        not_ip: counted.not_ip,
        truncated: counted.truncated,
        tcp_syn: counted.tcp_syn,
        to_listener: counted.to_listener,
    };
    Ok(message::Guard {
        interfaces,
        denied: loaded.maps.denied()?.len() as u64,
        syn_rate_per_source: rates.per_source,
        syn_rate_per_listener: rates.per_listener,
        cookies: loaded.settings.cookies == 1,
        why_no_cookies: loaded.no_cookies.clone(),
        counters,
        listeners: listeners(loaded)?,
    })
}

/// The directions that the kernel carries, the oldest splice first.
pub(super) fn splices(splicer: &Splicer) -> Result<Vec<message::Splice>, KernelError> {
    let mut splices: Vec<_> = splicer.list()?.iter().map(splice).collect();
    splices.sort_by(|one, other| (one.id, &one.from).cmp(&(other.id, &other.from)));
    Ok(splices)
}

fn splice(listed: &Listed) -> message::Splice {
    let Listed { source, connection, backlog } = listed;
    let state = match State::from_number(connection.state) {
        Some(State::Draining | State::Broken) => "ended",
        // What the last burst left to the daemon is passed on: the next one is the kernel's again.
        Some(State::Splicing | State::Paused) if *backlog == 0 => "splicing",
        Some(State::Splicing | State::Paused) => "paused",
        Some(State::Installing) | None => "",
    };
    message::Splice {
        id: connection.generation,
        from: source.remote().to_string(),
        from_local: source.local().to_string(),
        to: connection.target.remote().to_string(),
        to_local: connection.target.local().to_string(),
        lane: Lane::from_number(connection.lane).map_or("", Lane::name).to_owned(),
        state: state.to_owned(),
        bytes: connection.spliced,
        relayed: connection.passed - backlog,
        remaining: (connection.remaining != ENDLESS).then_some(connection.remaining),
        backlog: *backlog,
    }
}

/// In the configuration's order.
fn listeners(loaded: &Loaded) -> Result<Vec<message::GuardedListener>, KernelError> {
    let counted = loaded.maps.listeners()?;
    let listed = loaded.listeners.iter().map(|listener| {
        let key = listening::key(&listener.address);
        let counts = counted.iter().find(|(known, _)| *known == key).map(|(_, counts)| *counts).unwrap_or_default();
        message::GuardedListener {
            listener: listener.name.clone(),
            address: listener.address.to_string(),
            syns_passed: counts.syns,
            dropped_flags: counts.dropped_flags,
            dropped_rate: counts.dropped_rate,
            cookies_sent: counts.cookies_sent,
            cookies_returned: counts.cookies_returned,
        }
    });
    Ok(listed.collect())
}
