//! From the end of an IP header to the TCP header, through extension headers.

use super::{Bounds, NO_TCP, PROTOCOL_TCP, Packet, Payload, Tcp, V6_HEADER, parse_tcp};

/// As many as a packet of 1,500 bytes has room for in front of a TCP header. RFC 8200 recommends each at most once, but
/// the kernel walks any number of destination options and routing headers.
pub(super) const MAX_EXTENSIONS: usize = (1_500 - V6_HEADER - 20) / 8;

pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// RFC 8754: it changes the destination, and a packet within the packet may begin behind it.
const SEGMENT_ROUTING: u8 = 4;

/// Whether a TCP header may come of this IPv4 protocol.
#[inline(always)]
pub(super) const fn is_walked_v4(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | AUTHENTICATION)
}

/// RFC 4302: IPv4 knows no extension header but this.
#[inline(always)]
pub(super) fn walk_v4<P: Packet + ?Sized>(packet: &P, at: usize, next: u8, bounds: Bounds) -> (Payload, Tcp) {
    walk(packet, at, next, bounds, |next| next == AUTHENTICATION)
}

/// RFC 8200, 4.
#[inline(always)]
pub(super) fn walk_v6<P: Packet + ?Sized>(packet: &P, at: usize, next: u8, bounds: Bounds) -> (Payload, Tcp) {
    let is_extension = |next| matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION);
    walk(packet, at, next, bounds, is_extension)
}

#[inline(always)]
fn walk<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    next: u8,
    mut bounds: Bounds,
    is_extension: impl Fn(u8) -> bool,
) -> (Payload, Tcp) {
    let mut at = at;
    let mut next = next;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            return end(packet, at, next, bounds);
        }
        let Some(header) = bounds.read::<4, P>(packet, at) else {
            return (bounds.cut(at), NO_TCP);
        };
        let [following, length, third, fourth] = header;
        match next {
            // Segments left, or a kind that has its own way of telling.
            ROUTING if third == SEGMENT_ROUTING || fourth != 0 => return (Payload::Unread, NO_TCP),
            FRAGMENT => {
                let fragment = u16::from_be_bytes([third, fourth]);
                if fragment & 0xfff8 != 0 {
                    return (Payload::Fragment, NO_TCP);
                }
                bounds.has_later_fragments |= fragment & 1 != 0;
            }
            _ => {}
        }
        at = packet.settle(at + size(next, length));
        next = following;
    }
    if is_extension(next) { (Payload::Unread, NO_TCP) } else { end(packet, at, next, bounds) }
}

/// RFC 8200, 4.2, and RFC 4302, 2.2 for the authentication header, which counts in words.
#[inline(always)]
const fn size(kind: u8, length: u8) -> usize {
    match kind {
        FRAGMENT => 8,
        AUTHENTICATION => (length as usize + 2) * 4,
        _ => (length as usize + 1) * 8,
    }
}

#[inline(always)]
fn end<P: Packet + ?Sized>(packet: &P, at: usize, protocol: u8, bounds: Bounds) -> (Payload, Tcp) {
    if protocol == PROTOCOL_TCP { parse_tcp(packet, at, bounds) } else { (Payload::Other, NO_TCP) }
}
