//! Servers die under load, and no request that may be sent twice fails for it; none that may not is sent twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::{Client, Device, Mortal, ScriptedServer, Setup, attack, skip};
use tempfile::TempDir;

const CLIENTS: usize = 64;
/// From one death to the next.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a server is dead.
const DEAD: Duration = Duration::from_millis(150);

fn mortals(count: usize, delay: Duration) -> (TempDir, Vec<Mortal>) {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |_| Mortal::start(env!("CARGO_BIN_EXE_mortal"), directory.path(), delay);
    let servers = (0..count).map(start).collect();
    (directory, servers)
}

fn before(servers: &[Mortal]) -> Device {
    let addresses: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    Device::before(&addresses)
}

/// Kills one server after the other and starts each again, until `over`; how often.
fn kill_in_turn(servers: &mut [Mortal], over: &AtomicBool) -> usize {
    let mut kills = 0;
    let count = servers.len();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let server = &mut servers[kills % count];
        server.kill();
        kills += 1;
        thread::sleep(DEAD);
        server.revive();
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
    kills
}

/// What became of each request: its number and the status, or none where the connection ended.
type Ends = Vec<(usize, Option<u16>)>;

/// Asks `requests` times over [`CLIENTS`] connections, with `ask` for each number.
fn ask_all(device: &Device, requests: usize, ask: impl Fn(usize) -> Vec<u8> + Sync, method: &str) -> Ends {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut ends = Vec::new();
        let mut client: Option<Client> = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return ends;
            }
            let mut connection = client.take().unwrap_or_else(|| device.client());
            let sent = connection.wire().send(&ask(number));
            let response = sent.and_then(|()| connection.try_reply(method));
            let status = response.as_ref().ok().map(|response| response.status());
            if let Ok(response) = response
                && response.text() == format!("/{number}")
            {
                client = Some(connection);
            }
            ends.push((number, status));
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(run)).collect();
        all.into_iter().flat_map(|client| client.join().expect("a client's thread")).collect()
    })
}

/// Asks while servers die; the ends, and how many died.
fn ask_while_servers_die(
    device: &Device,
    servers: &mut [Mortal],
    requests: usize,
    ask: impl Fn(usize) -> Vec<u8> + Sync,
    method: &str,
) -> (Ends, usize) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| kill_in_turn(servers, &over));
        let ends = ask_all(device, requests, ask, method);
        over.store(true, Ordering::Relaxed);
        (ends, killer.join().expect("the killer's thread"))
    })
}

fn gets_while_three_servers_die_in_turn(test: &str, delay: Duration, requests: usize) {
    let (_directory, mut servers) = mortals(3, delay);
    let device = before(&servers);
    let get = |number| request("GET", &format!("/{number}"), "", b"");
    let (ends, kills) = ask_while_servers_die(&device, &mut servers, requests, get, "GET");
    let failed: Vec<_> = ends.iter().filter(|(_, status)| *status != Some(200)).collect();
    let retries: u64 = device.access_log().iter().filter_map(|entry| entry["retries"].as_u64()).sum();
    skip::measured(test, &format!("{} of {requests} failed, {kills} deaths, {retries} retries", failed.len()));
    assert!(kills > 1, "too short: no server died");
    assert!(failed.is_empty(), "{failed:?}\n{:?}", reasons(&device));
}

/// Why requests failed, as the access log has it.
fn reasons(device: &Device) -> HashMap<String, usize> {
    let mut reasons = HashMap::new();
    for entry in device.access_log() {
        if entry["status"] != 200 {
            *reasons.entry(format!("{} after {}", entry["reason"], entry["retries"])).or_default() += 1;
        }
    }
    reasons
}

#[test]
fn quick_gets_lose_none_to_servers_that_die_every_half_second() {
    let requests = attack::scale(3000, 20_000);
    gets_while_three_servers_die_in_turn("attack_server_death: 20 ms", Duration::from_millis(20), requests);
}

#[test]
fn slow_gets_lose_none_to_servers_that_die_every_half_second() {
    let requests = attack::scale(1500, 20_000);
    gets_while_three_servers_die_in_turn("attack_server_death: 100 ms", Duration::from_millis(100), requests);
}

#[test]
fn posts_fail_or_are_answered_and_none_is_sent_twice() {
    let requests = attack::scale(1000, 10_000);
    let (_directory, mut servers) = mortals(3, Duration::from_millis(50));
    let device = before(&servers);
    let post = |number| request("POST", &format!("/{number}"), "", b"order");
    let (ends, kills) = ask_while_servers_die(&device, &mut servers, requests, post, "POST");
    let mut got: HashMap<String, usize> = HashMap::new();
    servers.iter().flat_map(Mortal::requests).for_each(|line| *got.entry(line).or_default() += 1);
    let twice: Vec<_> = got.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");
    assert_eq!(ends.len(), requests);
    for (number, status) in &ends {
        let times = got.get(&format!("POST /{number}")).copied().unwrap_or(0);
        match status {
            Some(200) => assert_eq!(times, 1, "number {number}"),
            status => assert!(matches!(status, Some(502)), "number {number}: {status:?}"),
        }
    }
    let failed = ends.iter().filter(|(_, status)| *status != Some(200)).count();
    skip::measured("attack_server_death: POST", &format!("{failed} of {requests} failed, {kills} deaths"));
}

/// Sends a request of each client, and returns once the servers have them all.
fn all_wait(clients: &mut [Client], got: impl Fn() -> usize) {
    let aim = got() + clients.len();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/wait/{number}"), "", b""));
    }
    until_true("the servers have the requests", PATIENCE, || got() >= aim);
}

#[test]
fn a_hundred_gets_that_wait_at_two_servers_survive_the_death_of_one() {
    for reused in [false, true] {
        let (_directory, mut servers) = mortals(2, Duration::from_secs(1));
        let device = before(&servers);
        let mut clients: Vec<Client> = (0..100).map(|_| device.client()).collect();
        let got = |servers: &[Mortal]| servers.iter().map(|server| server.requests().len()).sum();
        for _ in 0..=usize::from(reused) {
            // The second round finds idle connections.
            all_wait(&mut clients, || got(&servers));
            if reused && device.figure("/server_connections/reused_total") == 0 {
                clients.iter_mut().for_each(|client| assert_eq!(client.reply().status(), 200));
            }
        }
        servers[0].kill();
        let failed =
            clients.iter_mut().filter_map(|client| Some(client.reply().status()).filter(|&status| status != 200));
        let failed: Vec<u16> = failed.collect();
        assert!(failed.is_empty(), "reused: {reused}: {failed:?}\n{:?}", reasons(&device));
    }
}

#[test]
fn those_who_wait_in_a_full_queue_and_those_who_lose_their_server_are_all_answered() {
    let (_directory, mut servers) = mortals(2, Duration::from_millis(400));
    let mut setup = Setup::before::<&str>(&[]).upstream("queue_limit = 12");
    for server in &servers {
        setup = setup.server(&format!("address = \"{}\", max_requests = 4", server.address()));
    }
    let device = setup.start();
    let mut clients: Vec<Client> = (0..20).map(|_| device.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/{number}"), "", b""));
    }
    until_true("the queue is full", PATIENCE, || {
        servers.iter().map(|server| server.requests().len()).sum::<usize>() == 8 && device.figure("/jobs/queued") == 12
    });
    servers[1].kill();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().status(), 200, "number {number}\n{:?}", reasons(&device));
    }
}

/// A server of which each process dies of `/kill`, over any connection.
fn dies_of_kill() -> ScriptedServer {
    ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/kill" {
                return side.reset();
            }
            if !side.send(cmim_tests::origin::faulty::with_length(b"ok")) {
                return;
            }
        }
    })
}

#[test]
fn a_get_that_kills_servers_reaches_one_and_as_many_as_there_are_retries() {
    for retries in 0..3 {
        for reused in [false, true] {
            let servers: Vec<ScriptedServer> = (0..5).map(|_| dies_of_kill()).collect();
            let addresses: Vec<&str> = servers.iter().map(ScriptedServer::address).collect();
            let device = Setup::before(&addresses).upstream(&format!("retries = {retries}")).start();
            let mut client = device.client();
            for _ in 0..if reused { 10 } else { 0 } {
                client.get("/").assert_whole(b"ok");
            }
            assert_eq!(client.get("/kill").status(), 502);
            let killed = |server: &&ScriptedServer| server.requests().iter().any(|request| request.target == "/kill");
            let dead = servers.iter().filter(killed).count();
            assert_eq!(dead, 1 + retries, "reused: {reused}");
        }
    }
}
