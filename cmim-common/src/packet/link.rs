//! From the start of an Ethernet frame to the packet in it, through VLAN tags.

use super::Packet;

pub(crate) const ETHERNET: usize = 14;
const ETHERTYPE_AT: usize = 12;
pub(crate) const VLAN_TAG: usize = 4;
/// As many as a frame of 1,500 bytes has room for in front of the headers of IPv4 and TCP. The kernel takes off any
/// number of tags of VLAN 0 (`__netif_receive_skb_core`), and one for each interface that stands on another.
pub(super) const MAX_VLAN_TAGS: usize = (1_500 - 40) / VLAN_TAG;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// What a frame holds.
pub(super) enum Network {
    /// A packet of this type.
    Begins {
        ethertype: u16,
        at: usize,
    },
    Truncated,
    TooManyTags,
}

/// Finds what is behind the tags. The driver may have taken the first one off already.
#[inline(always)]
pub(super) fn network<P: Packet + ?Sized>(packet: &P) -> Network {
    let Some(ethertype) = packet.read::<2>(ETHERTYPE_AT) else {
        return Network::Truncated;
    };
    let mut ethertype = u16::from_be_bytes(ethertype);
    let mut at = ETHERNET;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_tag(ethertype) {
            return Network::Begins { ethertype, at };
        }
        let Some([_, _, high, low]) = packet.read::<VLAN_TAG>(at) else {
            return Network::Truncated;
        };
        ethertype = u16::from_be_bytes([high, low]);
        at = packet.settle(at + VLAN_TAG);
    }
    if is_tag(ethertype) { Network::TooManyTags } else { Network::Begins { ethertype, at } }
}

/// `eth_type_vlan`.
#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}
