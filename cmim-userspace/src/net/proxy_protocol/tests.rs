//! Headers at every split point, to the byte, and at random.

use proptest::prelude::{any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ends(source: &str, destination: &str) -> Addresses {
    Addresses::Known { source: at(source), destination: at(destination) }
}

fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([version_and_command, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

/// The header alone, at every split point, and with a request behind it.
fn assert_parses(header: &[u8], addresses: Addresses) {
    for split in 0..header.len() {
        assert_eq!(parse(&header[..split]), Ok(Parsed::NeedMore), "{} of {header:?}", split);
    }
    let whole = Ok(Parsed::Header { consumed: header.len(), addresses });
    assert_eq!(parse(header), whole);
    assert_eq!(parse(&[header, REQUEST].concat()), whole);
}

fn assert_refused(bytes: &[u8], error: ProxyProtocolError) {
    assert_eq!(parse(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn v1_headers_are_read_at_every_split_point() {
    assert_parses(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ends("192.0.2.1:56324", "198.51.100.2:443"));
    assert_parses(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ends("0.0.0.0:0", "255.255.255.255:65535"));
    assert_parses(b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", ends("[2001:db8::1]:1", "[::1]:2"));
    assert_parses(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 1 2\r\n", ends("192.0.2.1:1", "198.51.100.2:2"));
    assert_parses(b"PROXY UNKNOWN\r\n", Addresses::Unknown);
    assert_parses(b"PROXY UNKNOWN \xff any thing\0\r\n", Addresses::Unknown);
}

#[test]
fn a_v1_header_ends_within_its_bound_or_is_refused() {
    let filled = |length: usize| [b"PROXY UNKNOWN ", vec![b'f'; length - 16].as_slice(), b"\r\n"].concat();
    assert_parses(&filled(V1_MAX), Addresses::Unknown);
    for longer in 1..5 {
        let header = filled(V1_MAX + longer);
        assert_eq!(parse(&header[..V1_MAX - 1]), Ok(Parsed::NeedMore));
        assert_refused(&header[..V1_MAX], ProxyProtocolError::V1TooLong);
        assert_refused(&header, ProxyProtocolError::V1TooLong);
    }
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let header = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    assert_parses(header.as_bytes(), ends(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")));
}

#[test]
fn a_v1_header_that_could_be_read_in_two_ways_is_refused() {
    use ProxyProtocolError::{V1Address, V1Fields, V1LineEnd, V1Port};
    for (line, error) in [
        ("", V1Fields),
        ("UNKNOWNS", V1Fields),
        ("unknown", V1Fields),
        ("TCP4", V1Fields),
        ("TCP4 1.2.3.4 1.2.3.5 1", V1Fields),
        ("TCP4 1.2.3.4 1.2.3.5 1 2 3", V1Fields),
        ("TCP4 1.2.3.4 1.2.3.5 1 2 ", V1Fields),
        ("TCP4  1.2.3.4 1.2.3.5 1 2", V1Fields),
        ("TCP4\t1.2.3.4 1.2.3.5 1 2", V1Fields),
        ("tcp4 1.2.3.4 1.2.3.5 1 2", V1Fields),
        ("UDP4 1.2.3.4 1.2.3.5 1 2", V1Fields),
        ("TCP4 01.2.3.4 1.2.3.5 1 2", V1Address),
        ("TCP4 1.2.3 1.2.3.5 1 2", V1Address),
        ("TCP4 1.2.3.256 1.2.3.5 1 2", V1Address),
        ("TCP4 ::1 ::1 1 2", V1Address),
        ("TCP6 1.2.3.4 1.2.3.5 1 2", V1Address),
        ("TCP6 fe80::1%eth0 ::1 1 2", V1Address),
        ("TCP6 1::2::3 ::1 1 2", V1Address),
        ("TCP6 [::1] ::1 1 2", V1Address),
        ("TCP4 1.2.3.4 1.2.3.5 +1 2", V1Port),
        ("TCP4 1.2.3.4 1.2.3.5 1 02", V1Port),
        ("TCP4 1.2.3.4 1.2.3.5 00 2", V1Port),
        ("TCP4 1.2.3.4 1.2.3.5 65536 2", V1Port),
        ("TCP4 1.2.3.4 1.2.3.5  ", V1Port),
        ("TCP4 1.2.3.4 1.2.3.5 1 2\n", V1LineEnd),
        ("TCP4 1.2.3.4 1.2.3.5 1 2\r", V1LineEnd),
        ("UNKNOWN \n", V1LineEnd),
        ("UNKNOWN \r ", V1LineEnd),
    ] {
        assert_refused(format!("PROXY {line}\r\n").as_bytes(), error);
    }
}

#[test]
fn v2_headers_of_every_family_are_read_at_every_split_point() {
    let v4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
    let known_v4 = ends("192.0.2.1:56324", "198.51.100.2:443");
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[31] = 1;
    v6[32..].copy_from_slice(&[0, 80, 0xff, 0xff]);
    let known_v6 = ends("[2001::]:80", "[::1]:65535");
    // A no-op TLV, and one that claims to be longer than the block.
    let tlvs: &[u8] = &[0x04, 0, 1, 0, 0x20, 0xff, 0xff];
    for (family, block, addresses) in [
        (0x00, &[][..], Addresses::Unknown),
        (0x11, v4, known_v4),
        (0x12, v4, known_v4),
        (0x21, &v6, known_v6),
        (0x22, &v6, known_v6),
        (0x31, &[b'/'; 216], Addresses::Unknown),
        (0x32, &[b'/'; 216], Addresses::Unknown),
    ] {
        assert_parses(&v2(0x21, family, block), addresses);
        assert_parses(&v2(0x21, family, &[block, tlvs].concat()), addresses);
    }
}

#[test]
fn a_v2_local_header_is_skipped_whatever_it_names() {
    for family in 0..=u8::MAX {
        assert_parses(&v2(0x20, family, &[]), Addresses::Unknown);
        assert_parses(&v2(0x20, family, &[1; 12]), Addresses::Unknown);
    }
}

#[test]
fn a_v2_header_with_a_wrong_field_is_refused_as_soon_as_that_field_is_there() {
    use ProxyProtocolError::{V2Command, V2Family, V2TooLong, V2TooShort, V2Version};
    for octet in (0..=u8::MAX).filter(|octet| ![0x20, 0x21].contains(octet)) {
        let error =
            if octet >> 4 == 2 { V2Command { command: octet & 0x0f } } else { V2Version { version: octet >> 4 } };
        assert_refused(&v2(octet, 0x11, &[0; 12])[..13], error);
    }
    for family in (0..=u8::MAX).filter(|family| ![0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32].contains(family)) {
        assert_refused(&v2(0x21, family, &[0; 216])[..14], V2Family { family });
    }
    for (family, needed) in [(0x11, 12), (0x22, 36), (0x31, 216)] {
        let length = needed - 1;
        assert_refused(&v2(0x21, family, &vec![0; length])[..16], V2TooShort { length, needed });
    }
    assert_parses(&v2(0x20, 0, &vec![0; V2_BLOCK_MAX]), Addresses::Unknown);
    let length = V2_BLOCK_MAX + 1;
    assert_refused(&v2(0x20, 0, &vec![0; length])[..16], V2TooLong { length });
}

#[test]
fn bytes_that_cannot_begin_a_header_are_refused_at_once() {
    assert_eq!(parse(b""), Ok(Parsed::NeedMore));
    for octet in (0..=u8::MAX).filter(|octet| ![b'P', b'\r'].contains(octet)) {
        assert_refused(&[octet], ProxyProtocolError::NoHeader);
    }
    for bytes in [&b"PU"[..], b"PRI", b"PROXYX", b"PROXY\t", b"proxy ", b"\r\n\r\nG", b"\r\r", REQUEST] {
        assert_refused(bytes, ProxyProtocolError::NoHeader);
    }
}

#[test]
fn headers_are_written_to_the_byte() {
    let write = |source: &str, destination: &str| {
        let mut out = [BytesMut::new(), BytesMut::new()];
        write_v1(at(source), at(destination), &mut out[0]);
        write_v2(at(source), at(destination), &mut out[1]);
        out
    };
    let [v1_v4, v2_v4] = write("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(v1_v4, "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_eq!(v2_v4, v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb]));
    assert_eq!(write("[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:443"), [v1_v4, v2_v4]);

    let [v1_mixed, v2_mixed] = write("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(v1_mixed, "PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n");
    assert_eq!(v2_mixed.len(), V2_FIXED + V2_BLOCK_V6);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        source in any::<(IpAddr, u16)>(), destination in any::<(IpAddr, u16)>(),
    ) {
        let (source, destination) = (SocketAddr::from(source), SocketAddr::from(destination));
        for write in [write_v1, write_v2] {
            let mut header = BytesMut::new();
            write(source, destination, &mut header);
            let addresses = known((source.ip(), source.port()), (destination.ip(), destination.port()));
            assert_parses(&header, addresses);
        }
    }

    /// Beginnings that get past the first checks, with anything behind them: no panic, and more bytes never change
    /// an answer once it was given.
    #[test]
    fn an_answer_is_the_same_however_the_bytes_arrive(
        opening in prop::sample::select(vec![
            &b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 1::1 ", b"PROXY UNKNOWN", V2_SIGNATURE,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0",
        ]),
        rest in prop::collection::vec(
            prop::sample::select(b"0123456789abcdef:. \r\n\0\x11\x21\x80\xff".to_vec()), 0..300,
        ),
    ) {
        let bytes = [opening, &rest].concat();
        let answer = parse(&bytes);
        let mut first = Ok(Parsed::NeedMore);
        for split in 0..=bytes.len() {
            let now = parse(&bytes[..split]);
            prop_assert!(first == Ok(Parsed::NeedMore) || first == now);
            first = now;
        }
        prop_assert_eq!(first, answer);
        if let Ok(Parsed::Header { consumed, .. }) = answer {
            prop_assert!(consumed <= bytes.len());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _: Result<Parsed, ProxyProtocolError> = parse(&bytes);
        let _: Result<Parsed, ProxyProtocolError> = parse(&[V2_SIGNATURE.as_slice(), &bytes].concat());
        let _: Result<Parsed, ProxyProtocolError> = parse(&[V1_OPENING.as_slice(), &bytes].concat());
    }
}

#[test]
fn headers_of_the_senders_own_connections_name_nobody() {
    let (mut v1, mut v2) = (BytesMut::new(), BytesMut::new());
    write_own_v1(&mut v1);
    write_own_v2(&mut v2);
    assert_parses(&v1, Addresses::Unknown);
    assert_parses(&v2, Addresses::Unknown);
}
