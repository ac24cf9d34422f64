//! What the guard reads of a packet: Ethernet, VLAN tags, IPv4 or IPv6, the first bytes of TCP.
//!
//! Pure, and generic over where the bytes are: a slice in tests, checked packet memory in XDP. It judges nothing; see
//! [`crate::guard`]. It reads all that Linux would walk through on the way to a listener. What it cannot follow to the
//! TCP header is [`Payload::Unread`], never "something else".

mod chain;
pub(crate) mod link;
mod options;

/// Bytes that can be read at an offset, or not.
pub trait Packet {
    /// `N` bytes from `offset` on; `None` if the packet ends before their end.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The same offset, which is at most [`FURTHEST`] and a few thousand more. In XDP the verifier forgets here how it
    /// was reached. Otherwise it would look at all that follows once for each number of headers in front of it.
    #[inline(always)]
    fn settle(&self, offset: usize) -> usize {
        offset
    }
}

/// The verifier bounds packet offsets by 16 bits (`MAX_PACKET_OFF`). A header that begins further in is not read.
pub const FURTHEST: usize = 0x7fff;

/// What a packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    V4(Header<4>),
    V6(Header<16>),
    /// ARP and everything else that is neither.
    NotIp,
    /// It ends, or contradicts itself, before its addresses were read. The kernel drops it for that.
    Truncated,
    /// Behind more VLAN tags than are looked through. The kernel may find an IP packet there.
    Unread,
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
    /// Another protocol.
    Other,
    /// A later fragment: its first bytes are no header. Its first fragment was judged or dropped, and the kernel drops
    /// fragments that overlap.
    Fragment,
    /// It ends before the bytes of interest. The kernel drops it for that.
    Truncated,
    /// The kernel may deliver it as TCP, to this address or another one, but the TCP header cannot be read here: it
    /// begins in a later fragment, behind more headers than are walked, or after a hop that the packet itself names.
    Unread,
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

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;

pub const V4_HEADER: usize = 20;
pub const V6_HEADER: usize = 40;
pub const PROTOCOL_TCP: u8 = 6;

/// Reads as much of a packet as the guard needs.
#[inline(always)]
#[must_use]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Seen {
    match link::network(packet) {
        link::Network::Begins { ethertype: ETHERTYPE_V4, at } => parse_v4(packet, at),
        link::Network::Begins { ethertype: ETHERTYPE_V6, at } => parse_v6(packet, at),
        link::Network::Begins { .. } => Seen::NotIp,
        link::Network::Truncated => Seen::Truncated,
        link::Network::TooManyTags => Seen::Unread,
    }
}

/// RFC 791, 3.1.
#[inline(always)]
fn parse_v4<P: Packet + ?Sized>(packet: &P, at: usize) -> Seen {
    let Some(header) = packet.read::<V4_HEADER>(at) else {
        return Seen::Truncated;
    };
    let [first, _, l0, l1, _, _, fragment_high, fragment_low, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        header;
    let header_length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_length < V4_HEADER {
        return Seen::Truncated;
    }
    let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    let offset = fragment & 0x1fff;
    if offset != 0 {
        // RFC 1858, 3: the second eight bytes of a TCP header are its flags' place. No first fragment that passes is so
        // short that these would follow it.
        let payload = if offset == 1 && protocol == PROTOCOL_TCP { Payload::Unread } else { Payload::Fragment };
        return Seen::V4(Header { at, source, destination, payload, tcp: NO_TCP });
    }
    let whole = usize::from(u16::from_be_bytes([l0, l1]));
    let bounds = Bounds {
        // Behind it comes padding, which is nobody's. 0: the kernel goes by the frame's length, if by any (`iph_totlen`).
        end: if whole == 0 { UNBOUNDED } else { at + whole },
        has_later_fragments: fragment & 0x2000 != 0,
    };
    let begins = at + header_length;
    let (payload, tcp) = if chain::is_walked_v4(protocol)
        && header_length > V4_HEADER
        && options::is_source_routed(packet, at + V4_HEADER, begins)
    {
        (Payload::Unread, NO_TCP)
    } else {
        chain::walk_v4(packet, begins, protocol, bounds)
    };
    Seen::V4(Header { at, source, destination, payload, tcp })
}

/// RFC 8200, 3.
#[inline(always)]
fn parse_v6<P: Packet + ?Sized>(packet: &P, at: usize) -> Seen {
    let Some([first, _, _, _, l0, l1, next, _]) = packet.read::<8>(at) else {
        return Seen::Truncated;
    };
    if first >> 4 != 6 {
        return Seen::Truncated;
    }
    let (Some(source), Some(destination)) = (packet.read::<16>(at + 8), packet.read::<16>(at + 24)) else {
        return Seen::Truncated;
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    // RFC 2675: 0 with hop-by-hop options may be a jumbogram. The kernel then goes by the frame's length (`ip6_rcv_core`).
    let is_open = length == 0 && next == chain::HOP_BY_HOP;
    let bounds = Bounds { end: if is_open { UNBOUNDED } else { at + V6_HEADER + length }, has_later_fragments: false };
    let (payload, tcp) = chain::walk_v6(packet, at + V6_HEADER, next, bounds);
    Seen::V6(Header { at, source, destination, payload, tcp })
}

/// Within what a packet's headers are looked for.
#[derive(Clone, Copy)]
struct Bounds {
    /// Where the IP packet ends, which may be before the frame does.
    end: usize,
    /// What is missing at the end may come with another packet.
    has_later_fragments: bool,
}

/// Further in than any packet reaches.
const UNBOUNDED: usize = 0x000f_ffff;

impl Bounds {
    /// `N` bytes of the IP packet.
    #[inline(always)]
    fn read<const N: usize, P: Packet + ?Sized>(self, packet: &P, at: usize) -> Option<[u8; N]> {
        if at + N > self.end { None } else { packet.read::<N>(at) }
    }

    /// What a packet is whose headers are not there to their end, from `at` on.
    #[inline(always)]
    const fn cut(self, at: usize) -> Payload {
        if self.has_later_fragments || at > FURTHEST { Payload::Unread } else { Payload::Truncated }
    }
}

/// RFC 9293, 3.1: up to the flags.
#[inline(always)]
fn parse_tcp<P: Packet + ?Sized>(packet: &P, at: usize, bounds: Bounds) -> (Payload, Tcp) {
    match (bounds.read::<2, P>(packet, at + 2), bounds.read::<2, P>(packet, at + 12)) {
        (Some(destination_port), Some([_, flags])) => (Payload::Tcp, Tcp { at, destination_port, flags }),
        _ => (bounds.cut(at), NO_TCP),
    }
}

#[cfg(test)]
mod tests;
