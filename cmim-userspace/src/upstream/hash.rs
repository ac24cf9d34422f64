//! The hash of what the hash rule goes by: a request's client, target, field or cookie.
//!
//! SipHash-2-4 with a key of our own that never changes: several devices in front of the same servers, and one device before
//! and after an update, agree on every value. It must not know what a value means.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Documented in docs/configuration.md. Another key, or another hash, moves nearly all values to another server.
const KEY: &[u8; 16] = b"cmim.hash_on.v1.";

/// The hash of a request's value; one without it counts as one with an empty one.
#[must_use]
pub fn of_value(value: Option<&[u8]>) -> u64 {
    SipHasher24::new_with_key(KEY).hash(value.unwrap_or_default())
}

/// The hash of a client: its address's 4 or 16 octets.
#[must_use]
pub fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => of_value(Some(&address.octets())),
        IpAddr::V6(address) => of_value(Some(&address.octets())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last of the vectors that come with SipHash's reference implementation.
    #[test]
    fn it_is_siphash_2_4() {
        let key: [u8; 16] = std::array::from_fn(|at| at as u8);
        let input: Vec<u8> = (0..63).collect();
        assert_eq!(SipHasher24::new_with_key(&key).hash(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(SipHasher24::new_with_key(&key).hash(&input[..15]), 0xa129_ca61_49be_45e5);
        assert_eq!(SipHasher24::new_with_key(&key).hash(&input), 0x958a_324c_eb06_4572);
    }

    /// Devices of different versions in front of the same servers agree only as long as these numbers stay.
    #[test]
    fn the_hash_of_a_value_is_the_same_in_every_run_and_version() {
        assert_eq!(of_value(None), of_value(Some(b"")));
        assert_eq!(of_value(None), 5_435_510_759_281_499_275);
        assert_eq!(of_value(Some(b"/index.html")), 2_824_824_616_511_689_835);
        assert_eq!(of_value(Some(b"session-4711")), 8_782_755_238_485_371_122);
        assert_eq!(of_address([192, 0, 2, 1].into()), 14_189_858_306_521_033_295);
        assert_eq!(of_address("2001:db8::1".parse().unwrap()), 12_806_558_007_679_945_722);
        assert_eq!(of_address("::ffff:192.0.2.1".parse().unwrap()), of_address([192, 0, 2, 1].into()));
    }
}
