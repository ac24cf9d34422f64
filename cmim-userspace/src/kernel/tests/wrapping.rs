//! One SYN in any number of wrappings: VLAN tags, options, extension headers, fragments, padding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::host::{HERE_MAC, PEER_MAC};
use super::segment::{SERVICE_VLAN, SYN, Segment, TCP, VLAN, addresses, v4, v6, with_length};

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const MTU: usize = 1_500;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Numbers that a seed determines (SplitMix64).
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// A SYN as frames, and how it is wrapped in words.
pub(super) struct Wrapped {
    pub frames: Vec<Vec<u8>>,
    pub shape: String,
    /// The TCP header's flags are in the first fragment, with all that is in front of them.
    pub is_legible: bool,
}

/// The packets of a SYN.
struct Packets {
    packets: Vec<Vec<u8>>,
    shape: String,
    is_legible: bool,
}

/// Where the flags of a TCP header end.
const FLAGS_END: usize = 14;

/// Wraps a SYN in one way of very many.
pub(super) fn wrapped(random: &mut Random, source: SocketAddr, to: SocketAddr) -> Wrapped {
    let segment = Segment::new(source, to, SYN);
    let (ethertype, Packets { packets, shape, is_legible }) = match (source.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(to)) => (V4, in_v4(random, source, to, &segment)),
        (IpAddr::V6(source), IpAddr::V6(to)) => (V6, in_v6(random, source, to, &segment)),
        _ => panic!("addresses of one family"),
    };
    let longest = packets.iter().map(Vec::len).max().expect("a packet");
    let tags = tags(random, MTU.saturating_sub(longest) / 4);
    let padding = if random.one_in(3) && longest + tags.len() * 4 < MTU - 64 { random.below(64) } else { 0 };
    let mut frames: Vec<_> =
        packets.iter().map(|packet| framed(&tags, ethertype, packet, &random.bytes(padding))).collect();
    // The kernel puts them together in any order.
    if random.one_in(2) {
        frames.reverse();
    }
    let shape = format!("{} tags, {shape}, {padding} bytes behind", tags.len());
    Wrapped { frames, shape, is_legible }
}

fn framed(tags: &[(u16, u16)], ethertype: u16, packet: &[u8], padding: &[u8]) -> Vec<u8> {
    let mut frame = [HERE_MAC, PEER_MAC].concat();
    for (kind, number) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(number.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame.extend(padding);
    frame
}

/// Tags of VLAN 0 with any priority, which the kernel takes off.
fn tags(random: &mut Random, room: usize) -> Vec<(u16, u16)> {
    let count = match random.below(4) {
        0 => 0,
        1 => 1 + random.below(3),
        2 => 3 + random.below(30),
        _ => random.below(360),
    };
    let mut tag = || (random.one_of(&[VLAN, SERVICE_VLAN]), (random.below(16) as u16) << 12);
    (0..count.min(room)).map(|_| tag()).collect()
}

fn in_v4(random: &mut Random, source: Ipv4Addr, to: Ipv4Addr, segment: &Segment) -> Packets {
    let options = v4_options(random);
    let payload = segment.tcp();
    let cuts = cuts(random, payload.len());
    let number = random.bytes(2);
    let fragments = pieces(&payload, &cuts).map(|(at, piece, is_last)| {
        let offset = u16::try_from(at / 8).expect("a small packet") | if is_last { 0 } else { 0x2000 };
        let mut header = v4(source, to, TCP, offset.to_be_bytes(), &options);
        header[4..6].copy_from_slice(&number);
        with_length([header, piece.to_vec()].concat(), V4)
    });
    Packets {
        packets: fragments.collect(),
        shape: format!("options {options:?}, cut at {cuts:?}"),
        is_legible: cuts.first().is_none_or(|first| *first >= FLAGS_END),
    }
}

/// No operations, a record of the route, a router alert, a stream's number, an unknown one, an early end.
fn v4_options(random: &mut Random) -> Vec<u8> {
    if random.one_in(2) {
        return Vec::new();
    }
    let mut options = Vec::new();
    for _ in 0..random.below(5) {
        match random.below(5) {
            0 => options.push(1),
            1 if !options.contains(&7) => options.extend([7, 7, 4, 0, 0, 0, 0]),
            2 if !options.contains(&148) => options.extend([148, 4, 0, 0]),
            3 => options.extend([136, 4, 131, 137]),
            _ => options.extend([30, 6, 131, 137, 131, 7]),
        }
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    options
}

/// Where a payload is cut into fragments: multiples of eight, from none to all.
fn cuts(random: &mut Random, length: usize) -> Vec<usize> {
    let often = random.one_of(&[0, 0, 1, 4]);
    (8..length).step_by(8).filter(|_| often > 0 && random.one_in(often)).collect()
}

/// Each piece with where it begins and whether it is the last.
fn pieces<'a>(payload: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = (usize, &'a [u8], bool)> {
    let begins = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(payload.len()));
    begins.zip(ends).map(move |(at, end)| (at, &payload[at..end], end == payload.len()))
}

fn in_v6(random: &mut Random, source: Ipv6Addr, to: Ipv6Addr, segment: &Segment) -> Packets {
    let is_fragmented = random.one_in(2);
    let most = random.one_of(&[0, 1, 3, 12, 60, 170]);
    let (before, inside) = (random.below(most + 1), random.below(most + 1));
    let mut outer = chain(random, before, 600);
    if random.one_in(3) {
        outer.insert(0, (HOP_BY_HOP, options(random, 2)));
    }
    let inner = if is_fragmented { chain(random, inside, 600) } else { Vec::new() };
    let inner_headers = joined(&inner, TCP);
    let legible_from = inner_headers.len() + FLAGS_END;
    let payload = [inner_headers, segment.tcp()].concat();
    let (first, packets, cuts) = if is_fragmented {
        let cuts = cuts(random, payload.len());
        let number = random.bytes(4);
        let next = inner.first().map_or(TCP, |header| header.0);
        let fragments = pieces(&payload, &cuts).map(|(at, piece, is_last)| {
            // RFC 8200, 4.5: what comes next is the first fragment's to say.
            let next = if at == 0 || !random.one_in(2) { next } else { 59 };
            let offset = u16::try_from(at).expect("a small packet") | u16::from(!is_last);
            let [high, low] = offset.to_be_bytes();
            [&[next, 0, high, low], number.as_slice(), piece].concat()
        });
        (FRAGMENT, fragments.collect(), cuts)
    } else {
        (TCP, vec![payload], Vec::new())
    };
    let next = outer.first().map_or(first, |header| header.0);
    let packets: Vec<_> = packets
        .iter()
        .map(|rest: &Vec<u8>| with_length([v6(source, to, next), joined(&outer, first), rest.clone()].concat(), V6))
        .collect();
    let kinds = |headers: &[(u8, Vec<u8>)]| headers.iter().map(|header| header.0).collect::<Vec<_>>();
    let shape = format!(
        "headers {:?}, fragmented: {is_fragmented}, headers {:?}, cut at {cuts:?}",
        kinds(&outer),
        kinds(&inner)
    );
    Packets { packets, shape, is_legible: cuts.first().is_none_or(|first| *first >= legible_from) }
}

/// Extension headers without the byte that says what comes next, of so many bytes at most.
fn chain(random: &mut Random, count: usize, room: usize) -> Vec<(u8, Vec<u8>)> {
    let mut left = room;
    let mut headers = Vec::new();
    for _ in 0..count {
        let header = match random.below(4) {
            0 => (ROUTING, routing(random)),
            1 => (DESTINATION, options(random, 30)),
            _ => (DESTINATION, options(random, 1)),
        };
        let Some(rest) = left.checked_sub(header.1.len() + 1) else { break };
        left = rest;
        headers.push(header);
    }
    headers
}

/// Options that are to be skipped where they are not known, up to so many eights of bytes.
fn options(random: &mut Random, most: usize) -> Vec<u8> {
    let eights = random.below(most);
    let length = eights * 8 + 6;
    let mut header = vec![u8::try_from(eights).expect("a short header")];
    let content = u8::try_from(length - 2).expect("a short header");
    if eights == 0 && random.one_in(2) {
        // RFC 8200, 4.2: PadN. The kernel refuses one that is longer or holds anything.
        header.extend([1, content]);
        header.extend(vec![0; length - 2]);
    } else {
        // For experiments (RFC 4727), of those that are to be skipped where they are not known.
        header.extend([0x1e, content]);
        header.extend(random.bytes(length - 2));
    }
    header
}

/// One that has nowhere left to go, of a kind that the kernel skips then.
fn routing(random: &mut Random) -> Vec<u8> {
    let eights = 2 * random.below(3);
    let mut header = vec![u8::try_from(eights).expect("a short header"), random.one_of(&[0, 1, 253]), 0];
    header.extend(random.bytes(4 + eights * 8));
    header
}

/// The headers one behind the other, each with the kind of the next.
fn joined(headers: &[(u8, Vec<u8>)], last: u8) -> Vec<u8> {
    let next = headers.iter().skip(1).map(|header| header.0).chain(std::iter::once(last));
    headers
        .iter()
        .zip(next)
        .flat_map(|((_, header), next)| std::iter::once(next).chain(header.iter().copied()))
        .collect()
}

/// The port to which a frame answers a SYN, if it does: SYN and ACK from `from` to `to`, whatever stands in front of it.
pub(super) fn answered(frame: &[u8], from: SocketAddr, to: IpAddr) -> Option<u16> {
    let ends = addresses(from.ip(), to);
    let at = frame.windows(ends.len()).position(|window| window == ends)?;
    let tcp = frame[at + ends.len()..].first_chunk::<14>()?;
    let is_answer = tcp[..2] == from.port().to_be_bytes() && tcp[13] & 0x12 == 0x12;
    is_answer.then_some(u16::from_be_bytes([tcp[2], tcp[3]]))
}
