//! `cmim_guard`: looks at every packet of an interface before the network stack does.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use cmim_common::address::{MAPPED_PREFIX, mapped};
use cmim_common::cookie::keeps_its_tags;
use cmim_common::counters::Counters;
use cmim_common::guard::{Outcome, Verdict, judge};
use cmim_common::listener::{Listener, ListenerKey};
use cmim_common::packet::{Header, Payload, Seen, Tcp, V4_HEADER, V6_HEADER, parse};
use cmim_common::rate::{Bucket, Taken, source_v6, take};
use cmim_common::settings::Settings;
use cmim_common::steer::{WHOLE, destination};

use crate::atomic;
use crate::cookie::{self, Answer, Family};
use crate::frame::Frame;
use crate::maps::{
    CMIM_COUNTERS, CMIM_DENY_V4, CMIM_DENY_V6, CMIM_LINKS, CMIM_LISTENERS, CMIM_SETTINGS, CMIM_SOURCES, CMIM_STEERING,
};
use crate::transit::is_transit;

/// Keeps what stands under a key that another CPU has just put there.
const IF_ABSENT: u64 = 1;

/// A TCP segment and what the guard needs to know of the packet around it.
struct Segment {
    /// As `CMIM_SOURCES` has it.
    source: [u8; 16],
    destination: [u8; 16],
    tcp: Tcp,
    /// Where the IP header begins.
    at: usize,
    family: Family,
    /// Nothing stands between the IP and the TCP header.
    plain: bool,
}

#[xdp]
fn cmim_guard(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    // An index that is always there: without it nothing can be counted, and nothing is dropped uncounted.
    let Some(counters) = CMIM_COUNTERS.get_ptr_mut(0) else {
        return XDP_PASS;
    };
    // SAFETY: the slot belongs to this CPU alone and the guard does not interrupt itself on it.
    let counters = unsafe { &mut *counters };
    let length = frame.length();

    let outcome = match parse(&frame) {
        Seen::V4(header) => {
            if CMIM_DENY_V4.get(&Key::new(32, header.source)).is_some() {
                Outcome::DropDenied
            } else {
                let (source, to) = (mapped(header.source), mapped(header.destination));
                outcome(&context, counters, &header, Family::V4, source, to)
            }
        }
        Seen::V6(header) => {
            if is_denied_v6(header.source) {
                Outcome::DropDenied
            } else {
                outcome(&context, counters, &header, Family::V6, source_v6(header.source), header.destination)
            }
        }
        Seen::NotIp => Outcome::PassNotIp,
        Seen::Truncated => Outcome::PassTruncated,
        Seen::Unread => Outcome::DropWrapped,
    };
    match judge(counters, outcome, length) {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
        Verdict::Answer => XDP_TX,
    }
}

/// Whether a source is in the list of IPv6, or of IPv4 where it is an IPv4 address in IPv6's form: no such address belongs
/// on a wire (RFC 4291, 2.5.5.2), but kernels before 5.5 take it.
#[inline(always)]
fn is_denied_v6(source: [u8; 16]) -> bool {
    if CMIM_DENY_V6.get(&Key::new(128, source)).is_some() {
        return true;
    }
    let [prefix @ .., a, b, c, d] = source;
    prefix == MAPPED_PREFIX && CMIM_DENY_V4.get(&Key::new(32, [a, b, c, d])).is_some()
}

/// What an IP packet from a source that is not denied deserves.
#[inline(always)]
fn outcome<const N: usize>(
    context: &XdpContext,
    counters: &mut Counters,
    header: &Header<N>,
    family: Family,
    source: [u8; 16],
    destination: [u8; 16],
) -> Outcome {
    let ip_header = match family {
        Family::V4 => V4_HEADER,
        Family::V6 => V6_HEADER,
    };
    match header.payload {
        Payload::Tcp => {
            let (tcp, at, plain) = (header.tcp, header.at, header.is_plain(ip_header));
            segment(context, counters, &Segment { source, destination, tcp, at, family, plain })
        }
        Payload::Other | Payload::Fragment => Outcome::Pass,
        Payload::Truncated => Outcome::PassTruncated,
        Payload::Unread if is_transit(context, header.at, family) => Outcome::Pass,
        Payload::Unread => Outcome::DropWrapped,
    }
}

#[inline(always)]
fn segment(context: &XdpContext, counters: &mut Counters, segment: &Segment) -> Outcome {
    let opening = segment.tcp.is_opening();
    counters.tcp_syn += u64::from(opening);
    let Some(settings) = CMIM_SETTINGS.get(0) else {
        return Outcome::Pass;
    };
    let Some((listener, reach)) = listener_of(settings, segment.destination, segment.tcp.destination_port) else {
        return Outcome::Pass;
    };
    let is_meant = || matches!(reach, Reach::Named) || !is_transit(context, segment.at, segment.family);
    if segment.tcp.is_impossible() {
        if !is_meant() {
            return Outcome::Pass;
        }
        atomic::add_to!(listener, dropped_flags, 1);
        return Outcome::DropFlags;
    }
    if opening {
        if !is_meant() {
            return Outcome::Pass;
        }
        let outcome = syn(context, settings, listener, segment);
        match outcome {
            Outcome::DropRate => atomic::add_to!(listener, dropped_rate, 1),
            Outcome::AnswerCookie => atomic::add_to!(listener, cookies_sent, 1),
            _ => {
                atomic::add_to!(listener, syns, 1);
                counters.to_listener += 1;
            }
        }
        return outcome;
    }
    counters.to_listener += 1;
    if segment.tcp.is_acknowledging()
        && segment.plain
        && cookie::is_returned(context, listener, segment.at, segment.family)
    {
        atomic::add_to!(listener, cookies_returned, 1);
        counters.cookies_returned += 1;
    }
    Outcome::Pass
}

/// A SYN to a listener.
#[inline(always)]
fn syn(context: &XdpContext, settings: &Settings, listener: *mut Listener, segment: &Segment) -> Outcome {
    if settings.source_interval == 0 && settings.listener_interval == 0 {
        return Outcome::Pass;
    }
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if settings.source_interval != 0 && !admits_source(segment.source, now, settings.source_interval) {
        return Outcome::DropRate;
    }
    // SAFETY: a field of a live map value.
    let full_at = unsafe { &raw mut (*listener).full_at };
    if settings.listener_interval == 0 || takes(full_at, now, settings.listener_interval) {
        return Outcome::Pass;
    }
    if settings.cookies == 0 {
        return Outcome::DropRate;
    }
    if !segment.plain {
        // Options or extension headers in a SYN are rare enough to leave them to the kernel's own queue.
        return Outcome::Pass;
    }
    if !keeps_its_tags(segment.at, deepest_vlan(context)) {
        // The kernel knows the tag that the driver took off, and has cookies of its own.
        return Outcome::Pass;
    }
    match cookie::answer(context, segment.at, segment.family) {
        Answer::Sent => {
            // SAFETY: a field of a live map value; of several CPUs' times any will do.
            unsafe { (&raw mut (*listener).cookie_at).write_volatile(now) };
            Outcome::AnswerCookie
        }
        // The kernel's queue has room still, so it needs no help yet and would not know a cookie of its own.
        Answer::LeftToKernel => Outcome::Pass,
    }
}

/// How many VLAN devices stand on one another on the interface that the packet came in by; 0 where that does not matter.
#[inline(always)]
fn deepest_vlan(context: &XdpContext) -> u32 {
    // SAFETY: the kernel hands every program a readable context.
    let interface = unsafe { (&raw const (*context.ctx).ingress_ifindex).read_volatile() };
    let Some(deepest) = CMIM_LINKS.get_ptr(interface) else { return 0 };
    // SAFETY: a live map value; volatile, because the daemon writes to it.
    unsafe { deepest.read_volatile() }
}

/// Whether a source is within its rate.
#[inline(always)]
fn admits_source(source: [u8; 16], now: u64, interval: u64) -> bool {
    if let Some(bucket) = CMIM_SOURCES.get_ptr_mut(source) {
        // SAFETY: a field of a live map value.
        let full_at = unsafe { &raw mut (*bucket).full_at };
        return takes(full_at, now, interval);
    }
    // Not noted down, because there is no memory or because another CPU was faster: one SYN more passes.
    let _: Result<(), i32> = CMIM_SOURCES.insert(source, Bucket { full_at: now + interval }, IF_ABSENT);
    true
}

/// Takes a token from a bucket in a map.
#[inline(always)]
fn takes(full_at: *mut u64, now: u64, interval: u64) -> bool {
    // SAFETY: the callers pass a field of a live map value; volatile, as other CPUs write to it.
    let before = unsafe { full_at.read_volatile() };
    match take(before, now, interval) {
        Taken::First { full_at: anew } => {
            // SAFETY: as above. Two CPUs that both find a full bucket lose one token of a whole second's.
            unsafe { full_at.write_volatile(anew) };
            true
        }
        Taken::Further => {
            // SAFETY: as above.
            unsafe { atomic::add(full_at, interval) };
            true
        }
        Taken::Refused => false,
    }
}

/// How a listener was found.
#[derive(Clone, Copy)]
enum Reach {
    /// By its address.
    Named,
    /// By a network or as the one on every address of its family: not all of these need be this host's.
    Among,
}

/// The listener on exactly this address, else the one with the smallest network that holds it, else the one on every
/// address of its family.
#[inline(always)]
fn listener_of(settings: &Settings, address: [u8; 16], port: [u8; 2]) -> Option<(*mut Listener, Reach)> {
    let exact = ListenerKey { address, port };
    // First, as exact addresses stand there too and a network's key is an address that may be another listener's.
    if settings.steered != 0
        && let Some(key) = CMIM_STEERING.get(&Key::new(WHOLE, destination(address, port)))
        && let Some(listener) = CMIM_LISTENERS.get_ptr_mut(key)
    {
        return Some((listener, if *key == exact { Reach::Named } else { Reach::Among }));
    }
    if let Some(listener) = CMIM_LISTENERS.get_ptr_mut(exact) {
        return Some((listener, Reach::Named));
    }
    let unspecified = if address.starts_with(&MAPPED_PREFIX) { mapped([0; 4]) } else { [0; 16] };
    let listener = CMIM_LISTENERS.get_ptr_mut(ListenerKey { address: unspecified, port })?;
    Some((listener, Reach::Among))
}
