//! Packets built by hand, whole and cut at every byte.

use super::{FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, Header, NO_TCP, Packet, Payload, Seen, Tcp, V4_HEADER, parse};
use std::vec::Vec;

impl Packet for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

const TCP_HEADER: usize = 20;
/// Where the IP header begins without VLAN tags.
const IP: usize = 14;
const V6_SOURCE: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const V6_DESTINATION: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn ethernet(tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut packet = [0x02; 12].to_vec();
    for tag in tags {
        packet.extend(tag.to_be_bytes());
        packet.extend([0, 7]);
    }
    packet.extend(ethertype.to_be_bytes());
    packet
}

fn v4(options: usize, fragment: [u8; 2], protocol: u8) -> Vec<u8> {
    let words = u8::try_from(5 + options).expect("a small number of this test");
    let mut header = [0x40 | words, 0, 0, 40, 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0].to_vec();
    header.extend([192, 0, 2, 1, 198, 51, 100, 2]);
    header.resize(header.len() + options * 4, 0x01);
    header
}

fn v6(next: u8) -> Vec<u8> {
    let mut header = [0x60, 0, 0, 0, 0, 20, next, 64].to_vec();
    header.extend(V6_SOURCE);
    header.extend(V6_DESTINATION);
    header
}

fn tcp(flags: u8) -> [u8; 20] {
    [0xc3, 0x50, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
}

/// What is behind the IP header that begins at `at`.
fn seen_v4(at: usize, (payload, tcp): (Payload, Tcp)) -> Seen {
    Seen::V4(Header { at, source: [192, 0, 2, 1], destination: [198, 51, 100, 2], payload, tcp })
}

fn seen_v6((payload, tcp): (Payload, Tcp)) -> Seen {
    Seen::V6(Header { at: IP, source: V6_SOURCE, destination: V6_DESTINATION, payload, tcp })
}

/// The SYN whose header begins at `at`.
fn syn(at: usize) -> (Payload, Tcp) {
    (Payload::Tcp, Tcp { at, destination_port: [0, 80], flags: FLAG_SYN })
}

/// The SYN that ends the packet.
fn last_syn(packet: &[u8]) -> (Payload, Tcp) {
    syn(packet.len() - TCP_HEADER)
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn a_syn_is_found_behind_no_one_and_two_vlan_tags_but_not_behind_three() {
    for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
        let packet = joined(&[&ethernet(tags, 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
        assert_eq!(parse(packet.as_slice()), seen_v4(IP + 4 * tags.len(), last_syn(&packet)), "{tags:x?}");
    }
    let packet = joined(&[&ethernet(&[0x8100; 3], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(packet.as_slice()), Seen::NotIp);
}

#[test]
fn v4_options_move_the_tcp_header() {
    let packet = joined(&[&ethernet(&[], 0x0800), &v4(10, [0x40, 0], 6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(packet.as_slice()), seen_v4(IP, last_syn(&packet)));
}

#[test]
fn a_later_fragment_has_no_segment_and_a_first_one_has() {
    let first = joined(&[&ethernet(&[], 0x0800), &v4(0, [0x20, 0], 6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(first.as_slice()), seen_v4(IP, last_syn(&first)));
    let later = joined(&[&ethernet(&[], 0x0800), &v4(0, [0x00, 0x01], 6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(later.as_slice()), seen_v4(IP, (Payload::Fragment, NO_TCP)));
    let later_v6 = joined(&[&ethernet(&[], 0x86dd), &v6(44), &[6, 0, 0, 0x08, 0, 0, 0, 1], &tcp(FLAG_SYN)]);
    assert_eq!(parse(later_v6.as_slice()), seen_v6((Payload::Fragment, NO_TCP)));
}

#[test]
fn a_v6_syn_is_found_behind_extension_headers() {
    let plain = joined(&[&ethernet(&[], 0x86dd), &v6(6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(plain.as_slice()), seen_v6(last_syn(&plain)));
    let hop_by_hop: &[u8] = &[60, 0, 1, 4, 0, 0, 0, 0];
    let destination: &[u8] = &[44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fragment: &[u8] = &[51, 0, 0, 1, 0, 0, 0, 1];
    let authentication: &[u8] = &[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let chain =
        joined(&[&ethernet(&[], 0x86dd), &v6(0), hop_by_hop, destination, fragment, authentication, &tcp(FLAG_SYN)]);
    assert_eq!(parse(chain.as_slice()), seen_v6(last_syn(&chain)));
}

#[test]
fn a_chain_of_extension_headers_without_end_is_not_tcp() {
    let hop: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0];
    let packet = joined(&[&ethernet(&[], 0x86dd), &v6(0), &hop.repeat(100)]);
    assert_eq!(parse(packet.as_slice()), seen_v6((Payload::Other, NO_TCP)));
}

#[test]
fn other_protocols_and_other_ethertypes_are_told_apart() {
    let udp = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 0], 17), &[0; 8]]);
    assert_eq!(parse(udp.as_slice()), seen_v4(IP, (Payload::Other, NO_TCP)));
    let arp = joined(&[&ethernet(&[], 0x0806), &[0; 28]]);
    assert_eq!(parse(arp.as_slice()), Seen::NotIp);
}

#[test]
fn a_header_that_contradicts_itself_is_no_header() {
    let mut short = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    short[14] = 0x44;
    assert_eq!(parse(short.as_slice()), Seen::Truncated);
    short[14] = 0x65;
    assert_eq!(parse(short.as_slice()), Seen::Truncated);
}

#[test]
fn a_packet_cut_at_any_byte_is_never_taken_for_more_than_it_holds() {
    let v4_end = 14 + 20 + 4;
    let whole = joined(&[&ethernet(&[0x8100], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    for length in 0..whole.len() {
        let expected = match length {
            _ if length < v4_end => Seen::Truncated,
            _ if length < v4_end + 14 => seen_v4(IP + 4, (Payload::Truncated, NO_TCP)),
            _ => seen_v4(IP + 4, last_syn(&whole)),
        };
        assert_eq!(parse(&whole[..length]), expected, "cut at {length}");
    }
    let whole = joined(&[&ethernet(&[], 0x86dd), &v6(60), &[6, 0, 1, 4, 0, 0, 0, 0], &tcp(FLAG_SYN)]);
    for length in 0..whole.len() {
        let expected = match length {
            0..54 => Seen::Truncated,
            54..76 => seen_v6((Payload::Truncated, NO_TCP)),
            _ => seen_v6(last_syn(&whole)),
        };
        assert_eq!(parse(&whole[..length]), expected, "cut at {length}");
    }
}

#[test]
fn only_a_syn_without_ack_opens() {
    let segment = |flags| Tcp { at: 0, destination_port: [0, 0], flags };
    assert!(segment(FLAG_SYN).is_opening());
    assert!(!segment(FLAG_SYN | FLAG_ACK).is_opening());
    assert!(!segment(FLAG_ACK).is_opening());
    assert!(!segment(0).is_opening());
}

#[test]
fn flags_that_no_connection_sends_are_told_from_those_that_some_do() {
    const PSH: u8 = 0x08;
    const URG: u8 = 0x20;
    const ECE: u8 = 0x40;
    const CWR: u8 = 0x80;
    let impossible = |flags| Tcp { at: 0, destination_port: [0, 0], flags }.is_impossible();
    for flags in [
        0,
        PSH,
        URG,
        ECE | CWR,
        FLAG_FIN,
        FLAG_FIN | PSH | URG,
        FLAG_SYN | FLAG_FIN,
        FLAG_SYN | FLAG_FIN | FLAG_ACK,
        FLAG_SYN | FLAG_RST,
        FLAG_FIN | FLAG_RST | FLAG_ACK,
        0xff,
    ] {
        assert!(impossible(flags), "{flags:#x}");
    }
    for flags in [
        FLAG_SYN,
        FLAG_SYN | ECE | CWR,
        FLAG_SYN | PSH,
        FLAG_SYN | FLAG_ACK,
        FLAG_ACK,
        FLAG_ACK | PSH | URG,
        FLAG_FIN | FLAG_ACK | PSH,
        FLAG_RST,
        FLAG_RST | FLAG_ACK,
    ] {
        assert!(!impossible(flags), "{flags:#x}");
    }
}

#[test]
fn only_a_segment_with_ack_and_without_syn_and_rst_may_end_a_handshake() {
    for flags in 0..=u8::MAX {
        let acknowledging = Tcp { at: 0, destination_port: [0, 0], flags }.is_acknowledging();
        let expected = flags & FLAG_ACK != 0 && flags & FLAG_SYN == 0 && flags & FLAG_RST == 0;
        assert_eq!(acknowledging, expected, "{flags:#x}");
    }
}

#[test]
fn a_header_is_plain_only_where_tcp_comes_right_behind_it() {
    let plain = joined(&[&ethernet(&[0x8100], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    let with_options = joined(&[&ethernet(&[], 0x0800), &v4(1, [0, 0], 6), &tcp(FLAG_SYN)]);
    for (packet, expected) in [(plain, true), (with_options, false)] {
        let Seen::V4(header) = parse(packet.as_slice()) else { panic!("IPv4") };
        assert_eq!(header.is_plain(V4_HEADER), expected);
    }
}
