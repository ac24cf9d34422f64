//! Packets built by hand, whole and cut at every byte.

use super::chain::MAX_EXTENSIONS;
use super::link::MAX_VLAN_TAGS;
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

/// Link header, IP header and the rest, with the IP header's length filled in.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let (mut packet, at) = (parts.concat(), parts[0].len());
    let length = u16::try_from(packet.len() - at).expect("a small packet");
    match packet.get(at).map(|first| first >> 4) {
        Some(4) => packet[at + 2..at + 4].copy_from_slice(&length.to_be_bytes()),
        Some(6) => packet[at + 4..at + 6].copy_from_slice(&(length - 40).to_be_bytes()),
        _ => {}
    }
    packet
}

#[test]
fn a_syn_is_found_behind_as_many_vlan_tags_as_a_frame_has_room_for() {
    for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x8100; 3], &[0x88a8; 17], &[0x8100; MAX_VLAN_TAGS]] {
        let packet = joined(&[&ethernet(tags, 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
        assert_eq!(parse(packet.as_slice()), seen_v4(IP + 4 * tags.len(), last_syn(&packet)), "{} tags", tags.len());
    }
    let more = joined(&[&ethernet(&[0x8100; MAX_VLAN_TAGS + 1], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    assert_eq!(parse(more.as_slice()), Seen::Unread);
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
    let later = joined(&[&ethernet(&[], 0x0800), &v4(0, [0x00, 0x02], 6), &tcp(FLAG_SYN)]);
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
fn a_chain_of_extension_headers_is_walked_as_far_as_a_frame_has_room_and_unread_beyond() {
    let behind = |count: usize| {
        let options: &[u8] = &[60, 0, 1, 4, 0, 0, 0, 0];
        let last: &[u8] = &[6, 0, 1, 4, 0, 0, 0, 0];
        joined(&[&ethernet(&[], 0x86dd), &v6(60), &options.repeat(count - 1), last, &tcp(FLAG_SYN)])
    };
    for count in [1, 7, 100, MAX_EXTENSIONS] {
        let packet = behind(count);
        assert_eq!(parse(packet.as_slice()), seen_v6(last_syn(&packet)), "{count} headers");
    }
    let packet = behind(MAX_EXTENSIONS + 1);
    assert_eq!(parse(packet.as_slice()), seen_v6((Payload::Unread, NO_TCP)));
}

#[test]
fn a_tcp_header_that_goes_on_in_a_later_fragment_is_unread() {
    let whole = tcp(FLAG_SYN);
    for length in 0..whole.len() {
        // Behind the IP packet comes what the flags are not: padding, as far as the kernel is concerned.
        let padding = [FLAG_ACK; 20];
        let packet = joined(&[&ethernet(&[], 0x0800), &v4(0, [0x20, 0], 6), &whole[..length]]);
        let packet = [packet.as_slice(), &padding].concat();
        let expected = if length < 14 { (Payload::Unread, NO_TCP) } else { syn(IP + V4_HEADER) };
        assert_eq!(parse(packet.as_slice()), seen_v4(IP, expected), "{length} bytes");

        let more: &[u8] = &[6, 0, 0, 1, 0, 0, 0, 1];
        let packet = joined(&[&ethernet(&[], 0x86dd), &v6(44), more, &whole[..length]]);
        let packet = [packet.as_slice(), &padding].concat();
        let expected = if length < 14 { (Payload::Unread, NO_TCP) } else { syn(IP + 48) };
        assert_eq!(parse(packet.as_slice()), seen_v6(expected), "{length} bytes");
    }
    // The same without the promise of more: the kernel refuses it.
    let alone = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 0], 6), &whole[..8]]);
    assert_eq!(parse([alone, [0; 20].to_vec()].concat().as_slice()), seen_v4(IP, (Payload::Truncated, NO_TCP)));
    let flags = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 1], 6), &whole[8..]]);
    assert_eq!(parse(flags.as_slice()), seen_v4(IP, (Payload::Unread, NO_TCP)));
}

#[test]
fn extension_headers_that_go_on_in_a_later_fragment_are_unread() {
    let more: &[u8] = &[60, 0, 0, 1, 0, 0, 0, 1];
    let options: &[u8] = &[6, 4, 1, 36, 0, 0, 0, 0];
    let cut = joined(&[&ethernet(&[], 0x86dd), &v6(44), more, options]);
    assert_eq!(parse(cut.as_slice()), seen_v6((Payload::Unread, NO_TCP)));
    let unfragmented = joined(&[&ethernet(&[], 0x86dd), &v6(60), options]);
    assert_eq!(parse(unfragmented.as_slice()), seen_v6((Payload::Truncated, NO_TCP)));
}

#[test]
fn a_packet_that_names_its_next_hop_is_unread() {
    let routed = |kind, left| {
        let routing: &[u8] = &[6, 0, kind, left, 0, 0, 0, 0];
        parse(joined(&[&ethernet(&[], 0x86dd), &v6(43), routing, &tcp(FLAG_SYN)]).as_slice())
    };
    for (kind, left, unread) in [(0, 0, false), (2, 0, false), (0, 1, true), (4, 0, true), (4, 1, true)] {
        let expected = if unread { (Payload::Unread, NO_TCP) } else { syn(IP + 48) };
        assert_eq!(routed(kind, left), seen_v6(expected), "type {kind}, {left} left");
    }
    let with_options = |options: [u8; 8]| {
        let mut header = v4(2, [0, 0], 6);
        header[20..].copy_from_slice(&options);
        parse(joined(&[&ethernet(&[], 0x0800), &header, &tcp(FLAG_SYN)]).as_slice())
    };
    for options in [[131, 7, 4, 10, 0, 0, 1, 0], [1, 137, 7, 4, 10, 0, 0, 1]] {
        assert_eq!(with_options(options), seen_v4(IP, (Payload::Unread, NO_TCP)), "{options:?}");
    }
    // The byte within another option, behind the end of the list, and an option that is none.
    for options in [[68, 8, 5, 0, 131, 137, 131, 137], [0, 131, 7, 4, 10, 0, 0, 1], [7, 1, 131, 7, 4, 10, 0, 1]] {
        assert_eq!(with_options(options), seen_v4(IP, syn(IP + 28)), "{options:?}");
    }
}

#[test]
fn an_authentication_header_of_ipv4_is_walked() {
    let authentication: &[u8] = &[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let packet = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 0], 51), authentication, &tcp(FLAG_SYN)]);
    assert_eq!(parse(packet.as_slice()), seen_v4(IP, last_syn(&packet)));
}

#[test]
fn a_packet_without_a_length_is_read_to_the_frames_end() {
    let mut jumbo = joined(&[&ethernet(&[], 0x86dd), &v6(0), &[6, 0, 1, 4, 0, 0, 0, 0], &tcp(FLAG_SYN)]);
    jumbo[18..20].copy_from_slice(&[0, 0]);
    assert_eq!(parse(jumbo.as_slice()), seen_v6(last_syn(&jumbo)));
    let mut offloaded = joined(&[&ethernet(&[], 0x0800), &v4(0, [0, 0], 6), &tcp(FLAG_SYN)]);
    offloaded[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(parse(offloaded.as_slice()), seen_v4(IP, last_syn(&offloaded)));
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
