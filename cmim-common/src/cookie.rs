//! The reply to a SYN that costs the device no memory: a SYN-ACK whose sequence number is a cookie (RFC 4987, 3.6).
//!
//! Pure. The kernel makes the cookie, and its own listener takes the connection over when the client's ACK brings it
//! back. Of the options only the maximum segment size is offered: the others would have to come back in the timestamp,
//! to which the kernel adds a secret of its own (`secure_tcp_ts_off`) that the guard does not know. So connections that
//! begin in a flood have neither window scaling nor selective acknowledgements, as with the kernel's own cookies for a
//! client without timestamps.

use crate::packet::link::{ETHERNET, VLAN_TAG};
use crate::packet::{FLAG_ACK, FLAG_SYN, PROTOCOL_TCP, V4_HEADER, V6_HEADER};

/// A TCP header without options.
pub const TCP_HEADER: usize = 20;
/// A TCP header with all the options that fit (RFC 9293, 3.1).
pub const TCP_HEADER_MAX: usize = 60;
/// The reply's TCP header: its only option is the maximum segment size.
pub const REPLY_TCP: usize = TCP_HEADER + 4;
/// IEEE 802.3: a shorter frame is padded.
pub const SHORTEST_FRAME: usize = 60;

/// Entries of `CMIM_LINKS`: guarded interfaces with VLAN devices on them.
pub const MAX_LINKS: usize = 1_024;

/// Whether a reply to a SYN whose IP header begins at `at` goes back into the VLAN that the SYN came from. A card's driver
/// may take tags off before the guard sees the frame, and puts none on what the guard sends. `deepest`: how many VLAN
/// devices stand on one another on the interface. A frame that shows as many tags has lost none of them.
#[inline(always)]
#[must_use]
pub const fn keeps_its_tags(at: usize, deepest: u32) -> bool {
    at >= ETHERNET + deepest as usize * VLAN_TAG
}

/// Memory of the making of a reply.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// The SYN's IP header, in the first bytes.
    pub ip: [u8; V6_HEADER],
    /// The SYN's TCP header with its options.
    pub tcp: [u8; TCP_HEADER_MAX],
    /// The connection's ends as the kernel looks them up: addresses, then ports, the client's first.
    pub ends: [u8; ENDS_V6],
    /// The IP and TCP header of the reply.
    pub reply: [u8; REPLY_V6],
}

pub const ENDS_V4: usize = 2 * (4 + 2);
pub const ENDS_V6: usize = 2 * (16 + 2);
pub const REPLY_V4: usize = V4_HEADER + REPLY_TCP;
pub const REPLY_V6: usize = V6_HEADER + REPLY_TCP;

/// After this long without a new cookie none can come back that matters: a handshake takes a round trip.
pub const RETURN_TIME: u64 = 10_000_000_000;

const REPLY_TCP_WORDS: u8 = 6;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
const OPTION_MSS: u8 = 2;
/// What the kernel offers before it has scaled its window; a multiple of the usual segment.
const WINDOW: [u8; 2] = 64_240_u16.to_be_bytes();
/// RFC 9293, 3.7.1: what every host takes.
const LEAST_MSS_V4: u16 = 536;
/// RFC 8200, 5: the least link of 1280 bytes, less the headers.
const LEAST_MSS_V6: u16 = 1_220;

/// Length of a TCP header by its own word; `None`: a length that no header has.
#[inline(always)]
#[must_use]
pub const fn header_length(tcp: &[u8; TCP_HEADER]) -> Option<usize> {
    let [_, _, _, _, _, _, _, _, _, _, _, _, offset, ..] = *tcp;
    let length = (offset >> 4) as usize * 4;
    if length < TCP_HEADER { None } else { Some(length) }
}

/// Whether an IPv4 packet is a bare segment: headers and nothing behind them. Only the first of a handshake's segments
/// with the cookie's numbers is; a request that follows has the same numbers.
#[inline(always)]
#[must_use]
pub const fn is_bare_v4(ip: &[u8; V4_HEADER], tcp: &[u8; TCP_HEADER]) -> bool {
    let [_, _, high, low, ..] = *ip;
    is_bare(u16::from_be_bytes([high, low]) as usize, V4_HEADER, tcp)
}

/// The same for IPv6, whose length leaves its own header out.
#[inline(always)]
#[must_use]
pub const fn is_bare_v6(ip: &[u8; V6_HEADER], tcp: &[u8; TCP_HEADER]) -> bool {
    let [_, _, _, _, high, low, ..] = *ip;
    is_bare(u16::from_be_bytes([high, low]) as usize, 0, tcp)
}

#[inline(always)]
const fn is_bare(length: usize, before: usize, tcp: &[u8; TCP_HEADER]) -> bool {
    match header_length(tcp) {
        Some(header) => length == before + header,
        None => false,
    }
}

/// The segment size to offer on a link with this MTU.
#[inline(always)]
#[must_use]
pub const fn mss_v4(mtu: u32) -> u16 {
    mss(mtu, V4_HEADER, LEAST_MSS_V4)
}

/// The same for IPv6.
#[inline(always)]
#[must_use]
pub const fn mss_v6(mtu: u32) -> u16 {
    mss(mtu, V6_HEADER, LEAST_MSS_V6)
}

#[inline(always)]
const fn mss(mtu: u32, ip_header: usize, least: u16) -> u16 {
    let room = mtu.saturating_sub((ip_header + TCP_HEADER) as u32);
    if room < least as u32 {
        least
    } else if room > u16::MAX as u32 {
        u16::MAX
    } else {
        room as u16
    }
}

/// Fills in the ends of an IPv4 SYN's connection.
#[inline(always)]
pub fn ends_v4(ip: &[u8; V4_HEADER], syn: &[u8; TCP_HEADER], ends: &mut [u8; ENDS_V4]) {
    let [.., a0, a1, a2, a3, b0, b1, b2, b3] = *ip;
    let [s0, s1, d0, d1, ..] = *syn;
    *ends = [a0, a1, a2, a3, b0, b1, b2, b3, s0, s1, d0, d1];
}

/// Fills in the ends of an IPv6 SYN's connection.
#[inline(always)]
pub fn ends_v6(ip: &[u8; V6_HEADER], syn: &[u8; TCP_HEADER], ends: &mut [u8; ENDS_V6]) {
    copy::<32, _, _>(ip, 8, ends, 0);
    copy::<4, _, _>(syn, 0, ends, 32);
}

/// Writes the IPv4 and TCP headers of the reply to a SYN with these headers.
#[inline(always)]
pub fn reply_v4(ip: &[u8; V4_HEADER], syn: &[u8; TCP_HEADER], cookie: u32, mss: u16, reply: &mut [u8; REPLY_V4]) {
    let [length_high, length_low] = (REPLY_V4 as u16).to_be_bytes();
    let fixed = [0x45, 0, length_high, length_low, 0, 0, DONT_FRAGMENT, 0, TTL, PROTOCOL_TCP, 0, 0];
    copy::<12, _, _>(&fixed, 0, reply, 0);
    copy::<4, _, _>(ip, 16, reply, 12);
    copy::<4, _, _>(ip, 12, reply, 16);
    [reply[10], reply[11]] = folded(sum::<V4_HEADER, _>(reply, 0));
    segment(syn, cookie, mss, reply, V4_HEADER);
    let addresses = sum::<8, _>(reply, 12);
    finish_segment(addresses, reply, V4_HEADER);
}

/// Writes the IPv6 and TCP headers of the reply to a SYN with these headers.
#[inline(always)]
pub fn reply_v6(ip: &[u8; V6_HEADER], syn: &[u8; TCP_HEADER], cookie: u32, mss: u16, reply: &mut [u8; REPLY_V6]) {
    let [length_high, length_low] = (REPLY_TCP as u16).to_be_bytes();
    copy::<8, _, _>(&[0x60, 0, 0, 0, length_high, length_low, PROTOCOL_TCP, TTL], 0, reply, 0);
    copy::<16, _, _>(ip, 24, reply, 8);
    copy::<16, _, _>(ip, 8, reply, 24);
    segment(syn, cookie, mss, reply, V6_HEADER);
    let addresses = sum::<32, _>(reply, 8);
    finish_segment(addresses, reply, V6_HEADER);
}

/// Writes the TCP header at `at`, with a checksum of zero.
#[inline(always)]
fn segment<const R: usize>(syn: &[u8; TCP_HEADER], cookie: u32, mss: u16, reply: &mut [u8; R], at: usize) {
    let [s0, s1, d0, d1, q0, q1, q2, q3, ..] = *syn;
    // Data in the SYN is not taken: it was not asked for, and the client sends it again.
    let [a0, a1, a2, a3] = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(1).to_be_bytes();
    let [c0, c1, c2, c3] = cookie.to_be_bytes();
    let [w0, w1] = WINDOW;
    let [m0, m1] = mss.to_be_bytes();
    let flags = FLAG_SYN | FLAG_ACK;
    copy::<12, _, _>(&[d0, d1, s0, s1, c0, c1, c2, c3, a0, a1, a2, a3], 0, reply, at);
    copy::<12, _, _>(&[REPLY_TCP_WORDS << 4, flags, w0, w1, 0, 0, 0, 0, OPTION_MSS, 4, m0, m1], 0, reply, at + 12);
}

/// Fills in the checksum. RFC 9293, 3.1: over the addresses, the protocol and the length as well.
#[inline(always)]
fn finish_segment<const R: usize>(addresses: u32, reply: &mut [u8; R], at: usize) {
    let pseudo = addresses + u32::from(PROTOCOL_TCP) + REPLY_TCP as u32;
    let checksum = folded(pseudo + sum::<REPLY_TCP, _>(reply, at));
    copy::<2, _, _>(&checksum, 0, reply, at + 16);
}

/// Copies `N` bytes within arrays that hold them. Bytes beyond an array's end, which no caller asks for, stay away.
#[inline(always)]
fn copy<const N: usize, const F: usize, const T: usize>(from: &[u8; F], start: usize, to: &mut [u8; T], at: usize) {
    let mut step = 0;
    while step < N {
        if let (Some(byte), Some(place)) = (from.get(start + step), to.get_mut(at + step)) {
            *place = *byte;
        }
        step += 1;
    }
}

/// RFC 1071: the sum of `N` bytes as 16-bit words, not yet folded. `N` is even and small, so it fits.
#[inline(always)]
fn sum<const N: usize, const F: usize>(bytes: &[u8; F], start: usize) -> u32 {
    let mut sum = 0_u32;
    let mut step = 0;
    while step < N {
        if let (Some(high), Some(low)) = (bytes.get(start + step), bytes.get(start + step + 1)) {
            sum += u32::from(u16::from_be_bytes([*high, *low]));
        }
        step += 2;
    }
    sum
}

#[inline(always)]
fn folded(sum: u32) -> [u8; 2] {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    (!(twice as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests;
