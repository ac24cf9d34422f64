//! Host and port, as a Host field or a target's authority gives them (RFC 3986 3.2, RFC 9110 4.2.3 and 7.2).

use std::net::Ipv6Addr;

use super::octet::is_reg_name;

/// 65535 has five digits.
const MOST_PORT_DIGITS: usize = 5;

/// The host of an authority that a parser accepted, without the port.
#[must_use]
pub fn host_of(authority: &[u8]) -> &[u8] {
    match split(authority) {
        Some((host, _)) => host,
        None => authority,
    }
}

/// A host that is not empty, with or without a port; no user information.
pub(super) fn is_host_and_port(authority: &[u8]) -> bool {
    split(authority).is_some_and(|(host, port)| is_host(host) && port.is_none_or(is_port))
}

/// As CONNECT wants it: the port is given.
pub(super) fn is_host_with_port(authority: &[u8]) -> bool {
    split(authority)
        .is_some_and(|(host, port)| is_host(host) && port.is_some_and(|port| !port.is_empty() && is_port(port)))
}

/// Host and port; `None` if something other than a port follows the bracket of an IP literal.
fn split(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_len = match authority {
        [b'[', ..] => memchr::memchr(b']', authority)? + 1,
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    match authority.split_at_checked(host_len)? {
        (host, []) => Some((host, None)),
        (host, [b':', port @ ..]) => Some((host, Some(port))),
        _ => None,
    }
}

fn is_host(host: &[u8]) -> bool {
    match host {
        [] => false,
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        name => is_reg_name(name),
    }
}

/// RFC 3986 lets a port be empty after its colon.
fn is_port(port: &[u8]) -> bool {
    if port.len() > MOST_PORT_DIGITS {
        return false;
    }
    let number = port
        .iter()
        .try_fold(0_u32, |number, &digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')));
    number.is_some_and(|number| number <= u32::from(u16::MAX))
}
