//! IPv6 addresses as contexts and sockets give them.

/// The bytes of an address that the kernel gives as four words in network order.
#[inline(always)]
pub(crate) fn words(address: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = address.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
