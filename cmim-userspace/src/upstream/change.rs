//! An upstream whose configuration changes while requests are in it.
//!
//! Servers are known by their address: one that stays keeps its counters, its health and its pool; one that leaves takes
//! no new requests, and its place is free once its last one has ended.

use std::time::Duration;

use super::balance::Chooser;
use super::health::{Bounds, Health};
use super::pool::{Idle, Pool};
use super::server::{Endpoint, Server};
use super::set::{Settings, Upstream};
use crate::config::model;

impl<C, W> Upstream<C, W> {
    /// Takes another configuration over. What comes back are idle connections that have to be closed.
    pub fn reconfigure(&mut self, settings: &Settings<'_>) -> Vec<Idle<C>> {
        let wanted = settings.upstream;
        if self.chooser.rule() != wanted.balance {
            self.chooser = Chooser::new(wanted.balance, settings.seed);
        }
        self.chooser.forget_places();
        self.queue.set_limit(wanted.queue_limit);
        let mut closed = Vec::new();
        for server in self.servers.iter_mut().filter(|server| !server.is_gone()) {
            match wanted.servers.iter().find(|model| model.address == server.endpoint.address) {
                Some(model) => closed.extend(server.take_over(model, settings)),
                None => closed.extend(server.leave()),
            }
        }
        for model in &wanted.servers {
            if !self.servers.iter().any(|server| !server.leaving && server.endpoint.address == model.address) {
                self.join(newcomer(model, settings));
            }
        }
        while self.servers.last().is_some_and(Server::is_gone) {
            self.servers.pop();
        }
        closed
    }

    /// The configuration has the whole upstream no more. Its requests are served to their end, and nothing is pooled any
    /// longer. What comes back are its idle connections.
    pub fn retire(&mut self) -> Vec<Idle<C>> {
        self.servers.iter_mut().flat_map(|server| server.pool.set_bounds(0, Duration::ZERO)).collect()
    }

    /// Takes the server of this name out of the balance, or puts it back. Its present requests go on; what comes back
    /// are its idle connections, to be closed. `None`: there is no such server.
    pub fn set_draining(&mut self, name: &str, draining: bool) -> Option<Vec<Idle<C>>> {
        let named = |server: &&mut Server<C>| !server.leaving && *server.endpoint.name == *name;
        let server = self.servers.iter_mut().find(named)?;
        server.draining = draining;
        Some(if draining { server.pool.drain() } else { Vec::new() })
    }

    fn join(&mut self, server: Server<C>) {
        match self.servers.iter_mut().find(|place| place.is_gone()) {
            Some(place) => *place = server,
            None => self.servers.push(server),
        }
    }
}

impl<C> Server<C> {
    fn take_over(&mut self, model: &model::Server, settings: &Settings<'_>) -> Vec<Idle<C>> {
        (self.weight, self.max_requests, self.backup) = (model.weight, model.max_requests, model.backup);
        self.health.set_bounds(bounds(settings.upstream));
        if self.leaving {
            // It was on its way out, not drained by the operator.
            (self.leaving, self.draining) = (false, false);
        }
        self.pool.set_bounds(settings.upstream.max_idle, settings.server_keep_alive)
    }

    fn leave(&mut self) -> Vec<Idle<C>> {
        (self.leaving, self.draining) = (true, true);
        self.pool.drain()
    }
}

/// A server that nothing is known of yet.
pub(super) fn newcomer<C>(model: &model::Server, settings: &Settings<'_>) -> Server<C> {
    Server {
        endpoint: Endpoint::new(&model.address),
        weight: model.weight,
        max_requests: model.max_requests,
        backup: model.backup,
        in_flight: 0,
        requests_total: 0,
        failures_total: 0,
        pool: Pool::new(settings.upstream.max_idle, settings.server_keep_alive),
        health: Health::new(bounds(settings.upstream)),
        draining: false,
        leaving: false,
    }
}

fn bounds(upstream: &model::Upstream) -> Bounds {
    let of = |health: &model::Health| Bounds { fall: health.fall, rise: health.rise, checked: true };
    upstream.health.as_ref().map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::set::tests::{ask, granted, model, settings, upstream};
    use super::*;
    use crate::config::model::Balance;
    use crate::upstream::{Ending, Role, ServerId};

    const THREE: [(u32, Option<usize>, bool); 3] = [(1, None, false); 3];

    fn names(upstream: &Upstream<u32, u32>) -> Vec<String> {
        let present = upstream.servers().iter().filter(|server| !server.is_gone());
        present.map(|server| format!("{} {}", server.endpoint.name, server.state_name())).collect()
    }

    fn idle(connection: u32, since: Instant) -> Idle<u32> {
        Idle { connection, worker: 0, since }
    }

    #[test]
    fn a_server_that_stays_keeps_its_counts_and_its_pool() {
        let now = Instant::now();
        let mut upstream = upstream(&THREE, Balance::RoundRobin);
        let first = granted(&mut upstream, &ask(1), now);
        upstream.release(first, Role::Usual, Ending::Reusable(idle(7, now)), now);
        let mut changed = model(&THREE, Balance::LeastRequests);
        changed.servers.remove(2);
        changed.servers[0].weight = 5;
        assert!(upstream.reconfigure(&settings(&changed)).is_empty());
        let server = upstream.server(first);
        assert_eq!((server.weight, server.requests_total, server.pool.len()), (5, 1, 1));
        assert_eq!(upstream.servers().len(), 2);
    }

    #[test]
    fn a_server_that_leaves_finishes_its_requests_and_then_gives_its_place_away() {
        let now = Instant::now();
        let mut upstream = upstream(&THREE, Balance::RoundRobin);
        let places: Vec<ServerId> = (0..3).map(|_| granted(&mut upstream, &ask(1), now)).collect();
        let all = model(&THREE, Balance::RoundRobin);
        let mut without = all.clone();
        without.servers.remove(1);
        upstream.reconfigure(&settings(&without));
        assert_eq!(names(&upstream), ["127.0.0.1:9000 up", "127.0.0.1:9001 draining", "127.0.0.1:9002 up"]);
        for _ in 0..10 {
            assert_ne!(granted(&mut upstream, &ask(2), now), places[1]);
        }
        // A newcomer does not get a place whose last request may still be released.
        let mut other = without.clone();
        other.servers.push(model::Server {
            address: model::ServerAddress::Tcp(([127, 0, 0, 1], 9003).into()),
            ..all.servers[0].clone()
        });
        upstream.reconfigure(&settings(&other));
        assert_eq!(upstream.servers().len(), 4);
        assert_eq!(
            upstream.release(places[1], Role::Usual, Ending::Reusable(idle(9, now)), now).map(|idle| idle.connection),
            Some(9)
        );
        assert_eq!(names(&upstream), ["127.0.0.1:9000 up", "127.0.0.1:9002 up", "127.0.0.1:9003 up"]);
        upstream.reconfigure(&settings(&all));
        assert_eq!(upstream.server(places[1]).endpoint.name.as_ref(), "127.0.0.1:9001", "the free place is taken");
        assert_eq!(upstream.servers().len(), 3, "and the last one, free by now, is gone");
    }

    #[test]
    fn a_server_that_comes_back_before_it_was_gone_is_the_same() {
        let now = Instant::now();
        let mut upstream = upstream(&THREE, Balance::RoundRobin);
        let first = granted(&mut upstream, &ask(1), now);
        let all = model(&THREE, Balance::RoundRobin);
        let mut without = all.clone();
        without.servers.remove(0);
        upstream.reconfigure(&settings(&without));
        upstream.reconfigure(&settings(&all));
        let server = upstream.server(first);
        assert_eq!((server.state_name(), server.in_flight, server.requests_total), ("up", 1, 1));
    }

    #[test]
    fn the_operators_drain_outlives_a_reload() {
        let mut upstream = upstream(&THREE, Balance::RoundRobin);
        assert!(upstream.set_draining("127.0.0.1:9001", true).is_some());
        assert!(upstream.set_draining("127.0.0.1:9009", true).is_none());
        upstream.reconfigure(&settings(&model(&THREE, Balance::RoundRobin)));
        assert_eq!(names(&upstream)[1], "127.0.0.1:9001 draining");
    }

    #[test]
    fn hashes_of_servers_that_stay_stay_with_them() {
        let now = Instant::now();
        let mut upstream = upstream(&THREE, Balance::Hash);
        let place = |upstream: &mut Upstream<u32, u32>, client| {
            let id = granted(upstream, &ask(client), now);
            upstream.release(id, Role::Usual, Ending::Answered, now);
            Arc::clone(&upstream.server(id).endpoint)
        };
        let before: Vec<_> = (0..300).map(|client| place(&mut upstream, client)).collect();
        let all = model(&THREE, Balance::Hash);
        let mut without = all.clone();
        let gone = without.servers.remove(0).address;
        upstream.reconfigure(&settings(&without));
        let during: Vec<_> = (0..300).map(|client| place(&mut upstream, client)).collect();
        assert!(during.iter().all(|endpoint| endpoint.address != gone));
        let moved = before.iter().zip(&during).filter(|(before, during)| before.address != gone && before != during);
        assert!(moved.count() <= 300 / 25, "a leaving server moves little more than its share");
        upstream.reconfigure(&settings(&all));
        let after: Vec<_> = (0..300).map(|client| place(&mut upstream, client)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn an_upstream_that_retires_serves_and_pools_nothing() {
        let now = Instant::now();
        let mut upstream = upstream(&THREE, Balance::RoundRobin);
        let (first, second) = (granted(&mut upstream, &ask(1), now), granted(&mut upstream, &ask(1), now));
        upstream.release(first, Role::Usual, Ending::Reusable(idle(1, now)), now);
        assert_eq!(upstream.retire().len(), 1);
        assert!(upstream.release(second, Role::Usual, Ending::Reusable(idle(2, now)), now).is_some());
        granted(&mut upstream, &ask(1), now);
    }
}
