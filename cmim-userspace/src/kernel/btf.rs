//! Where the running kernel keeps the fields that the programs read of a TCP socket, found in its own description of
//! its types (BTF, `Documentation/bpf/btf.rst`).
//!
//! Only as much of the format as that takes: names, and members of structures. Read in passing: the whole of it is
//! larger than the daemon, and memory of such a size is not all given back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use cmim_common::splice::SocketLayout;

use super::error::KernelError;
use super::piece::Piece;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const READ_SIZE: usize = 64 * 1024;

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

/// Bytes of a type's common part, and of a structure's member.
const COMMON: u64 = 12;
const MEMBER: u64 = 12;

/// How many members are wanted.
const COUNT: usize = 5;

/// A structure and its member, in the order of [`SocketLayout`]. `struct sock` is what `struct tcp_sock` begins with, and
/// `sk_rmem_alloc` what its `sk_backlog` begins with.
const WANTED: [[&str; 2]; COUNT] = [
    ["tcp_sock", "write_seq"],
    ["tcp_sock", "copied_seq"],
    ["sock", "sk_wmem_queued"],
    ["sock", "sk_sndbuf"],
    ["sock", "sk_backlog"],
];

/// Finds the layout of the running kernel's TCP sockets.
///
/// # Errors
///
/// When this kernel does not describe its types, or has other ones.
pub(super) fn socket_layout() -> Result<SocketLayout, KernelError> {
    let described = File::open(VMLINUX).and_then(|file| layout(BufReader::with_capacity(READ_SIZE, file)));
    let found = described.unwrap_or_else(|error| {
        tracing::debug!("{VMLINUX}: {error}");
        None
    });
    found.ok_or(KernelError::Unsupported { what: Piece::SocketTypes.what() })
}

/// The layout, where the description has all of it.
fn layout(mut btf: impl BufRead + Seek) -> io::Result<Option<SocketLayout>> {
    let mut magic = [0; 4];
    btf.read_exact(&mut magic)?;
    if !magic.starts_with(&MAGIC.to_ne_bytes()) {
        return Ok(None);
    }
    let [header, types, types_length, strings, strings_length] = words(&mut btf)?;
    let section = |offset: u32| SeekFrom::Start(u64::from(header) + u64::from(offset));
    btf.seek(section(strings))?;
    let Some(names) = find_names((&mut btf).take(strings_length.into()))? else { return Ok(None) };
    btf.seek(section(types))?;
    let found = find_members(&mut btf, types_length.into(), &names)?;
    let [Some(write_seq), Some(copied_seq), Some(queued), Some(limit), Some(received)] = found else {
        return Ok(None);
    };
    Ok(Some(SocketLayout { write_seq, copied_seq, queued, limit, received }))
}

/// What the wanted names are known by: their places among the strings.
fn find_names(mut strings: impl BufRead) -> io::Result<Option<[[u32; 2]; COUNT]>> {
    let mut names = [[None; 2]; COUNT];
    let (mut place, mut string) = (0, Vec::new());
    loop {
        string.clear();
        let length = strings.read_until(0, &mut string)?;
        if length == 0 || string.pop() != Some(0) {
            break;
        }
        for (name, found) in WANTED.iter().flatten().zip(names.iter_mut().flatten()) {
            if name.as_bytes() == string {
                *found = Some(place);
            }
        }
        place += length as u32;
    }
    if names.iter().flatten().any(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(names.map(|pair| pair.map(Option::unwrap_or_default))))
}

/// The wanted members' offsets, in bytes from their structures' beginnings.
fn find_members(
    mut types: impl BufRead + Seek,
    length: u64,
    names: &[[u32; 2]; COUNT],
) -> io::Result<[Option<u32>; COUNT]> {
    let mut found = [None; COUNT];
    let mut at = 0;
    while at < length {
        let [name, info, _size] = words(&mut types)?;
        let (kind, members) = (info >> 24 & 0x1f, u64::from(info & 0xffff));
        let rest = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * members,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => MEMBER * members,
            _ => 0,
        };
        at += COMMON + rest;
        if kind != KIND_STRUCT || !names.iter().any(|[structure, _]| *structure == name) {
            types.seek_relative(rest as i64)?;
            continue;
        }
        let has_bit_fields = info >> 31 == 1;
        for _ in 0..members {
            let [member, _type, bits] = words(&mut types)?;
            // Sizes of bit fields stand above the offsets.
            let bits = if has_bit_fields { bits & 0x00ff_ffff } else { bits };
            let wanted = names.iter().position(|wanted| *wanted == [name, member]);
            if let Some(place) = wanted.and_then(|wanted| found.get_mut(wanted)) {
                *place = (bits % 8 == 0).then_some(bits / 8);
            }
        }
    }
    Ok(found)
}

fn words<const N: usize>(mut from: impl Read) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        *word = u32::from_ne_bytes(bytes);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use cmim_common::splice::SocketLayout;

    use super::{VMLINUX, socket_layout};
    use crate::kernel::tests::skipped;

    fn layout(btf: &[u8]) -> io::Result<Option<SocketLayout>> {
        super::layout(Cursor::new(btf))
    }

    const STRINGS: &[u8] = b"\0int\0sock\0sk_backlog\0sk_sndbuf\0sk_wmem_queued\0tcp_sock\0copied_seq\0write_seq\0";

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
        types.extend([at("sock"), 4 << 24 | 4, 64]);
        types.extend([at("int"), 1, 0, at("sk_sndbuf"), 1, 96, at("sk_wmem_queued"), 1, 128, at("sk_backlog"), 1, 160]);
        types.extend([at("tcp_sock"), 1 << 31 | 4 << 24 | 2, 2_048]);
        types.extend([at("write_seq"), 1, (32 << 24) | (8 * 1_500), at("copied_seq"), 1, (32 << 24) | (8 * 1_504)]);
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
        let layout = layout(&described()).expect("whole");
        assert_eq!(
            layout,
            Some(SocketLayout { write_seq: 1_500, copied_seq: 1_504, queued: 16, limit: 12, received: 20 })
        );
    }

    #[test]
    fn a_description_that_is_cut_anywhere_gives_nothing_and_harms_nothing() {
        let whole = described();
        for end in 0..whole.len() {
            assert!(!matches!(layout(whole.get(..end).expect("within")), Ok(Some(_))), "{end} bytes");
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
