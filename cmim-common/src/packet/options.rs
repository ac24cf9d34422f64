//! The options of an IPv4 header.

use super::Packet;

/// The header's length is four bits of words, five of which are no options.
const MOST: usize = 10 * 4;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Whether the options say that the packet goes on to another address (RFC 791, 3.1). A host that takes them, which Linux
/// does not by default (`accept_source_route`), may deliver it to any listener of its own.
#[inline(always)]
pub(super) fn is_source_routed<P: Packet + ?Sized>(packet: &P, at: usize, end: usize) -> bool {
    let mut at = at;
    for _ in 0..MOST {
        if at >= end {
            return false;
        }
        // Both at once, as an option is never the packet's last byte: TCP follows. And the verifier does not follow the
        // check of a single one.
        let Some([kind, length]) = packet.read::<2>(at) else {
            return false;
        };
        let length = match kind {
            END => return false,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return true,
            NO_OPERATION => 1,
            // The kernel drops the packet (`__ip_options_compile`).
            _ if length < 2 => return false,
            _ => usize::from(length),
        };
        at = packet.settle(at + length);
    }
    false
}
