use std::time::{Duration, Instant};

use super::*;
use crate::config::model::{
    Balance, HashOn, LengthRewrite, RequestBuffering, SendProxyProtocol, Server as ServerModel, ServerAddress,
};

type TestUpstream = Upstream<u32, u32>;

pub(in crate::upstream) fn model(servers: &[(u32, Option<usize>, bool)], balance: Balance) -> model::Upstream {
    model::Upstream {
        name: "app".into(),
        balance,
        hash_on: HashOn::ClientAddress,
        length_rewrite: LengthRewrite::Auto,
        hold_time: Duration::from_secs(2),
        hold_size: 1 << 20,
        request_buffering: RequestBuffering::Auto,
        max_idle: 64,
        server_pipeline: 1,
        retries: 2,
        queue_limit: 4,
        queue_timeout: Duration::from_secs(30),
        servers: servers
            .iter()
            .enumerate()
            .map(|(at, &(weight, max_requests, backup))| ServerModel {
                address: ServerAddress::Tcp(([127, 0, 0, 1], 9000 + at as u16).into()),
                weight,
                max_requests,
                backup,
            })
            .collect(),
        health: None,
        send_proxy_protocol: SendProxyProtocol::Off,
    }
}

pub(in crate::upstream) fn settings(model: &model::Upstream) -> Settings<'_> {
    Settings { upstream: model, server_keep_alive: Duration::from_secs(60), seed: 7 }
}

pub(in crate::upstream) fn upstream(servers: &[(u32, Option<usize>, bool)], balance: Balance) -> TestUpstream {
    Upstream::new(&settings(&model(servers, balance)))
}

pub(in crate::upstream) fn ask(client: u64) -> Ask<'static> {
    Ask { client, worker: 0, hash: client, again: false, preferred: None, tried: &[], working: &[], fresh: false }
}

pub(in crate::upstream) fn granted(upstream: &mut TestUpstream, ask: &Ask<'_>, now: Instant) -> ServerId {
    match upstream.acquire(ask, now, || 0) {
        Acquired::Granted(grant) => grant.server,
        other => panic!("{other:?}"),
    }
}

fn fail(upstream: &mut TestUpstream, times: u32, now: Instant) {
    for _ in 0..times {
        let id = granted(upstream, &ask(1), now);
        upstream.release(id, Role::Usual, Ending::Failed, now);
    }
}

#[test]
fn least_requests_spreads_evenly_and_by_weight() {
    let now = Instant::now();
    let mut even = upstream(&[(1, None, false), (1, None, false), (1, None, false)], Balance::LeastRequests);
    for client in 0..9 {
        granted(&mut even, &ask(client), now);
    }
    assert!(even.servers().iter().all(|server| server.in_flight == 3));

    let mut weighted = upstream(&[(3, None, false), (1, None, false)], Balance::LeastRequests);
    for client in 0..8 {
        granted(&mut weighted, &ask(client), now);
    }
    assert_eq!(weighted.servers().iter().map(|server| server.in_flight).collect::<Vec<_>>(), [6, 2]);
}

#[test]
fn round_robin_gives_each_its_weight_in_turn() {
    let now = Instant::now();
    let mut upstream = upstream(&[(2, None, false), (1, None, false)], Balance::RoundRobin);
    let order: Vec<usize> = (0..6).map(|client| granted(&mut upstream, &ask(client), now).0).collect();
    assert_eq!(order, [0, 1, 0, 0, 1, 0]);
}

#[test]
fn a_stack_spreads_over_servers_that_do_not_work_for_it_yet() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 4], Balance::LeastRequests);
    // Server 3 is busy with others, and still it is preferred over those that work for this stack.
    upstream.servers[3].in_flight = 5;
    let working = [ServerId(0), ServerId(1), ServerId(2)];
    let ask = Ask { working: &working, ..ask(1) };
    assert_eq!(granted(&mut upstream, &ask, now), ServerId(3));
}

#[test]
fn hash_moves_only_the_share_of_a_server_that_left() {
    const ASKED: usize = 1000;
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 5], Balance::Hash);
    let map = |upstream: &mut TestUpstream| -> Vec<ServerId> {
        (0..ASKED as u64).map(|client| granted(upstream, &ask(client), now)).collect()
    };
    let before = map(&mut upstream);
    assert!(upstream.servers().iter().all(|server| (120..280).contains(&server.in_flight)));
    upstream.servers[2].draining = true;
    let after = map(&mut upstream);
    assert!(!after.contains(&ServerId(2)));
    let moved = before.iter().zip(&after).filter(|(before, after)| **before != ServerId(2) && before != after).count();
    assert!(moved <= ASKED * 4 / 100, "a Maglev table of this size moves up to 4 % more than it has to: {moved}");
    upstream.servers[2].draining = false;
    assert_eq!(map(&mut upstream), before, "the same map once it is back");
}

#[test]
fn hash_goes_on_to_the_same_next_server_while_its_own_is_full_or_tried() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, Some(2), false); 5], Balance::Hash);
    let grants = |upstream: &mut TestUpstream, tried: &[ServerId]| {
        let id = granted(upstream, &Ask { tried, ..ask(77) }, now);
        upstream.release(id, Role::Usual, Ending::Answered, now);
        id
    };
    let own = grants(&mut upstream, &[]);
    let next = grants(&mut upstream, &[own]);
    assert_ne!(own, next);
    let third = grants(&mut upstream, &[own, next]);
    assert!(third != own && third != next);
    assert_eq!(grants(&mut upstream, &[]), own);

    upstream.servers[own.0].in_flight = 2;
    assert_eq!(grants(&mut upstream, &[]), next);
    upstream.servers[next.0].in_flight = 2;
    assert_eq!(grants(&mut upstream, &[]), third);
    upstream.servers[own.0].in_flight = 0;
    assert_eq!(grants(&mut upstream, &[]), own);
}

#[test]
fn a_server_at_its_limit_makes_requests_wait_and_a_release_lets_the_next_go() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, Some(2), false)], Balance::LeastRequests);
    granted(&mut upstream, &ask(1), now);
    granted(&mut upstream, &ask(1), now);
    for waiter in 0..4 {
        assert!(matches!(upstream.acquire(&ask(waiter), now, || waiter as u32), Acquired::Queued(_)));
    }
    assert!(matches!(upstream.acquire(&ask(9), now, || 9), Acquired::QueueFull));
    assert!(upstream.next_waiting(now).is_none());
    let idle = Idle { connection: 77, worker: 0, since: now };
    assert!(upstream.release(ServerId(0), Role::Usual, Ending::Reusable(idle), now).is_none());
    let (waiter, grant) = upstream.next_waiting(now).unwrap();
    assert_eq!((waiter, grant.server), (0, ServerId(0)));
    assert_eq!(grant.idle.unwrap().connection, 77);
    assert!(upstream.next_waiting(now).is_none());
    assert_eq!(upstream.servers()[0].in_flight, 2);
    assert_eq!(upstream.queued(), 3);
}

#[test]
fn backups_work_only_while_no_primary_is_up() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false), (1, None, true)], Balance::LeastRequests);
    assert_eq!(granted(&mut upstream, &ask(1), now), ServerId(0));
    fail(&mut upstream, 3, now);
    assert_eq!(granted(&mut upstream, &ask(1), now), ServerId(1));
    let later = now + Duration::from_secs(2);
    assert_eq!(granted(&mut upstream, &ask(1), later), ServerId(0), "the due probe");
    assert_eq!(granted(&mut upstream, &ask(1), later), ServerId(1), "one probe at a time");
    upstream.release(ServerId(0), Role::Probe, Ending::Answered, later);
    assert_eq!(granted(&mut upstream, &ask(1), later), ServerId(0));
}

#[test]
fn where_all_are_out_one_request_probes_and_the_others_wait_for_it() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false)], Balance::LeastRequests);
    fail(&mut upstream, 3, now);
    assert_eq!(granted(&mut upstream, &ask(1), now), ServerId(0));
    assert!(matches!(upstream.acquire(&ask(2), now, || 2), Acquired::Queued(_)));
    upstream.release(ServerId(0), Role::Probe, Ending::Answered, now);
    assert_eq!(upstream.next_waiting(now).map(|(waiter, _)| waiter), Some(2));
}

#[test]
fn a_probe_whose_reply_has_begun_lets_the_others_go() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false)], Balance::LeastRequests);
    fail(&mut upstream, 3, now);
    granted(&mut upstream, &ask(1), now);
    assert!(matches!(upstream.acquire(&ask(2), now, || 2), Acquired::Queued(_)));
    upstream.probe_heard(ServerId(0), now);
    assert_eq!(upstream.next_waiting(now).map(|(waiter, _)| waiter), Some(2));
    assert!(upstream.server(ServerId(0)).is_up());
}

#[test]
fn a_backup_that_is_out_gets_no_probe_while_a_primary_works() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false), (1, None, true)], Balance::LeastRequests);
    let tried = [ServerId(0)];
    for _ in 0..3 {
        let id = granted(&mut upstream, &Ask { tried: &tried, ..ask(1) }, now);
        assert_eq!(id, ServerId(1));
        upstream.release(id, Role::Usual, Ending::Failed, now);
    }
    let later = now + Duration::from_secs(60);
    assert_eq!(granted(&mut upstream, &ask(1), later), ServerId(0));
}

#[test]
fn a_retry_waits_a_second_for_a_server_that_is_only_busy_and_lets_others_pass() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false), (1, Some(1), false)], Balance::LeastRequests);
    upstream.servers[1].in_flight = 1;
    let tried = [ServerId(0)];
    assert!(matches!(upstream.acquire(&Ask { tried: &tried, ..ask(1) }, now, || 1), Acquired::Queued(_)));
    assert!(upstream.next_waiting(now).is_none());
    assert!(matches!(upstream.acquire(&ask(2), now, || 2), Acquired::Queued(_)));
    assert_eq!(upstream.next_waiting(now).map(|(waiter, grant)| (waiter, grant.server)), Some((2, ServerId(0))));
    assert!(upstream.next_waiting(now).is_none());
    let later = now + AVOID_FOR;
    assert_eq!(upstream.next_waiting(later).map(|(waiter, grant)| (waiter, grant.server)), Some((1, ServerId(0))));
}

#[test]
fn a_retry_goes_to_a_server_that_was_not_tried() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 3], Balance::LeastRequests);
    upstream.servers[2].in_flight = 50;
    let tried = [ServerId(0), ServerId(1)];
    let ask = Ask { tried: &tried, ..ask(1) };
    assert_eq!(granted(&mut upstream, &ask, now), ServerId(2));
}

#[test]
fn a_request_that_comes_back_keeps_off_servers_that_others_saw_fail() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 3], Balance::LeastRequests);
    let first = granted(&mut upstream, &ask(1), now);
    upstream.release(first, Role::Usual, Ending::Failed, now);
    let second = granted(&mut upstream, &ask(1), now);
    assert_ne!(second, first);
    upstream.release(second, Role::Usual, Ending::Failed, now);
    // Both count as up, and are idle.
    let third = ServerId(3 - first.0 - second.0);
    upstream.servers[third.0].in_flight = 50;
    let tried = [first];
    let back = Ask { again: true, tried: &tried, ..ask(2) };
    assert_eq!(granted(&mut upstream, &back, now), third);
    // A newcomer may find out.
    assert_ne!(granted(&mut upstream, &ask(3), now), third);
    let later = now + Duration::from_secs(2);
    assert_eq!(granted(&mut upstream, &back, later), second);
}

#[test]
fn a_request_that_comes_back_is_no_probe_while_another_server_is_up() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 3], Balance::LeastRequests);
    for _ in 0..9 {
        let id = granted(&mut upstream, &ask(1), now);
        upstream.release(id, Role::Usual, if id == ServerId(2) { Ending::Answered } else { Ending::Failed }, now);
    }
    let later = now + Duration::from_secs(60);
    assert_eq!(granted(&mut upstream, &Ask { again: true, ..ask(2) }, later), ServerId(2));
    assert_ne!(granted(&mut upstream, &ask(3), later), ServerId(2));
}

#[test]
fn a_request_comes_back_to_the_server_of_its_stale_connection_unless_that_was_seen_to_fail() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false); 2], Balance::LeastRequests);
    upstream.servers[0].in_flight = 50;
    let back = Ask { again: true, preferred: Some(ServerId(0)), ..ask(1) };
    assert_eq!(granted(&mut upstream, &back, now), ServerId(0));
    upstream.release(ServerId(0), Role::Usual, Ending::Failed, now);
    assert_eq!(granted(&mut upstream, &back, now), ServerId(1));
}

#[test]
fn a_request_that_comes_back_passes_a_full_queue() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, Some(1), false), (1, Some(1), false)], Balance::LeastRequests);
    let dead = granted(&mut upstream, &ask(1), now);
    let other = granted(&mut upstream, &ask(1), now);
    for waiter in 0..4 {
        assert!(matches!(upstream.acquire(&ask(2), now, || waiter), Acquired::Queued(_)));
    }
    assert!(matches!(upstream.acquire(&ask(3), now, || 9), Acquired::QueueFull));
    upstream.release(dead, Role::Usual, Ending::Failed, now);
    let tried = [dead];
    assert!(matches!(upstream.acquire(&Ask { again: true, tried: &tried, ..ask(4) }, now, || 7), Acquired::Queued(_)));
    upstream.release(other, Role::Usual, Ending::Answered, now);
    assert_eq!(upstream.next_waiting(now).map(|(waiter, grant)| (waiter, grant.server)), Some((7, other)));
    assert_eq!(upstream.next_waiting(now).map(|(waiter, grant)| (waiter, grant.server)), Some((0, dead)));
}

#[test]
fn a_waiter_that_is_cancelled_is_never_granted() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, Some(1), false)], Balance::LeastRequests);
    granted(&mut upstream, &ask(1), now);
    let Acquired::Queued(ticket) = upstream.acquire(&ask(2), now, || 2) else { panic!("not queued") };
    assert!(upstream.cancel(ticket));
    assert!(!upstream.cancel(ticket));
    upstream.release(ServerId(0), Role::Usual, Ending::Answered, now);
    assert!(upstream.next_waiting(now).is_none());
}

#[test]
fn a_request_whose_primaries_failed_goes_to_a_backup_although_they_count_as_up() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false), (1, None, true)], Balance::LeastRequests);
    let tried = [ServerId(0)];
    let ask = Ask { tried: &tried, ..ask(1) };
    assert_eq!(granted(&mut upstream, &ask, now), ServerId(1));
}

#[test]
fn a_drained_server_gets_nothing_new_gives_up_its_idle_connections_and_can_come_back() {
    let now = Instant::now();
    let mut upstream = upstream(&[(1, None, false), (1, None, false)], Balance::LeastRequests);
    let first = granted(&mut upstream, &ask(1), now);
    let idle = |connection| Idle { connection, worker: 0, since: now };
    assert!(upstream.release(first, Role::Usual, Ending::Reusable(idle(7)), now).is_none());
    let name = Arc::clone(&upstream.server(first).endpoint.name);
    assert_eq!(upstream.set_draining(&name, true).map(|idle| idle.len()), Some(1));
    for client in 0..4 {
        assert_ne!(granted(&mut upstream, &ask(client), now), first);
    }
    assert_eq!(upstream.server(first).state_name(), "draining");
    upstream.set_draining(&name, false);
    assert_eq!(granted(&mut upstream, &ask(9), now), first);
    upstream.set_draining(&name, true);
    assert!(upstream.release(first, Role::Usual, Ending::Reusable(idle(8)), now).is_some(), "closed, not kept");
}
