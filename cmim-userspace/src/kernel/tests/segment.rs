//! Packets made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::host::{HERE_MAC, PEER_MAC};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const SERVICE_VLAN: u16 = 0x88a8;
/// MSS 1460, SACK permitted, timestamps, window scaling 7: as Linux sends it.
pub(super) const LINUX_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// A TCP segment on its way to the guarded interface.
#[derive(Clone)]
pub(super) struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledged: u32,
    pub options: Vec<u8>,
}

impl Segment {
    pub(super) fn new(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self { source, destination, flags, sequence: 1_000, acknowledged: 0, options: LINUX_OPTIONS.to_vec() }
    }

    /// The TCP header with a right checksum.
    pub(super) fn tcp(&self) -> Vec<u8> {
        let mut tcp = self.source.port().to_be_bytes().to_vec();
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        let words = u8::try_from((20 + self.options.len()) / 4).expect("at most 60 bytes");
        tcp.extend([words << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        let pseudo = [addresses(self.source.ip(), self.destination.ip()), vec![0, TCP, 0, words * 4]].concat();
        let checksum = checksum(&[pseudo, tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&checksum);
        tcp
    }

    /// As it goes over the wire, behind these VLAN tags.
    pub(super) fn frame(&self, tags: &[u16]) -> Vec<u8> {
        let (ethertype, ip) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (0x0800, v4(source, destination, TCP, [0, 0], &[])),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (0x86dd, v6(source, destination, TCP)),
            _ => panic!("addresses of one family"),
        };
        framed(tags, ethertype, &[ip, self.tcp()])
    }
}

pub(super) fn framed(tags: &[u16], ethertype: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = [HERE_MAC, PEER_MAC].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    let parts = parts.concat();
    frame.extend(with_length(parts, ethertype));
    frame
}

/// Fills the IP header's length and checksum in.
pub(super) fn with_length(mut packet: Vec<u8>, ethertype: u16) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("a small packet");
    if ethertype == 0x0800 {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let header = usize::from(packet[0] & 0x0f) * 4;
        let checksum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&checksum);
    } else if ethertype == 0x86dd {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    packet
}

pub(super) fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, fragment: [u8; 2], options: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("a small number of this test");
    let mut header = vec![0x40 | words, 0, 0, 0, 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(options);
    header
}

pub(super) fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

pub(super) fn addresses(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    [source, destination]
        .iter()
        .flat_map(|ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        })
        .collect()
}

/// RFC 1071; of bytes that contain a right one it is zero.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}
