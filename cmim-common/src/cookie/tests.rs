//! Replies to SYNs made by hand, read back field by field and summed up as a receiver does.

use super::{
    ENDS_V4, ENDS_V6, REPLY_TCP, REPLY_V4, REPLY_V6, TCP_HEADER, ends_v4, ends_v6, header_length, is_bare_v4,
    is_bare_v6, mss_v4, mss_v6, reply_v4, reply_v6,
};
use crate::packet::{V4_HEADER, V6_HEADER};
use std::vec::Vec;

const COOKIE: u32 = 0xdead_beef;
const MSS: u16 = 1_460;

/// From port 50000 to 80, sequence number 0xffff_ffff, with five words of options.
const SYN: [u8; TCP_HEADER] = [0xc3, 0x50, 0, 80, 255, 255, 255, 255, 0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 1, 2, 0, 0];

fn v4() -> [u8; V4_HEADER] {
    [0x45, 0, 0, 60, 1, 2, 0x40, 0, 50, 6, 9, 9, 192, 0, 2, 1, 198, 51, 100, 2]
}

fn v6() -> [u8; V6_HEADER] {
    let mut header = [0; V6_HEADER];
    header[..8].copy_from_slice(&[0x60, 1, 2, 3, 0, 40, 6, 50]);
    header[8..24].copy_from_slice(&[0xaa; 16]);
    header[24..].copy_from_slice(&[0xbb; 16]);
    header
}

/// What a receiver computes: 0xffff says that the checksum in it is right.
fn summed(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn check_segment(segment: &[u8]) {
    assert_eq!(segment.len(), REPLY_TCP);
    assert_eq!(segment[..4], [0, 80, 0xc3, 0x50], "ports change places");
    assert_eq!(segment[4..8], COOKIE.to_be_bytes());
    assert_eq!(segment[8..12], [0, 0, 0, 0], "the next number, around the end of 32 bits");
    assert_eq!(segment[12..14], [0x60, 0x12], "six words, SYN and ACK");
    assert_eq!(segment[20..], [2, 4, 0x05, 0xb4]);
}

#[test]
fn an_ipv4_reply_goes_back_with_right_checksums() {
    let mut reply = [0xff; REPLY_V4];
    reply_v4(&v4(), &SYN, COOKIE, MSS, &mut reply);
    let (ip, segment) = reply.split_at(V4_HEADER);
    check_segment(segment);
    assert_eq!(ip[0], 0x45);
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), V4_HEADER + REPLY_TCP);
    assert_eq!(ip[12..], [198, 51, 100, 2, 192, 0, 2, 1]);
    assert_eq!(summed(&[ip]), 0xffff);
    assert_eq!(summed(&[&ip[12..], &[0, 6, 0, 24], segment]), 0xffff);
}

#[test]
fn an_ipv6_reply_goes_back_with_a_right_checksum() {
    let mut reply = [0xff; REPLY_V6];
    reply_v6(&v6(), &SYN, COOKIE, MSS, &mut reply);
    let (ip, segment) = reply.split_at(V6_HEADER);
    check_segment(segment);
    assert_eq!(ip[..8], [0x60, 0, 0, 0, 0, 24, 6, 64]);
    assert_eq!(ip[8..24], [0xbb; 16]);
    assert_eq!(ip[24..], [0xaa; 16]);
    assert_eq!(summed(&[&ip[8..], &[0, 6, 0, 24], segment]), 0xffff);
}

#[test]
fn checksums_are_right_for_every_cookie() {
    for step in 0..10_000_u32 {
        let cookie = step.wrapping_mul(0x9e37_79b9);
        let mut reply = [0xff; REPLY_V4];
        reply_v4(&v4(), &SYN, cookie, step as u16, &mut reply);
        assert_eq!(summed(&[&reply[12..V4_HEADER], &[0, 6, 0, 24], &reply[V4_HEADER..]]), 0xffff, "{cookie:#x}");
    }
}

#[test]
fn the_segment_size_is_what_the_link_carries_and_never_less_than_every_host_takes() {
    assert_eq!(mss_v4(1_500), 1_460);
    assert_eq!(mss_v6(1_500), 1_440);
    assert_eq!(mss_v4(9_000), 8_960);
    assert_eq!(mss_v4(0), 536);
    assert_eq!(mss_v6(68), 1_220);
    assert_eq!(mss_v4(u32::MAX), u16::MAX);
}

#[test]
fn a_header_shorter_than_a_header_has_no_length() {
    assert_eq!(header_length(&SYN), Some(40));
    let mut short = SYN;
    short[12] = 0x40;
    assert_eq!(header_length(&short), None);
    short[12] = 0xf0;
    assert_eq!(header_length(&short), Some(60));
}

#[test]
fn ends_are_addresses_then_ports_the_clients_first() {
    let mut ends = [0xff; ENDS_V4];
    ends_v4(&v4(), &SYN, &mut ends);
    assert_eq!(ends, [192, 0, 2, 1, 198, 51, 100, 2, 0xc3, 0x50, 0, 80]);
    let mut ends = [0xff; ENDS_V6];
    ends_v6(&v6(), &SYN, &mut ends);
    assert_eq!(ends[..16], [0xaa; 16]);
    assert_eq!(ends[16..32], [0xbb; 16]);
    assert_eq!(ends[32..], [0xc3, 0x50, 0, 80]);
}

#[test]
fn a_segment_is_bare_when_its_packet_ends_with_its_header() {
    let mut ack = SYN;
    ack[12] = 0x80;
    let mut ip = v4();
    for (length, bare) in [(20 + 32, true), (20 + 33, false), (20 + 31, false), (0, false)] {
        [ip[2], ip[3]] = u16::to_be_bytes(length);
        assert_eq!(is_bare_v4(&ip, &ack), bare, "{length}");
    }
    let mut ip = v6();
    for (length, bare) in [(32, true), (33, false), (0, false)] {
        [ip[4], ip[5]] = u16::to_be_bytes(length);
        assert_eq!(is_bare_v6(&ip, &ack), bare, "{length}");
    }
}
