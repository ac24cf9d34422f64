//! Where a listener listens: one address and port, or a network with its ports, which the kernel part steers.
//!
//! Owns the type, how it is written and what of it overlaps. Text comes from `address`, and goes to the printed
//! configuration, to listings and to log lines.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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

/// What keeps two addresses from being listened on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// The same connections would be both's.
    Connections,
    /// The sockets of both would be bound to this.
    Sockets { address: SocketAddr },
}

impl ListenAddress {
    /// What a socket for it is bound to: of many, the address in the middle of the network, and the first port. Networks
    /// within one another may begin alike, and none have the same middle; sockets with the same address would be one
    /// listener to the kernel.
    #[must_use]
    pub fn bind_address(&self) -> SocketAddr {
        match self {
            Self::One(address) => *address,
            Self::Many { network, first_port, .. } => SocketAddr::new(middle(*network), *first_port),
        }
    }

    /// Why not both of two different addresses can be listened on, where that is so.
    pub(super) fn clash(&self, other: &Self) -> Option<Clash> {
        let ((network, first, last), (other_network, other_first, other_last)) = (self.extent(), other.extent());
        let address = self.bind_address();
        if network == other_network && first <= other_last && other_first <= last {
            Some(Clash::Connections)
        } else {
            (address == other.bind_address()).then_some(Clash::Sockets { address })
        }
    }

    /// Its network and its ports, from the first to the last.
    fn extent(&self) -> (IpNet, u16, u16) {
        match self {
            Self::One(address) if address.ip().is_unspecified() => (every(*address), address.port(), address.port()),
            Self::One(address) => (IpNet::from(address.ip()), address.port(), address.port()),
            Self::Many { network, first_port, last_port } => (*network, *first_port, *last_port),
        }
    }

    /// Whether connections reach its socket only if the kernel part steers them there.
    #[must_use]
    pub const fn needs_steering(&self) -> bool {
        matches!(self, Self::Many { .. })
    }
}

/// The first address of a network's upper half: its lowest bit that is set tells how long the prefix is. Of a network of
/// one, that one; of all addresses, the unspecified one, whose sockets hear all of them.
fn middle(network: IpNet) -> IpAddr {
    if network.prefix_len() == 0 {
        return network.addr();
    }
    match network {
        IpNet::V4(network) => {
            let rest = u32::from(network.hostmask());
            Ipv4Addr::from(u32::from(network.addr()) | (rest ^ (rest >> 1))).into()
        }
        IpNet::V6(network) => {
            let rest = u128::from(network.hostmask());
            Ipv6Addr::from(u128::from(network.addr()) | (rest ^ (rest >> 1))).into()
        }
    }
}

/// All addresses of a family.
fn every(address: SocketAddr) -> IpNet {
    match address {
        SocketAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        SocketAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
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
    use super::{Clash, ListenAddress, NotAnAddress};

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
    fn a_socket_is_bound_to_the_middle_of_its_network_and_the_first_port() {
        let bound = |text| read(text).expect("it is one").bind_address().to_string();
        for (text, expected) in [
            ("203.0.113.0/24:80-89", "203.0.113.128:80"),
            ("203.0.113.0/31:80", "203.0.113.1:80"),
            ("203.0.113.7/32:80-81", "203.0.113.7:80"),
            ("0.0.0.0/1:80", "64.0.0.0:80"),
            ("0.0.0.0/0:80", "0.0.0.0:80"),
            ("[2001:db8::/64]:443", "[2001:db8:0:0:8000::]:443"),
            ("[::/0]:443", "[::]:443"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
        ] {
            assert_eq!(bound(text), expected, "{text}");
        }
    }

    #[test]
    fn networks_within_one_another_have_sockets_of_their_own() {
        let halves = |prefix: u32| [0, 1].map(|half: u32| (half << (32 - prefix), prefix));
        let networks = (1..=31).flat_map(halves).chain([(0, 0)]);
        let bound = networks.map(|(network, prefix)| {
            let text = format!("{}/{prefix}:80", std::net::Ipv4Addr::from(network));
            read(&text).expect("it is one").bind_address()
        });
        let mut bound: Vec<_> = bound.collect();
        let count = bound.len();
        bound.sort_unstable();
        bound.dedup();
        assert_eq!(bound.len(), count);
    }

    #[test]
    fn what_cannot_be_listened_on_at_once_clashes_and_nothing_else_does() {
        let clash = |one, other| read(one).expect("it is one").clash(&read(other).expect("it is one"));
        for (one, other) in [
            ("203.0.113.0/24:80-89", "203.0.113.0/24:89-95"),
            ("203.0.113.0/24:80-89", "203.0.113.0/24:84"),
            ("203.0.113.7:80", "203.0.113.7:79-81"),
            ("0.0.0.0:80", "0.0.0.0/0:79-81"),
            ("[2001:db8::/64]:80", "[2001:db8::/64]:80-81"),
        ] {
            assert_eq!((clash(one, other), clash(other, one)), (Some(Clash::Connections), Some(Clash::Connections)));
        }
        let address = "203.0.113.128:80".parse().expect("a literal of this test");
        assert_eq!(clash("203.0.113.0/24:80-89", "203.0.113.128:80"), Some(Clash::Sockets { address }));
        for (one, other) in [
            ("203.0.113.0/24:80-89", "203.0.113.0/24:90"),
            ("203.0.113.0/24:80-89", "203.0.113.0/25:80-89"),
            ("203.0.113.0/24:80-89", "203.0.113.0:80"),
            ("203.0.113.0/24:80-89", "203.0.113.128:81"),
            ("[2001:db8::/32]:80", "[2001:db8::/48]:80"),
            ("0.0.0.0:80", "0.0.0.0/1:80"),
            ("0.0.0.0:80", "[::]:80"),
        ] {
            assert_eq!((clash(one, other), clash(other, one)), (None, None), "{one} and {other}");
        }
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
