//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): the header with which a proxy in front names
//! the client, and with which this device names it to a server.
//!
//! Pure: owns the bytes of that header and nothing else; bytes come in from whoever reads a connection's beginning,
//! addresses go out, and the other way round. It must not know who may send a header: a listener's
//! `accept_proxy_protocol` says so, and where it does, a connection without a header is an error and never a connection
//! like any other, because the client could otherwise leave it out, or write one itself.
//!
//! An IPv4 address that comes as an IPv4-mapped IPv6 one is IPv4 again after [`parse`], so that lists of networks,
//! limits and logs meet one form of each client.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use bytes::{BufMut, BytesMut};

/// Longest v1 header with its CRLF (section 2.1): no valid one needs more, and a reader must give up there.
pub const V1_MAX: usize = 107;
/// Longest block of addresses and TLVs that is taken after the fixed part of a v2 header. The field allows 65,535; no
/// sender known writes more than haproxy's buffer of 16 KiB, in which the largest TLV is a client's certificate.
pub const V2_BLOCK_MAX: usize = 16 * 1024;

const V1_OPENING: &[u8; 6] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and the length of what follows.
const V2_FIXED: usize = 16;
const V2_VERSION: u8 = 2;
const V2_COMMAND_LOCAL: u8 = 0;
const V2_COMMAND_PROXY: u8 = 1;
/// Address family in the high half, transport in the low one. All others are unassigned and have to be refused.
const V2_UNSPECIFIED: u8 = 0x00;
const V2_STREAM_V4: u8 = 0x11;
const V2_DATAGRAM_V4: u8 = 0x12;
const V2_STREAM_V6: u8 = 0x21;
const V2_DATAGRAM_V6: u8 = 0x22;
const V2_STREAM_UNIX: u8 = 0x31;
const V2_DATAGRAM_UNIX: u8 = 0x32;
/// Two addresses and two ports.
const V2_BLOCK_V4: usize = 12;
const V2_BLOCK_V6: usize = 36;
/// Two socket paths of 108 bytes.
const V2_BLOCK_UNIX: usize = 216;

/// What the beginning of a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So far the beginning of a header.
    NeedMore,
    /// A whole header; the client's own bytes start at `consumed`.
    Header { consumed: usize, addresses: Addresses },
}

/// Both ends of the connection that the sender of the header has with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// The sender speaks for itself (a health probe), or cannot say: the addresses of the socket count.
    Unknown,
    Known {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Why a connection does not begin with a valid header. The connection has to be closed, with nothing sent: what
/// follows cannot be told from the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    #[error("the PROXY v1 header does not end within {} bytes", V1_MAX)]
    V1TooLong,
    #[error("the PROXY v1 header has a CR or LF that is not the CRLF at its end")]
    V1LineEnd,
    #[error("the PROXY v1 header is neither UNKNOWN, nor TCP4 or TCP6 with two addresses and two ports")]
    V1Fields,
    #[error("the PROXY v1 header has an address that is not of the family it names")]
    V1Address,
    #[error("the PROXY v1 header has a port that is not a number from 0 to 65535")]
    V1Port,
    #[error("the PROXY header has the unknown version {version}")]
    V2Version { version: u8 },
    #[error("the PROXY v2 header has the unknown command {command}")]
    V2Command { command: u8 },
    #[error("the PROXY v2 header has the unassigned address family {family:#04x}")]
    V2Family { family: u8 },
    #[error("the PROXY v2 header says that {length} bytes follow; at most {} are taken", V2_BLOCK_MAX)]
    V2TooLong { length: usize },
    #[error("the PROXY v2 header says that {length} bytes follow; its addresses need {needed}")]
    V2TooShort { length: usize, needed: usize },
}

/// Reads the header at the beginning of a connection. Bounded: after [`V1_MAX`] or 16 + [`V2_BLOCK_MAX`] bytes it never
/// says [`Parsed::NeedMore`].
pub fn parse(buf: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    if let Some(rest) = buf.strip_prefix(V1_OPENING) {
        return parse_v1(rest);
    }
    if let Some(rest) = buf.strip_prefix(V2_SIGNATURE) {
        return parse_v2(rest);
    }
    // A client that sends no header must not wait for the rest of one.
    if V1_OPENING.starts_with(buf) || V2_SIGNATURE.starts_with(buf) {
        Ok(Parsed::NeedMore)
    } else {
        Err(ProxyProtocolError::NoHeader)
    }
}

/// Appends a v1 header. Ends of differing families are written as TCP6, the IPv4 one mapped.
pub fn write_v1(source: SocketAddr, destination: SocketAddr, out: &mut BytesMut) {
    let (source_port, destination_port) = (source.port(), destination.port());
    // Formatting into a growing buffer cannot fail.
    let _: fmt::Result = match Ends::of(source, destination) {
        Ends::V4 { source, destination } => {
            write!(out, "PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n")
        }
        Ends::V6 { source, destination } => {
            let (source, destination) = (Hexadecimal(source), Hexadecimal(destination));
            write!(out, "PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n")
        }
    };
}

/// Appends a v2 header without TLVs. Ends of differing families are written as IPv6, the IPv4 one mapped.
pub fn write_v2(source: SocketAddr, destination: SocketAddr, out: &mut BytesMut) {
    out.put_slice(V2_SIGNATURE);
    out.put_u8(V2_VERSION << 4 | V2_COMMAND_PROXY);
    match Ends::of(source, destination) {
        Ends::V4 { source, destination } => {
            out.put_u8(V2_STREAM_V4);
            out.put_u16(V2_BLOCK_V4 as u16);
            out.put_slice(&source.octets());
            out.put_slice(&destination.octets());
        }
        Ends::V6 { source, destination } => {
            out.put_u8(V2_STREAM_V6);
            out.put_u16(V2_BLOCK_V6 as u16);
            out.put_slice(&source.octets());
            out.put_slice(&destination.octets());
        }
    }
    out.put_u16(source.port());
    out.put_u16(destination.port());
}

/// Appends a v1 header of a connection that is the sender's own, no client's.
pub fn write_own_v1(out: &mut BytesMut) {
    out.put_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a v2 header of a connection that is the sender's own, no client's.
pub fn write_own_v2(out: &mut BytesMut) {
    out.put_slice(V2_SIGNATURE);
    out.put_u8(V2_VERSION << 4 | V2_COMMAND_LOCAL);
    // No family, no addresses.
    out.put_slice(&[0; 3]);
}

/// `rest`: what follows the opening.
fn parse_v1(rest: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    const REST_MAX: usize = V1_MAX - V1_OPENING.len();
    let within = rest.get(..REST_MAX).unwrap_or(rest);
    let ends_at = within.iter().position(|octet| matches!(octet, b'\r' | b'\n'));
    let (line, end) = within.split_at(ends_at.unwrap_or(within.len()));
    match end {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if within.len() < REST_MAX => return Ok(Parsed::NeedMore),
        [] | [b'\r'] => return Err(ProxyProtocolError::V1TooLong),
        _ => return Err(ProxyProtocolError::V1LineEnd),
    }
    let consumed = V1_OPENING.len() + line.len() + b"\r\n".len();
    Ok(Parsed::Header { consumed, addresses: v1_addresses(line)? })
}

fn v1_addresses(line: &[u8]) -> Result<Addresses, ProxyProtocolError> {
    // What stands between UNKNOWN and the line's end has to be ignored, whatever it is (section 2.1).
    if line.strip_prefix(b"UNKNOWN").is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ")) {
        return Ok(Addresses::Unknown);
    }
    let mut fields = str::from_utf8(line).map_err(|_| ProxyProtocolError::V1Fields)?.split(' ');
    let mut next = || fields.next();
    let (Some(family), Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (next(), next(), next(), next(), next(), next())
    else {
        return Err(ProxyProtocolError::V1Fields);
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| ProxyProtocolError::V1Address),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| ProxyProtocolError::V1Address),
        _ => Err(ProxyProtocolError::V1Fields),
    };
    Ok(known((address(source)?, v1_port(source_port)?), (address(destination)?, v1_port(destination_port)?)))
}

fn v1_port(text: &str) -> Result<u16, ProxyProtocolError> {
    // Rust's parser takes a plus sign and leading zeros; section 2.1 takes neither.
    let is_plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_plain {
        return Err(ProxyProtocolError::V1Port);
    }
    text.parse().map_err(|_| ProxyProtocolError::V1Port)
}

/// `rest`: what follows the signature. Each field is judged as soon as it is there.
fn parse_v2(rest: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some((&first, rest)) = rest.split_first() else { return Ok(Parsed::NeedMore) };
    let (version, command) = (first >> 4, first & 0x0f);
    if version != V2_VERSION {
        return Err(ProxyProtocolError::V2Version { version });
    }
    if command != V2_COMMAND_LOCAL && command != V2_COMMAND_PROXY {
        return Err(ProxyProtocolError::V2Command { command });
    }
    let Some((&family, rest)) = rest.split_first() else { return Ok(Parsed::NeedMore) };
    // A LOCAL header's family and block have to be ignored, whatever they are (section 2.2).
    let family = if command == V2_COMMAND_LOCAL { Family::Unspecified } else { Family::of(family)? };
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(Parsed::NeedMore) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > V2_BLOCK_MAX {
        return Err(ProxyProtocolError::V2TooLong { length });
    }
    let needed = family.block();
    if length < needed {
        return Err(ProxyProtocolError::V2TooShort { length, needed });
    }
    // TLVs fill the rest of the block. Nothing here depends on one, so none is looked into.
    let Some(block) = rest.get(..length) else { return Ok(Parsed::NeedMore) };
    Ok(Parsed::Header { consumed: V2_FIXED + length, addresses: family.addresses(block) })
}

/// How the addresses of a v2 header are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    /// A datagram transport is believed like a stream: it is what the client speaks to the proxy in front (QUIC), and
    /// the client's address is the same whatever carries it.
    fn of(octet: u8) -> Result<Self, ProxyProtocolError> {
        match octet {
            V2_UNSPECIFIED => Ok(Self::Unspecified),
            V2_STREAM_V4 | V2_DATAGRAM_V4 => Ok(Self::V4),
            V2_STREAM_V6 | V2_DATAGRAM_V6 => Ok(Self::V6),
            V2_STREAM_UNIX | V2_DATAGRAM_UNIX => Ok(Self::Unix),
            family => Err(ProxyProtocolError::V2Family { family }),
        }
    }

    /// Bytes that the addresses take.
    fn block(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => V2_BLOCK_V4,
            Self::V6 => V2_BLOCK_V6,
            Self::Unix => V2_BLOCK_UNIX,
        }
    }

    fn addresses(self, block: &[u8]) -> Addresses {
        let addresses = match self {
            // A path is no address of a client over TCP, and the socket's own says as much.
            Self::Unspecified | Self::Unix => None,
            Self::V4 => v2_ends::<4, Ipv4Addr>(block),
            Self::V6 => v2_ends::<16, Ipv6Addr>(block),
        };
        addresses.unwrap_or(Addresses::Unknown)
    }
}

/// Two addresses of `N` bytes and two ports; `None` where `block` is shorter, which its length was checked against.
fn v2_ends<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(block: &[u8]) -> Option<Addresses> {
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, _) = block.split_first_chunk()?;
    let address = |octets: &[u8; N]| A::from(*octets).into();
    Some(known(
        (address(source), u16::from_be_bytes(*source_port)),
        (address(destination), u16::from_be_bytes(*destination_port)),
    ))
}

fn known(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Addresses {
    let end = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Addresses::Known { source: end(source), destination: end(destination) }
}

/// Both addresses in the one family that a header has.
#[derive(Debug, Clone, Copy)]
enum Ends {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

impl Ends {
    fn of(source: SocketAddr, destination: SocketAddr) -> Self {
        let v6 = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4 { source, destination },
            (source, destination) => Self::V6 { source: v6(source), destination: v6(destination) },
        }
    }
}

/// An IPv6 address without the dotted form of a mapped one: section 2.1 knows only groups of hexadecimal digits, and
/// not every reader is as lenient as inet_pton(3).
#[derive(Debug, Clone, Copy)]
struct Hexadecimal(Ipv6Addr);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
