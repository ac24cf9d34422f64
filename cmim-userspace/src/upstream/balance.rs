//! Which of the servers that may take a request takes it.

use std::time::Instant;

use super::maglev::{Maglev, Member, mix, server_key, table_size};
use super::server::{Server, ServerId};
use crate::config::model::Balance;

/// What the balance rules remember between two picks.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    rule: Balance,
    /// Where the next round begins, so that ties are broken in turn.
    cursor: usize,
    /// Round robin: what each server has gained in weight and not paid for.
    gained: Vec<i64>,
    random: u64,
    hashed: Hashed,
}

impl Chooser {
    /// `seed`: for random-two; any value.
    pub(super) fn new(rule: Balance, seed: u64) -> Self {
        Self { rule, cursor: 0, gained: Vec::new(), random: seed | 1, hashed: Hashed::default() }
    }

    pub(super) fn rule(&self) -> Balance {
        self.rule
    }

    /// Another server may have the place of one that left: nothing that was remembered by place is true any more.
    pub(super) fn forget_places(&mut self) {
        self.gained.clear();
        self.hashed = Hashed::default();
    }

    /// Picks one of `candidates`, or `None` where there is none. `takes_part` names the servers among which this
    /// upstream's work is shared now; the candidates are those of them that may take this very request. `working` says
    /// how many requests of the same stack a server already has: fewer comes first, so that a stack spreads over the
    /// servers. `hash`: for the hash rule.
    pub(super) fn pick<C>(
        &mut self,
        servers: &[Server<C>],
        takes_part: impl Fn(&Server<C>) -> bool,
        candidates: &[ServerId],
        working: impl Fn(ServerId) -> usize,
        hash: u64,
        now: Instant,
    ) -> Option<ServerId> {
        let load = |id: ServerId| (working(id), servers[id.0].load(now));
        match self.rule {
            Balance::LeastRequests => self.least(candidates, load),
            Balance::RoundRobin => self.next_in_turn(servers, candidates, now),
            Balance::RandomTwo => self.better_of_two(candidates, load),
            Balance::Hash => self.hashed.pick(servers, takes_part, candidates, hash),
        }
    }

    fn least(&mut self, candidates: &[ServerId], load: impl Fn(ServerId) -> (usize, u64)) -> Option<ServerId> {
        let count = candidates.len();
        if count == 0 {
            return None;
        }
        self.cursor = self.cursor.wrapping_add(1);
        (0..count).map(|step| candidates[(self.cursor + step) % count]).min_by_key(|&id| load(id))
    }

    /// Weighted in turn, spread out: each candidate gains its weight at each pick, and the one that is picked pays for
    /// all. A server in its slow start gains less.
    fn next_in_turn<C>(&mut self, servers: &[Server<C>], candidates: &[ServerId], now: Instant) -> Option<ServerId> {
        self.gained.resize(servers.len(), 0);
        let mut round = 0;
        for &id in candidates {
            let weight = servers[id.0].present_weight(now).cast_signed();
            self.gained[id.0] = self.gained[id.0].saturating_add(weight);
            round += weight;
        }
        // The first of equals, as the configuration lists them.
        let picked = candidates.iter().copied().rev().max_by_key(|id| self.gained[id.0])?;
        self.gained[picked.0] = self.gained[picked.0].saturating_sub(round);
        Some(picked)
    }

    fn better_of_two(&mut self, candidates: &[ServerId], load: impl Fn(ServerId) -> (usize, u64)) -> Option<ServerId> {
        let count = candidates.len();
        if count == 0 {
            return None;
        }
        let first = self.draw(count);
        let mut second = self.draw(count);
        if second == first {
            second = (first + 1) % count;
        }
        [first, second].into_iter().map(|at| candidates[at]).min_by_key(|&id| load(id))
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) % below.max(1) as u64) as usize
    }
}

/// The hash rule's table, kept from one pick to the next.
#[derive(Debug, Clone, Default)]
struct Hashed {
    /// What the table was made of: each server's weight and whether it takes part. Which server has which place changes
    /// with the configuration only, and then [`Chooser::forget_places`] is told.
    made_of: Vec<(u32, bool)>,
    /// `None` before the first pick.
    table: Option<Maglev>,
}

impl Hashed {
    fn pick<C>(
        &mut self,
        servers: &[Server<C>],
        takes_part: impl Fn(&Server<C>) -> bool,
        candidates: &[ServerId],
        hash: u64,
    ) -> Option<ServerId> {
        // Nobody to pick: no reason for a new table either, the servers may be back before the next request.
        let &first = candidates.first()?;
        let current = servers.iter().map(|server| (server.weight, takes_part(server)));
        if self.table.is_none() || !current.clone().eq(self.made_of.iter().copied()) {
            self.made_of.clear();
            self.made_of.extend(current);
            self.table = Some(table_of(servers, takes_part));
        }
        let own = self.table.as_ref()?.lookup(hash, |id| candidates.contains(&id));
        // More servers than slots: some are in no slot, and one of those is better than none.
        own.or(Some(first))
    }
}

fn table_of<C>(servers: &[Server<C>], takes_part: impl Fn(&Server<C>) -> bool) -> Maglev {
    let members = servers.iter().enumerate().filter(|(_, server)| takes_part(server)).map(|(at, server)| Member {
        id: ServerId(at),
        key: server_key(&server.endpoint.address),
        weight: server.weight,
    });
    Maglev::new(
        members.collect(),
        table_size(servers.iter().filter(|server| !server.leaving).map(|server| server.weight)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::ServerAddress;
    use crate::upstream::health::{Bounds, Health};
    use crate::upstream::{Endpoint, Pool};

    fn servers(count: u16) -> Vec<Server<()>> {
        (0..count)
            .map(|at| Server {
                endpoint: Endpoint::new(&ServerAddress::Tcp(([127, 0, 0, 1], 9000 + at).into())),
                weight: 1,
                max_requests: None,
                backup: false,
                in_flight: 0,
                requests_total: 0,
                failures_total: 0,
                pool: Pool::new(1, Duration::from_secs(1)),
                health: Health::new(Bounds::default()),
                draining: false,
                leaving: false,
            })
            .collect()
    }

    #[test]
    fn the_hash_table_is_kept_until_a_server_or_a_weight_changes() {
        let mut servers = servers(4);
        let all: Vec<ServerId> = (0..4).map(ServerId).collect();
        let mut hashed = Hashed::default();
        let takes_part = |server: &Server<()>| !server.draining;
        let map = |servers: &[Server<()>], hashed: &mut Hashed| -> Vec<ServerId> {
            (0..100).filter_map(|hash| hashed.pick(servers, takes_part, &all, hash)).collect()
        };
        let first = map(&servers, &mut hashed);

        // Another table in its place shows whether it is asked or made anew.
        let sign = ServerId(3);
        let planted = Maglev::new(vec![Member { id: sign, key: 1, weight: 1 }], table_size([1].into_iter()));
        hashed.table = Some(planted.clone());
        assert_eq!(map(&servers, &mut hashed), [sign; 100]);

        servers[1].weight = 2;
        assert_ne!(map(&servers, &mut hashed), [sign; 100]);
        servers[1].weight = 1;
        assert_eq!(map(&servers, &mut hashed), first);

        hashed.table = Some(planted.clone());
        servers[1].draining = true;
        assert!(!map(&servers, &mut hashed).contains(&ServerId(1)));
        servers[1].draining = false;
        assert_eq!(map(&servers, &mut hashed), first);

        hashed.table = Some(planted);
        assert_eq!(hashed.pick(&servers, |_| false, &[], 7), None);
        assert_eq!(map(&servers, &mut hashed), [sign; 100], "a moment without candidates makes no table");
    }
}
