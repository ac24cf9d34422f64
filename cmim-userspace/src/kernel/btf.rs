//! Where the running kernel keeps the fields that the verdict reads of a TCP socket, found in its own description of
//! its types (BTF, `Documentation/bpf/btf.rst`).
//!
//! Pure but for [`socket_layout`]. Only as much of the format as that takes: names, sizes and members of structures.

use std::fs;

use cmim_common::splice::SocketLayout;

use super::error::KernelError;
use super::piece::Piece;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;

/// Kinds of types by how many bytes follow their common part.
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Finds the layout of the running kernel's TCP sockets.
///
/// # Errors
///
/// When this kernel does not describe its types, or has other ones.
pub(super) fn socket_layout() -> Result<SocketLayout, KernelError> {
    let layout = fs::read(VMLINUX).ok().and_then(|types| layout(&types));
    layout.ok_or(KernelError::Unsupported { what: Piece::SocketTypes.what() })
}

/// The layout, where the description has all of it.
fn layout(btf: &[u8]) -> Option<SocketLayout> {
    let types = Types::of(btf)?;
    let wanted = [("tcp_sock", "write_seq"), ("sock", "sk_wmem_queued"), ("sock", "sk_sndbuf")];
    let mut found = [None; 3];
    for definition in types {
        if definition.kind != KIND_STRUCT {
            continue;
        }
        for ((structure, field), place) in wanted.iter().zip(&mut found) {
            if definition.is_named(structure) {
                *place = place.or_else(|| definition.offset_of(field));
            }
        }
    }
    // `struct sock` is what `struct tcp_sock` begins with.
    let [write_seq, queued, limit] = found;
    Some(SocketLayout { write_seq: write_seq?, queued: queued?, limit: limit? })
}

/// All types of a description, in order.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// One type.
struct Definition<'a> {
    kind: u32,
    name: u32,
    /// The offsets of its members have their sizes above them (bit fields).
    has_bit_fields: bool,
    rest: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    /// `None`: it is no description, or is cut short.
    fn of(btf: &'a [u8]) -> Option<Self> {
        if btf.first_chunk::<2>().is_none_or(|magic| u16::from_ne_bytes(*magic) != MAGIC) {
            return None;
        }
        let header = word(btf, 4)? as usize;
        let section = |offset: usize, length: usize| {
            let begin = header.checked_add(word(btf, offset)? as usize)?;
            btf.get(begin..begin.checked_add(word(btf, length)? as usize)?)
        };
        Some(Self { types: section(8, 12)?, strings: section(16, 20)? })
    }
}

impl<'a> Iterator for Types<'a> {
    type Item = Definition<'a>;

    fn next(&mut self) -> Option<Definition<'a>> {
        let (name, info) = (word(self.types, 0)?, word(self.types, 4)?);
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let size = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * members,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * members,
            _ => 0,
        };
        let (rest, types) = self.types.get(12..)?.split_at_checked(size)?;
        self.types = types;
        Some(Definition { kind, name, has_bit_fields: info >> 31 == 1, rest, strings: self.strings })
    }
}

impl Definition<'_> {
    fn is_named(&self, name: &str) -> bool {
        is_string(self.strings, self.name, name)
    }

    /// In bytes from the structure's beginning.
    fn offset_of(&self, field: &str) -> Option<u32> {
        let member = self.rest.chunks_exact(12).find(|member| {
            let name = word(member, 0);
            name.is_some_and(|name| is_string(self.strings, name, field))
        })?;
        let bits = word(member, 8)?;
        let bits = if self.has_bit_fields { bits & 0x00ff_ffff } else { bits };
        (bits % 8 == 0).then_some(bits / 8)
    }
}

/// Whether the string at this place is exactly this one.
fn is_string(strings: &[u8], at: u32, expected: &str) -> bool {
    let rest = strings.get(at as usize..).and_then(|rest| rest.strip_prefix(expected.as_bytes()));
    rest.is_some_and(|rest| rest.first() == Some(&0))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use cmim_common::splice::SocketLayout;

    use super::{VMLINUX, layout, socket_layout};
    use crate::kernel::tests::skipped;

    const STRINGS: &[u8] = b"\0int\0sock\0sk_sndbuf\0sk_wmem_queued\0tcp_sock\0write_seq\0";

    fn at(name: &str) -> u32 {
        let position = STRINGS.windows(name.len() + 2).position(|window| {
            let inner = window.get(1..=name.len()).expect("as long");
            window.first() == Some(&0) && inner == name.as_bytes() && window.last() == Some(&0)
        });
        u32::try_from(position.expect("a name of this test") + 1).expect("small")
    }

    fn described() -> Vec<u8> {
        let mut types: Vec<u32> = Vec::new();
        // An integer, then a structure that is larger than what is wanted of it, then one with a bit field's size.
        types.extend([at("int"), 1 << 24, 4, 32]);
        types.extend([at("sock"), 4 << 24 | 3, 64]);
        types.extend([at("int"), 1, 0, at("sk_sndbuf"), 1, 96, at("sk_wmem_queued"), 1, 128]);
        types.extend([at("tcp_sock"), 1 << 31 | 4 << 24 | 1, 2_048]);
        types.extend([at("write_seq"), 1, (32 << 24) | (8 * 1_500)]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let lengths = [types.len(), STRINGS.len()].map(|length| u32::try_from(length).expect("small"));
        let mut btf = 0xeb9f_u16.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        btf.extend([24, 0, lengths[0], lengths[0], lengths[1]].into_iter().flat_map(u32::to_ne_bytes));
        btf.extend(types);
        btf.extend(STRINGS);
        btf
    }

    #[test]
    fn the_fields_are_found_among_others() {
        assert_eq!(layout(&described()), Some(SocketLayout { write_seq: 1_500, queued: 16, limit: 12 }));
    }

    #[test]
    fn a_description_that_is_cut_anywhere_gives_nothing_and_harms_nothing() {
        let whole = described();
        for end in 0..whole.len() {
            assert_eq!(layout(whole.get(..end).expect("within")), None, "{end} bytes");
        }
    }

    #[test]
    fn the_running_kernels_description_is_read_quickly() {
        if !Path::new(VMLINUX).exists() {
            return skipped(
                "the_running_kernels_description_is_read_quickly",
                "this kernel does not describe its types",
            );
        }
        let start = Instant::now();
        let layout = socket_layout().expect("it describes its sockets");
        println!("{layout:?} in {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(layout.queued < layout.write_seq && layout.limit < layout.write_seq, "{layout:?}");
    }
}
