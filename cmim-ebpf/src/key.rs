//! By which key a connection stands in the maps.

pub(crate) use cmim_common::address::mapped;
pub(crate) use cmim_common::connection::ConnectionKey;

pub(crate) const AF_INET: u32 = 2;

/// The context's key of its connection. Every field is read, whatever the family, and volatile: else LLVM picks the
/// field's address first and reads through it, which the verifier refuses ("dereference of modified ctx ptr").
macro_rules! key {
    ($context:expr) => {{
        macro_rules! field {
            ($name:ident) => {
                // SAFETY: the kernel hands every program a readable context, and its fields are plain integers.
                unsafe { (&raw const (*$context).$name).read_volatile() }
            };
        }
        let local_v4 = $crate::key::mapped(field!(local_ip4).to_ne_bytes());
        let remote_v4 = $crate::key::mapped(field!(remote_ip4).to_ne_bytes());
        let (local_v6, remote_v6) = ($crate::words::words(field!(local_ip6)), $crate::words::words(field!(remote_ip6)));
        let (local_address, remote_address) =
            if field!(family) == $crate::key::AF_INET { (local_v4, remote_v4) } else { (local_v6, remote_v6) };
        // The local port is in host order; the remote one in network order, as a number of 32 bits.
        let [_, _, local_high, local_low] = field!(local_port).to_be_bytes();
        let [_, _, remote_high, remote_low] = field!(remote_port).to_ne_bytes();
        $crate::key::ConnectionKey {
            local_address,
            remote_address,
            local_port: [local_high, local_low],
            remote_port: [remote_high, remote_low],
        }
    }};
}
pub(crate) use key;
