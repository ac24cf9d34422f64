//! `cmim_guard`: looks at every packet of an interface before the network stack does.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use cmim_common::address::{MAPPED_PREFIX, mapped};
use cmim_common::counters::Counters;
use cmim_common::guard::{Outcome, Verdict, judge};
use cmim_common::listener::{Listener, ListenerKey};
use cmim_common::packet::{Packet, Payload, Seen, Tcp, parse};

use crate::atomic;
use crate::maps::{CMIM_COUNTERS, CMIM_DENY_V4, CMIM_DENY_V6, CMIM_LISTENERS};

/// A packet's memory. XDP gives its start and its end; the verifier follows every read back to a check against the end.
struct Frame {
    start: usize,
    end: usize,
}

/// The verifier bounds packet offsets by 16 bits (`MAX_PACKET_OFF`); no header that the guard reads is this far in.
const FURTHEST_READ: usize = 0x7fff;

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > FURTHEST_READ {
            return None;
        }
        let from = self.start + offset;
        if from + N > self.end {
            return None;
        }
        // SAFETY: the N bytes at `from` lie between the packet's start and its end, and bytes need no alignment.
        Some(unsafe { *(from as *const [u8; N]) })
    }
}

#[xdp]
fn cmim_guard(context: XdpContext) -> u32 {
    let frame = Frame { start: context.data(), end: context.data_end() };
    // An index that is always there: without it nothing can be counted, and nothing is dropped uncounted.
    let Some(counters) = CMIM_COUNTERS.get_ptr_mut(0) else {
        return XDP_PASS;
    };
    // SAFETY: the slot belongs to this CPU alone and the guard does not interrupt itself on it.
    let counters = unsafe { &mut *counters };
    let length = frame.end.saturating_sub(frame.start) as u64;

    let outcome = match parse(&frame) {
        Seen::V4(header) => {
            let denied = CMIM_DENY_V4.get(&Key::new(32, header.source)).is_some();
            outcome(counters, denied, mapped(header.destination), header.payload, header.tcp)
        }
        Seen::V6(header) => {
            let denied = CMIM_DENY_V6.get(&Key::new(128, header.source)).is_some();
            outcome(counters, denied, header.destination, header.payload, header.tcp)
        }
        Seen::NotIp => Outcome::PassNotIp,
        Seen::Truncated => Outcome::PassTruncated,
    };
    match judge(counters, outcome, length) {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
    }
}

/// What an IP packet deserves. TCP is counted on the way.
#[inline(always)]
fn outcome(counters: &mut Counters, denied: bool, destination: [u8; 16], payload: Payload, tcp: Tcp) -> Outcome {
    if denied {
        return Outcome::DropDenied;
    }
    match payload {
        Payload::Tcp => {
            counters.tcp_syn += u64::from(tcp.is_opening());
            counters.to_listener += u64::from(to_listener(destination, tcp));
            Outcome::Pass
        }
        Payload::Other | Payload::Fragment => Outcome::Pass,
        Payload::Truncated => Outcome::PassTruncated,
    }
}

/// Whether a segment goes to one of the device's listeners; an opening one is counted there.
#[inline(always)]
fn to_listener(destination: [u8; 16], tcp: Tcp) -> bool {
    let Some(listener) = listener_of(destination, tcp.destination_port) else {
        return false;
    };
    if tcp.is_opening() {
        // SAFETY: a field of a live map value that only atomic additions write.
        unsafe { atomic::add(&raw mut (*listener).syns, 1) };
    }
    true
}

/// The listener on exactly this address, else the one on every address of its family.
#[inline(always)]
fn listener_of(address: [u8; 16], port: [u8; 2]) -> Option<*mut Listener> {
    let exact = ListenerKey { address, port };
    if let Some(listener) = CMIM_LISTENERS.get_ptr_mut(&exact) {
        return Some(listener);
    }
    let unspecified = if address.starts_with(&MAPPED_PREFIX) { mapped([0; 4]) } else { [0; 16] };
    CMIM_LISTENERS.get_ptr_mut(&ListenerKey { address: unspecified, port })
}
