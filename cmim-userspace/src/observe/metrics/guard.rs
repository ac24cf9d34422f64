//! The guard's counters: packets by what became of them, SYNs by listener.

use super::{Exposition, Family};
use crate::control::message::{Guard, GuardCounters, GuardedListener};

pub(super) fn guard(out: &mut Exposition, guard: &Guard) {
    packets(out, &guard.counters);
    for (name, kind, help, figure) in LISTENER_FAMILIES {
        out.family(name, kind, help);
        for listener in &guard.listeners {
            out.sample(name, &labels(listener), figure(listener));
        }
    }
    let name = "cmim_guard_listener_dropped_total";
    out.family(name, "counter", "Packets to a listener's address that were dropped, by reason.");
    for listener in &guard.listeners {
        let [of, address] = labels(listener);
        for (reason, count) in [("flags", listener.dropped_flags), ("rate", listener.dropped_rate)] {
            out.sample(name, &[of, address, ("reason", reason)], count);
        }
    }
}

fn packets(out: &mut Exposition, counters: &GuardCounters) {
    let families: [Family<GuardCounters>; 7] = [
        ("cmim_guard_packets_total", "counter", "Packets on the guarded interfaces.", |it| it.packets),
        ("cmim_guard_bytes_total", "counter", "Bytes of these packets, link headers included.", |it| it.bytes),
        ("cmim_guard_passed_total", "counter", "Packets let through.", |it| it.passed),
        ("cmim_guard_cookies_sent_total", "counter", "SYNs answered with a SYN cookie.", |it| it.cookies_sent),
        ("cmim_guard_cookies_returned_total", "counter", "SYN cookies that came back.", |it| it.cookies_returned),
        ("cmim_guard_syns_total", "counter", "SYNs to any address.", |it| it.tcp_syn),
        ("cmim_guard_to_listener_total", "counter", "TCP packets to a listener that passed.", |it| it.to_listener),
    ];
    for (name, kind, help, figure) in families {
        out.single(name, kind, help, figure(counters));
    }
    let dropped = [
        ("denied", counters.dropped_denied),
        ("flags", counters.dropped_flags),
        ("rate", counters.dropped_rate),
        ("wrapped", counters.dropped_wrapped),
    ];
    let unread = [("not_ip", counters.not_ip), ("truncated", counters.truncated)];
    by_reason(out, "cmim_guard_dropped_total", "Packets dropped, by reason.", &dropped);
    by_reason(out, "cmim_guard_unread_total", "Packets let through because the guard cannot read them.", &unread);
}

fn by_reason(out: &mut Exposition, name: &str, help: &str, counts: &[(&str, u64)]) {
    out.family(name, "counter", help);
    for (reason, count) in counts {
        out.sample(name, &[("reason", reason)], count);
    }
}

const LISTENER_FAMILIES: [Family<GuardedListener>; 3] = [
    ("cmim_guard_listener_syns_passed_total", "counter", "SYNs to a listener's address let through.", |listener| {
        listener.syns_passed
    }),
    (
        "cmim_guard_listener_cookies_sent_total",
        "counter",
        "SYNs to a listener's address answered with a SYN cookie.",
        |listener| listener.cookies_sent,
    ),
    (
        "cmim_guard_listener_cookies_returned_total",
        "counter",
        "SYN cookies of a listener's address that began a connection.",
        |listener| listener.cookies_returned,
    ),
];

fn labels(listener: &GuardedListener) -> [(&str, &str); 2] {
    [("listener", &listener.listener), ("address", &listener.address)]
}
