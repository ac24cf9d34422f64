//! Which server a hash belongs to: a weighted Maglev lookup table (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Owns the table and how it is filled. It must not know health, load or limits: [`super::balance`] says which servers
//! are in the table and which of them may be picked now.
//!
//! The table depends on the servers' addresses and weights alone, never on their order or on what happened before, so
//! that several devices in front of the same servers, and one device before and after a restart, agree on every hash.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};

use super::server::ServerId;
use crate::config::model::ServerAddress;

/// Sizes that a table may have. Primes, so that every skip visits every slot. Few, because another size moves nearly
/// all hashes, and adding servers should seldom do that. The first one takes 4 KiB, the last one 256 KiB.
const SIZES: [usize; 7] = [1021, 2039, 4093, 8191, 16381, 32749, 65537];
/// Slots that the server of the lowest weight gets at least, as far as the largest size allows: shares are then off by
/// about a percent, and a server that leaves moves about as little more than its own share.
const SLOTS_OF_LIGHTEST: usize = 100;
/// How long a server of weight 1 waits between two of its turns while the table is filled. A power of two far above the
/// highest weight, so that dividing it by a weight loses nothing that matters.
const TURN: u64 = 1 << 32;

/// One server of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) id: ServerId,
    /// Of [`server_key`].
    pub(super) key: u64,
    pub(super) weight: u32,
}

/// The table: each slot names the server of its share of the hashes.
#[derive(Clone)]
pub(super) struct Maglev {
    /// Positions in `ids`, half the size of a [`ServerId`] or less.
    slots: Box<[u32]>,
    ids: Box<[ServerId]>,
}

impl Maglev {
    /// The table of `members`, in whichever order they come. `size`: of [`table_size`].
    pub(super) fn new(mut members: Vec<Member>, size: usize) -> Self {
        // The order decides who gets a slot that two want at the same turn.
        members.sort_by_key(|member| (member.key, member.id));
        let ids = members.iter().map(|member| member.id).collect();
        Self { slots: fill(&members, size), ids }
    }

    /// The server that `hash` belongs to, or, where that one is no candidate, the next candidate in the table: the
    /// overflow of one server spreads over all others, and the same hash always overflows to the same one. `None` where
    /// no server of the table is a candidate.
    pub(super) fn lookup(&self, hash: u64, is_candidate: impl Fn(ServerId) -> bool) -> Option<ServerId> {
        let size = self.slots.len();
        if size == 0 {
            return None;
        }
        let first = (mix(hash) % size as u64) as usize;
        let (before, from_first) = self.slots.split_at(first);
        from_first.iter().chain(before).map(|&at| self.ids[at as usize]).find(|&id| is_candidate(id))
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maglev").field("slots", &self.slots.len()).field("ids", &self.ids).finish()
    }
}

/// Slots for servers of these weights. Has to be told of all servers of an upstream, also of those that take no work
/// now, because a size that changed with a server that left would move all hashes and not only its own.
pub(super) fn table_size(weights: impl Iterator<Item = u32>) -> usize {
    let (mut total, mut lightest) = (0_usize, u32::MAX);
    for weight in weights.map(|weight| weight.max(1)) {
        total = total.saturating_add(weight as usize);
        lightest = lightest.min(weight);
    }
    let wanted = total.saturating_mul(SLOTS_OF_LIGHTEST).div_ceil(lightest as usize);
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|&size| size >= wanted).unwrap_or(largest)
}

/// The same number for the same address in every run, which the standard library's hashers do not promise.
pub(super) fn server_key(address: &ServerAddress) -> u64 {
    let mut key = Fnv1a(0xcbf2_9ce4_8422_2325);
    // Neither the hash nor the address can fail to be written.
    let _: fmt::Result = write!(key, "{address}");
    mix(key.0)
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The servers take turns; at its turn each takes the slot that it likes best among those still free. A server of
/// weight w has its turns every 1/w of the time, so that a change of one server's weight leaves the turns of the others
/// among each other as they were. All have their first turn at once: each gets a slot as long as there are enough.
fn fill(members: &[Member], size: usize) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    if members.is_empty() {
        return Box::default();
    }
    let mut preferences: Vec<Preference> = members.iter().map(|member| Preference::of(member.key, size)).collect();
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> = (0..members.len()).map(|at| Reverse((0, at))).collect();
    let mut slots = vec![FREE; size].into_boxed_slice();
    for _ in 0..size {
        let Some(mut turn) = turns.peek_mut() else { break };
        let Reverse((time, at)) = *turn;
        let preference = &mut preferences[at];
        while slots[preference.slot] != FREE {
            preference.advance(size);
        }
        slots[preference.slot] = at as u32;
        *turn = Reverse((time + TURN / u64::from(members[at].weight.max(1)), at));
    }
    slots
}

/// A server's slots in the order in which it likes them: all of them, because `skip` and the prime size have no common
/// divisor.
#[derive(Debug)]
struct Preference {
    slot: usize,
    skip: usize,
}

impl Preference {
    fn of(key: u64, size: usize) -> Self {
        // The paper takes two hashes of the server's name; two constants make them out of one.
        let (offset, skip) = (mix(key ^ 0x9e37_79b9_7f4a_7c15), mix(key ^ 0xd1b5_4a32_d192_ed03));
        let size = size as u64;
        Self { slot: (offset % size) as usize, skip: (skip % (size - 1) + 1) as usize }
    }

    fn advance(&mut self, size: usize) {
        self.slot += self.skip;
        if self.slot >= size {
            self.slot -= size;
        }
    }
}

/// FNV-1a, 64 bits.
struct Fnv1a(u64);

impl fmt::Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for octet in text.bytes() {
            self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: u64 = 100_000;

    fn member(at: usize, weight: u32) -> Member {
        let address = ServerAddress::Tcp(([10, 0, (at >> 8) as u8, at as u8], 8080).into());
        Member { id: ServerId(at), key: server_key(&address), weight }
    }

    fn members(weights: &[u32]) -> Vec<Member> {
        weights.iter().enumerate().map(|(at, &weight)| member(at, weight)).collect()
    }

    fn table(members: &[Member]) -> Maglev {
        Maglev::new(members.to_vec(), table_size(members.iter().map(|member| member.weight)))
    }

    /// The table where `leaver` takes no work; the size stays that of all.
    fn table_without(members: &[Member], leaver: usize) -> Maglev {
        let rest = members.iter().copied().filter(|member| member.id != ServerId(leaver)).collect();
        Maglev::new(rest, table_size(members.iter().map(|member| member.weight)))
    }

    fn map(table: &Maglev) -> Vec<ServerId> {
        (0..HASHES).map(|hash| table.lookup(hash, |_| true).unwrap()).collect()
    }

    fn slots_of(table: &Maglev, server: usize) -> usize {
        table.slots.iter().filter(|&&at| table.ids[at as usize] == ServerId(server)).count()
    }

    #[test]
    fn sizes_are_primes_with_room_for_the_lightest_server() {
        for size in SIZES {
            assert!((2..size).take_while(|divisor| divisor * divisor <= size).all(|divisor| size % divisor != 0));
        }
        let size = |weights: &[u32]| table_size(weights.iter().copied());
        assert_eq!(size(&[]), 1021);
        assert_eq!(size(&[7; 10]), 1021);
        assert_eq!(size(&[1; 11]), 2039);
        assert_eq!(size(&[1, 256]), 32749);
        assert_eq!(size(&[1; 655]), 65537);
        assert_eq!(size(&[1; 5000]), 65537, "the largest, however many servers");
    }

    #[test]
    fn shares_follow_weights_within_three_percent() {
        for weights in [&[1, 1, 1, 1, 1][..], &[3, 1], &[5, 4, 3, 2, 1], &[256, 1, 16], &[1; 100], &[7; 300]] {
            let members = members(weights);
            let table = table(&members);
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (at, &weight) in weights.iter().enumerate() {
                let fair = table.slots.len() as f64 * f64::from(weight) / total;
                let off = slots_of(&table, at) as f64 / fair - 1.0;
                assert!(off.abs() <= 0.03, "server {at} of {weights:?} is off by {off}");
            }
        }
    }

    /// Paper, section 5.3: a table of this size moves a little more than it has to. With at least 100 slots a server
    /// the excess stays below this part of all hashes.
    const EXCESS: f64 = 0.04;

    #[test]
    fn a_server_that_leaves_moves_its_own_share_and_at_most_four_percent_more() {
        for weights in [&[1, 1][..], &[1; 5], &[1; 10], &[3, 1], &[5, 4, 3, 2, 1], &[256, 1, 16], &[1; 60]] {
            let members = members(weights);
            let before = map(&table(&members));
            for leaver in 0..weights.len().min(10) {
                let after = map(&table_without(&members, leaver));
                assert!(!after.contains(&ServerId(leaver)));
                let own = before.iter().filter(|&&id| id == ServerId(leaver)).count();
                let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
                let excess = (moved - own) as f64 / HASHES as f64;
                assert!(excess <= EXCESS, "{excess} more than its own when {leaver} leaves {weights:?}");
            }
        }
    }

    #[test]
    fn the_share_of_a_server_that_leaves_goes_to_all_others() {
        let members = members(&[1; 5]);
        let (before, after) = (map(&table(&members)), map(&table_without(&members, 2)));
        for heir in [0, 1, 3, 4] {
            let taken =
                before.iter().zip(&after).filter(|&(&before, &after)| before == ServerId(2) && after == ServerId(heir));
            let share = taken.count() as f64 / HASHES as f64;
            assert!((0.03..=0.07).contains(&share), "{heir} takes {share}");
        }
    }

    #[test]
    fn a_change_of_weight_moves_little_more_than_the_difference() {
        let before = members(&[4, 4, 4, 4]);
        let after = members(&[4, 4, 4, 3]);
        let moved =
            map(&table(&before)).iter().zip(&map(&table(&after))).filter(|(before, after)| before != after).count();
        // 1/4 - 3/15 of all.
        assert!(moved as f64 / HASHES as f64 <= 0.05 + EXCESS, "{moved} moved");
    }

    #[test]
    fn the_same_servers_make_the_same_table_in_any_order() {
        let mut members = members(&[1, 2, 3, 1, 2, 3, 7]);
        let map_before = map(&table(&members));
        members.reverse();
        members.swap(1, 4);
        assert_eq!(map(&table(&members)), map_before);
    }

    /// Devices of different versions in front of the same servers agree only as long as these numbers stay.
    #[test]
    fn the_map_is_the_same_in_every_run_and_version() {
        assert_eq!(server_key(&ServerAddress::Tcp(([127, 0, 0, 1], 80).into())), 11_287_329_193_981_315_123);
        assert_eq!(server_key(&ServerAddress::Unix("/run/app.sock".into())), 3_062_539_126_698_992_788);
        let table = table(&members(&[1, 2, 3]));
        let first: Vec<usize> = (0..12).map(|hash| table.lookup(hash, |_| true).unwrap().0).collect();
        assert_eq!(first, [2, 0, 2, 2, 0, 2, 0, 2, 1, 1, 2, 0]);
    }

    #[test]
    fn overflow_of_a_server_spreads_and_leaves_the_hashes_of_the_others_alone() {
        let table = table(&members(&[1; 5]));
        let mut overflow = [0_u64; 5];
        for hash in 0..HASHES {
            let own = table.lookup(hash, |_| true).unwrap();
            let next = table.lookup(hash, |id| id != ServerId(2)).unwrap();
            assert_eq!(table.lookup(hash, |id| id != ServerId(2)), Some(next), "the same one each time");
            if own == ServerId(2) {
                overflow[next.0] += 1;
            } else {
                assert_eq!(next, own);
            }
        }
        assert_eq!(overflow[2], 0);
        assert!([0, 1, 3, 4].into_iter().all(|at| overflow[at] > HASHES / 5 / 10), "{overflow:?}");
    }

    #[test]
    fn any_one_candidate_is_found_and_none_where_there_is_none() {
        let table = table(&members(&[256, 1, 1, 256]));
        for id in (0..4).map(ServerId) {
            assert!((0..1000).all(|hash| table.lookup(hash, |other| other == id) == Some(id)));
        }
        assert_eq!(table.lookup(7, |_| false), None);
        assert_eq!(Maglev::new(Vec::new(), 1021).lookup(7, |_| true), None);
    }
}
