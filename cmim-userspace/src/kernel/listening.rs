//! A listener's address as the kernel part is told of it, and the sockets behind it.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use cmim_common::listener::ListenerKey;
use cmim_common::steer::{Destination, of_network};
use ipnet::IpNet;

use crate::config::model::ListenAddress;

/// One address of a listener, with its port also where the configuration left that to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The daemon's number of the listener.
    pub id: u32,
    /// The listener's name.
    pub name: String,
    pub address: ListenAddress,
}

/// The listening sockets of one address, one for each worker in the workers' order.
#[derive(Debug)]
pub struct OpenSockets<'a> {
    pub address: ListenAddress,
    pub sockets: Vec<BorrowedFd<'a>>,
}

/// How the maps know an address.
pub(super) fn key(address: &ListenAddress) -> ListenerKey {
    ListenerKey::new(address.bind_address())
}

/// What of a listener's address stands in `CMIM_STEERING`: each port's key, and how many of its bits count. An address
/// alone stands there too, so that another listener's network does not take it; every address of a family does not,
/// as nothing is less than that.
pub(super) fn destinations(address: &ListenAddress) -> Vec<(Destination, u32)> {
    match address {
        ListenAddress::One(one) if one.ip().is_unspecified() => Vec::new(),
        ListenAddress::One(one) => vec![of_one(*one)],
        ListenAddress::Many { network, first_port, last_port } => {
            (*first_port..=*last_port).map(|port| of_many(*network, port)).collect()
        }
    }
}

fn of_one(address: SocketAddr) -> (Destination, u32) {
    of_many(IpNet::from(address.ip()), address.port())
}

fn of_many(network: IpNet, port: u16) -> (Destination, u32) {
    of_network(network.addr(), network.prefix_len(), port)
}
