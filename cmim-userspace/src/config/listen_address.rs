//! Where a listener listens: one address and port, or a network with its ports, which the kernel part steers.
//!
//! Owns the type, how it is written and what of it overlaps. Text comes from `address`, and goes to the printed
//! configuration, to listings and to log lines.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// An entry of a listener's `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// `0.0.0.0:80`. Port 0 lets the kernel choose one.
    One(SocketAddr),
    /// `203.0.113.0/24:80-89`: every address of the network on each of the ports, which are never 0.
    Many {
        /// Without host bits.
        network: IpNet,
        first_port: u16,
        /// At least `first_port`.
        last_port: u16,
    },
}

impl ListenAddress {
    /// What a socket for it is bound to: of many, the first address and port.
    #[must_use]
    pub fn bind_address(&self) -> SocketAddr {
        match self {
            Self::One(address) => *address,
            Self::Many { network, first_port, .. } => SocketAddr::new(network.addr(), *first_port),
        }
    }

    /// Whether connections reach its socket only if the kernel part steers them there.
    #[must_use]
    pub const fn needs_steering(&self) -> bool {
        matches!(self, Self::Many { .. })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::One(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => write!(f, "{address}"),
            Self::Many { network, first_port, last_port } => {
                match network {
                    IpNet::V4(network) => write!(f, "{network}:{first_port}")?,
                    IpNet::V6(network) => write!(f, "[{network}]:{first_port}")?,
                }
                if last_port == first_port { Ok(()) } else { write!(f, "-{last_port}") }
            }
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAddress {
    /// The same without host bits, where that is all that is wrong.
    pub network: Option<ListenAddress>,
}

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    /// `IP:PORT`, where the IP may have a prefix length and the port may be `FIRST-LAST`; brackets around IPv6 with its
    /// prefix length.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::One(address));
        }
        let refused = NotAnAddress { network: None };
        let (place, ports) = text.rsplit_once(':').ok_or(refused)?;
        let (first_port, last_port) = parse_ports(ports).ok_or(refused)?;
        let written = parse_network(place).ok_or(refused)?;
        let network = written.trunc();
        let many = Self::Many { network, first_port, last_port };
        // 203.0.113.7/24 may mean the host or the network; taking the network would serve more than was meant.
        if network == written { Ok(many) } else { Err(NotAnAddress { network: Some(many) }) }
    }
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// Either family with a prefix length or without; IPv6 in brackets.
fn parse_network(text: &str) -> Option<IpNet> {
    let bare = text.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match bare {
        Some(bare) => network(bare?).filter(|network| matches!(network, IpNet::V6(_))),
        None => network(text).filter(|network| matches!(network, IpNet::V4(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::{ListenAddress, NotAnAddress};

    fn read(text: &str) -> Result<ListenAddress, NotAnAddress> {
        text.parse()
    }

    #[test]
    fn one_address_and_networks_with_ports_come_back_as_written() {
        for text in [
            "0.0.0.0:80",
            "[::]:80",
            "127.0.0.1:0",
            "203.0.113.0/24:80-89",
            "203.0.113.0/24:80",
            "203.0.113.7/32:80-81",
            "0.0.0.0/0:443",
            "[2001:db8::/64]:80-89",
            "[2001:db8::/64]:443",
        ] {
            assert_eq!(read(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn ports_of_one_address_are_its_network_of_one() {
        for (text, printed) in
            [("203.0.113.7:80-81", "203.0.113.7/32:80-81"), ("[2001:db8::1]:80-81", "[2001:db8::1/128]:80-81")]
        {
            let address = read(text).expect("it is one");
            assert!(address.needs_steering());
            assert_eq!(address.to_string(), printed);
        }
        assert!(!read("203.0.113.7:80").expect("it is one").needs_steering());
    }

    #[test]
    fn a_socket_is_bound_to_the_first_address_and_port() {
        let bound = |text| read(text).expect("it is one").bind_address().to_string();
        assert_eq!(bound("203.0.113.0/24:80-89"), "203.0.113.0:80");
        assert_eq!(bound("[2001:db8::/64]:443"), "[2001:db8::]:443");
        assert_eq!(bound("127.0.0.1:8080"), "127.0.0.1:8080");
    }

    #[test]
    fn host_bits_are_refused_and_the_network_named() {
        let refused = read("203.0.113.7/24:80-89").expect_err("a host or a network");
        assert_eq!(refused.network.map(|network| network.to_string()).as_deref(), Some("203.0.113.0/24:80-89"));
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            ":80",
            "80",
            "203.0.113.0/24",
            "203.0.113.0/24:0",
            "203.0.113.0/24:89-80",
            "203.0.113.0/24:80-",
            "203.0.113.0/24:80-70000",
            "203.0.113.0/33:80",
            "2001:db8::/64:80",
            "[2001:db8::]/64:80",
            "[203.0.113.0/24]:80",
            "[2001:db8::/64:80",
            "localhost:80-81",
        ] {
            assert_eq!(read(text), Err(NotAnAddress { network: None }), "{text}");
        }
    }
}
