//! Which destinations belong to which listener where an address alone does not say it: the key of `CMIM_STEERING`.
//!
//! The kernel matches a prefix of the whole key. The port comes first and is always matched whole, so a range of ports
//! has an entry for each of them; then the address, of which a network gives a prefix. The longest prefix wins, so the
//! listener of one address takes it out of another listener's network. The value is the listener's
//! [`crate::listener::ListenerKey`], by which both the guard and the steering program go on.

use core::net::IpAddr;

use crate::address;

/// Port and address in the order in which they are matched: big-endian, 2 and 16 bytes.
pub type Destination = [u8; 18];

/// Entries of `CMIM_STEERING`: a network's address counts once for each of its ports.
pub const MAX_STEERED: usize = 65_536;

const PORT_BITS: u32 = 16;
const MAPPED_BITS: u32 = 96;

/// Bits of a key that is looked up: all.
pub const WHOLE: u32 = PORT_BITS + 128;

#[inline(always)]
#[must_use]
pub const fn destination(address: [u8; 16], port: [u8; 2]) -> Destination {
    let [high, low] = port;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [high, low, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The key of a network on one port, and how many of its bits are matched.
#[must_use]
pub const fn of_network(network: IpAddr, prefix: u8, port: u16) -> (Destination, u32) {
    let family_bits = match network {
        IpAddr::V4(_) => MAPPED_BITS,
        IpAddr::V6(_) => 0,
    };
    let key = destination(address::from_ip(network), port.to_be_bytes());
    (key, PORT_BITS + family_bits + prefix as u32)
}

#[cfg(test)]
mod tests {
    use super::{WHOLE, destination, of_network};
    use crate::address::from_ip;
    use core::net::IpAddr;

    /// As the trie does it.
    fn matches(network: &str, prefix: u8, port: u16, address: &str, to: u16) -> bool {
        let (key, bits) = of_network(network.parse().expect("a literal of this test"), prefix, port);
        let address: IpAddr = address.parse().expect("a literal of this test");
        let asked = destination(from_ip(address), to.to_be_bytes());
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
        (0..bits as usize).all(|at| bit(&key, at) == bit(&asked, at))
    }

    #[test]
    fn a_network_matches_its_addresses_on_its_port_only() {
        assert!(matches("203.0.113.0", 24, 80, "203.0.113.255", 80));
        assert!(!matches("203.0.113.0", 24, 80, "203.0.114.0", 80));
        assert!(!matches("203.0.113.0", 24, 80, "203.0.113.1", 81));
        assert!(matches("2001:db8::", 32, 443, "2001:db8:ffff::1", 443));
        assert!(!matches("2001:db8::", 32, 443, "2001:db9::", 443));
    }

    #[test]
    fn all_of_ipv4_is_not_all_of_ipv6() {
        assert!(matches("0.0.0.0", 0, 80, "203.0.113.1", 80));
        assert!(!matches("0.0.0.0", 0, 80, "2001:db8::1", 80));
    }

    #[test]
    fn a_single_address_is_matched_whole() {
        for (address, prefix) in [("203.0.113.1", 32), ("2001:db8::1", 128)] {
            let (_, bits) = of_network(address.parse().expect("a literal of this test"), prefix, 80);
            assert_eq!(bits, WHOLE);
        }
    }
}
