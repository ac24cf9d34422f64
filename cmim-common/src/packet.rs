//! What the guard reads of a packet: Ethernet, up to two VLAN tags, IPv4 or IPv6, the first bytes of TCP.
//!
//! Pure, and generic over where the bytes are: a slice in tests, checked packet memory in XDP. It judges nothing; see
//! [`crate::guard`].

/// Bytes that can be read at an offset, or not.
pub trait Packet {
    /// `N` bytes from `offset` on; `None` if the packet ends before their end.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// What a packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    V4(Header<4>),
    V6(Header<16>),
    /// ARP and everything else that is neither, also behind more VLAN tags than are looked through.
    NotIp,
    /// It ends, or contradicts itself, before its addresses were read.
    Truncated,
}

/// An IP packet with addresses of `N` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<const N: usize> {
    /// Where the IP header begins in the packet.
    pub at: usize,
    pub source: [u8; N],
    pub destination: [u8; N],
    pub payload: Payload,
    /// Zeros unless the payload is [`Payload::Tcp`]. Beside the enum and not in it: bytes of a variant that is not taken
    /// are undefined, LLVM may fill their register with a packet pointer, and the verifier refuses the arithmetic on it.
    pub tcp: Tcp,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Tcp,
    /// Another protocol, or one behind more IPv6 extension headers than are looked through.
    Other,
    /// A later fragment: its first bytes are no header.
    Fragment,
    /// It ends before the bytes of interest.
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Where the TCP header begins in the packet.
    pub at: usize,
    pub destination_port: [u8; 2],
    /// RFC 9293, 3.1: CWR ECE URG ACK PSH RST SYN FIN, highest bit first.
    pub flags: u8,
}

const NO_TCP: Tcp = Tcp { at: 0, destination_port: [0; 2], flags: 0 };

pub const FLAG_FIN: u8 = 0x01;
pub const FLAG_SYN: u8 = 0x02;
pub const FLAG_RST: u8 = 0x04;
pub const FLAG_ACK: u8 = 0x10;

impl Tcp {
    /// Whether it asks for a new connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_opening(&self) -> bool {
        self.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
    }

    /// Whether it may be the last step of a handshake. So may be any segment of an open connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_acknowledging(&self) -> bool {
        self.flags & (FLAG_SYN | FLAG_ACK | FLAG_RST) == FLAG_ACK
    }

    /// Whether no TCP of this world sends these flags in any state (RFC 9293, 3.10.7): at most one of SYN, FIN and RST,
    /// and ACK in all but the first SYN and some RSTs. So none at all, FIN alone and "Xmas" are out. PSH, URG and the
    /// ECN bits go with anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_impossible(&self) -> bool {
        let steps = self.flags & (FLAG_SYN | FLAG_FIN | FLAG_RST);
        let several = steps & steps.wrapping_sub(1) != 0;
        let unanchored = self.flags & (FLAG_SYN | FLAG_RST | FLAG_ACK) == 0;
        several || unanchored
    }
}

impl<const N: usize> Header<N> {
    /// Whether TCP comes right behind an IP header of this many bytes: no options, no extension headers.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self, ip_header: usize) -> bool {
        self.tcp.at == self.at + ip_header
    }
}

const ETHERNET: usize = 14;
const ETHERTYPE_AT: usize = 12;
const VLAN_TAG: usize = 4;
/// 802.1ad allows two; what carries more is no traffic for a web server.
const MAX_VLAN_TAGS: usize = 2;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

pub const V4_HEADER: usize = 20;
pub const V6_HEADER: usize = 40;
/// RFC 8200 recommends each extension header at most once; a longer chain is read as "not TCP" and passes.
const MAX_EXTENSIONS: usize = 6;

pub const PROTOCOL_TCP: u8 = 6;
const EXTENSION_HOP_BY_HOP: u8 = 0;
const EXTENSION_ROUTING: u8 = 43;
const EXTENSION_FRAGMENT: u8 = 44;
const EXTENSION_AUTHENTICATION: u8 = 51;
const EXTENSION_DESTINATION: u8 = 60;

/// Reads as much of a packet as the guard needs.
#[inline(always)]
#[must_use]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Seen {
    let Some(ethertype) = packet.read::<2>(ETHERTYPE_AT) else {
        return Seen::Truncated;
    };
    let mut ethertype = u16::from_be_bytes(ethertype);
    let mut at = ETHERNET;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let Some([_, _, high, low]) = packet.read::<VLAN_TAG>(at) else {
            return Seen::Truncated;
        };
        ethertype = u16::from_be_bytes([high, low]);
        at += VLAN_TAG;
    }
    match ethertype {
        ETHERTYPE_V4 => parse_v4(packet, at),
        ETHERTYPE_V6 => parse_v6(packet, at),
        _ => Seen::NotIp,
    }
}

/// RFC 791, 3.1.
#[inline(always)]
fn parse_v4<P: Packet + ?Sized>(packet: &P, at: usize) -> Seen {
    let Some(header) = packet.read::<V4_HEADER>(at) else {
        return Seen::Truncated;
    };
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let header_length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_length < V4_HEADER {
        return Seen::Truncated;
    }
    let fragment_offset = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff;
    let (payload, tcp) = if fragment_offset != 0 {
        (Payload::Fragment, NO_TCP)
    } else if protocol == PROTOCOL_TCP {
        parse_tcp(packet, at + header_length)
    } else {
        (Payload::Other, NO_TCP)
    };
    Seen::V4(Header { at, source: [s0, s1, s2, s3], destination: [d0, d1, d2, d3], payload, tcp })
}

/// RFC 8200, 3.
#[inline(always)]
fn parse_v6<P: Packet + ?Sized>(packet: &P, at: usize) -> Seen {
    let Some([first, _, _, _, _, _, next, _]) = packet.read::<8>(at) else {
        return Seen::Truncated;
    };
    if first >> 4 != 6 {
        return Seen::Truncated;
    }
    let (Some(source), Some(destination)) = (packet.read::<16>(at + 8), packet.read::<16>(at + 24)) else {
        return Seen::Truncated;
    };
    let (payload, tcp) = parse_extensions(packet, at + V6_HEADER, next);
    Seen::V6(Header { at, source, destination, payload, tcp })
}

/// RFC 8200, 4, and RFC 4302, 2.2 for the authentication header's length in words.
#[inline(always)]
fn parse_extensions<P: Packet + ?Sized>(packet: &P, at: usize, next: u8) -> (Payload, Tcp) {
    let mut at = at;
    let mut next = next;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            PROTOCOL_TCP => return parse_tcp(packet, at),
            EXTENSION_HOP_BY_HOP
            | EXTENSION_ROUTING
            | EXTENSION_DESTINATION
            | EXTENSION_AUTHENTICATION
            | EXTENSION_FRAGMENT => {}
            _ => return (Payload::Other, NO_TCP),
        }
        let Some([following, length, offset_high, offset_low]) = packet.read::<4>(at) else {
            return (Payload::Truncated, NO_TCP);
        };
        if next == EXTENSION_FRAGMENT && u16::from_be_bytes([offset_high, offset_low]) & 0xfff8 != 0 {
            return (Payload::Fragment, NO_TCP);
        }
        at += match next {
            EXTENSION_FRAGMENT => 8,
            EXTENSION_AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next = following;
    }
    (Payload::Other, NO_TCP)
}

/// RFC 9293, 3.1: up to the flags.
#[inline(always)]
fn parse_tcp<P: Packet + ?Sized>(packet: &P, at: usize) -> (Payload, Tcp) {
    match (packet.read::<2>(at + 2), packet.read::<1>(at + 13)) {
        (Some(destination_port), Some([flags])) => (Payload::Tcp, Tcp { at, destination_port, flags }),
        _ => (Payload::Truncated, NO_TCP),
    }
}

#[cfg(test)]
mod tests;
