//! Addresses as they stand in map keys: always 16 bytes, IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2).
//!
//! One form for both families keeps one map and one lookup, and it is what the kernel itself keeps for an IPv4
//! connection on a dual-stack socket.

use core::net::{IpAddr, Ipv6Addr};

/// `::ffff:0:0/96`.
pub const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The mapped form of an IPv4 address, big-endian.
#[inline(always)]
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The key form of any address.
#[must_use]
pub const fn from_ip(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that a key holds; a mapped one comes back as IPv4.
#[must_use]
pub const fn to_ip(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(address).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::{from_ip, to_ip};
    use core::net::IpAddr;

    #[test]
    fn an_address_survives_the_way_into_a_key_and_back() {
        for text in ["0.0.0.0", "192.0.2.7", "::", "2001:db8::1", "::1"] {
            let address: IpAddr = text.parse().expect("a literal of this test");
            assert_eq!(to_ip(from_ip(address)), address, "{text}");
        }
    }

    #[test]
    fn the_unspecified_addresses_of_both_families_differ() {
        let v4: IpAddr = "0.0.0.0".parse().expect("a literal of this test");
        let v6: IpAddr = "::".parse().expect("a literal of this test");
        assert_ne!(from_ip(v4), from_ip(v6));
    }
}
