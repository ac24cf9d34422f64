//! docs/configuration.md and 6: which server gets which request of a stack, and how shares follow weights and health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::with_length;
use cmim_tests::origin::obedient::{assert_pages, gets};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, Crew, Device, ScriptedServer, ServerSide, Setup, skip};

/// The servers that the stack of this name went to, one entry a request.
fn servers_of(crew: &Crew, name: &str) -> Vec<usize> {
    let prefix = format!("/{name}/");
    crew.visits().into_iter().filter(|visit| visit.target.starts_with(&prefix)).map(|visit| visit.server).collect()
}

fn send_stack(client: &mut Client, name: &str, count: usize, words: &str, fields: &str) {
    let targets: Vec<String> = (0..count).map(|number| format!("/{name}/{number}?{words}")).collect();
    let stack: Vec<u8> = targets.iter().flat_map(|target| request("GET", target, fields, b"")).collect();
    client.send(stack);
    assert_pages(client, &targets);
}

#[test]
fn a_stack_spreads_over_all_servers_evenly() {
    for balance in ["least-requests", "round-robin"] {
        let crew = Crew::of(4);
        let device = crew.setup("").upstream(&format!("balance = \"{balance}\"")).start();
        for (round, count) in [4, 8, 16].into_iter().enumerate() {
            let name = format!("{round}");
            send_stack(&mut device.client(), &name, count, "wait=40", "");
            let mut share = BTreeMap::new();
            servers_of(&crew, &name).into_iter().for_each(|server| *share.entry(server).or_insert(0) += 1);
            assert_eq!(share, (0..4).map(|server| (server, count / 4)).collect(), "{balance}, {count} stacked");
        }
    }
}

#[test]
fn a_stack_prefers_servers_that_do_not_work_for_it_already() {
    let crew = Crew::of(3);
    let device = crew.setup("").start();
    // Two of the servers are busy with other clients' requests.
    let mut others: Vec<Client> = (0..2).map(|_| device.client()).collect();
    for (number, other) in others.iter_mut().enumerate() {
        other.send(gets(&[format!("/other/{number}?hold")]));
    }
    crew.wait_for_visits(2);
    let mut client = device.client();
    client.send(gets(&["/own/0?hold", "/own/1?hold", "/own/2?hold"]));
    crew.wait_for_visits(5);
    let servers: BTreeSet<usize> = servers_of(&crew, "own").into_iter().collect();
    assert_eq!(servers.len(), 3, "by load alone the free one would have taken two: {servers:?}");
    crew.release();
    assert_pages(&mut client, &["/own/0?hold", "/own/1?hold", "/own/2?hold"]);
}

#[test]
fn random_two_spreads_a_stack_too() {
    let crew = Crew::of(4);
    let device = crew.setup("").upstream("balance = \"random-two\"").start();
    for round in 0..10 {
        send_stack(&mut device.client(), &format!("{round}"), 16, "wait=5", "");
    }
    let visits = crew.visits();
    for server in 0..4 {
        let share = visits.iter().filter(|visit| visit.server == server).count();
        assert!((24..=56).contains(&share), "server {server} had {share} of {}", visits.len());
    }
}

#[test]
fn a_hash_keeps_a_stack_of_equals_on_one_server() {
    for (hash_on, fields) in [
        ("client-address", String::new()),
        ("header:X-User", "X-User: someone\r\n".to_owned()),
        ("cookie:user", "Cookie: a=b; user=someone; c=d\r\n".to_owned()),
    ] {
        let crew = Crew::of(4);
        let device = crew.setup("").upstream(&format!("balance = \"hash\"\nhash_on = \"{hash_on}\"")).start();
        for round in 0..3 {
            send_stack(&mut device.client(), &format!("{round}"), 8, "wait=10", &fields);
        }
        let servers: BTreeSet<usize> = crew.visits().into_iter().map(|visit| visit.server).collect();
        assert_eq!(servers.len(), 1, "{hash_on}");
    }
}

/// Where each of these users goes, one after the other.
fn homes(device: &Device, users: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut client = device.client();
    users.into_iter().map(|user| client.ask("GET", "/", &format!("X-User: {user}\r\n"), b"").text()).collect()
}

#[test]
fn a_hash_moves_only_those_whose_server_is_gone() {
    const USERS: usize = 400;
    let ports: Vec<Reserved> = (0..4).map(|_| Reserved::v4()).collect();
    let start = |number: usize| ScriptedServer::at(ports[number].address(), named(number));
    let mut servers: Vec<ScriptedServer> = (0..4).map(start).collect();
    let addresses: Vec<String> = ports.iter().map(|port| port.address().to_string()).collect();
    let device = Setup::before(&addresses).upstream("balance = \"hash\"\nhash_on = \"header:X-User\"").start();
    let before = homes(&device, 0..USERS);
    for number in 0..4 {
        let share = before.iter().filter(|home| **home == number.to_string()).count();
        assert!((60..=140).contains(&share), "server {number} has {share} of {USERS} users");
    }
    let orphan = before.iter().position(|home| home == "3").expect("a user of the last server");
    drop(servers.remove(3));
    until_true("it is out", PATIENCE, || {
        homes(&device, [orphan]);
        device.json(&["servers"])[3]["state"] != "up"
    });
    let after = homes(&device, 0..USERS);
    let moved = before.iter().zip(&after).filter(|(old, new)| *old != "3" && old != new).count();
    let (lost, orphans) =
        (after.iter().filter(|home| *home == "3").count(), before.iter().filter(|h| *h == "3").count());
    skip::measured(
        "hash over 4 servers, one gone",
        &format!("{orphans} orphans, {moved} of {} others moved", USERS - orphans),
    );
    assert_eq!(lost, 0);
    // Maglev's disruption is small and not nothing: a share of a few percent.
    assert!(moved * 100 <= (USERS - orphans) * 5, "{moved} moved who had no reason to");
    servers.push(start(3));
    until_true("it is back", Duration::from_secs(20), || {
        homes(&device, [orphan]);
        device.json(&["servers"])[3]["state"] == "up"
    });
    assert_eq!(homes(&device, 0..USERS), before, "after the return everybody is at home again");
}

/// A server that answers with its number.
fn named(number: usize) -> impl Fn(&mut ServerSide) + Send + Sync + 'static {
    move |side| while side.request().is_some() && side.send(with_length(number.to_string().as_bytes())) {}
}

/// Clients that ask on, each one request at a time, until it is over.
fn load(device: &Device, over: &AtomicBool, clients: usize, target: &str) {
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = device.client();
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.get(target).status(), 200);
                }
            });
        }
    });
}

#[test]
fn shares_follow_weights_under_load() {
    for balance in ["least-requests", "random-two", "round-robin"] {
        let crew = Crew::of(2);
        let addresses = crew.addresses();
        let device = Setup::before::<&str>(&[])
            .server(&format!("address = \"{}\", weight = 3", addresses[0]))
            .server(&format!("address = \"{}\"", addresses[1]))
            .upstream(&format!("balance = \"{balance}\""))
            .start();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| load(&device, &over, 16, "/?wait=10"));
            until_true("enough requests", PATIENCE, || crew.visits().len() > 400);
            over.store(true, Ordering::Relaxed);
        });
        let visits = crew.visits();
        let heavy = visits.iter().filter(|visit| visit.server == 0).count();
        let share = heavy * 100 / visits.len();
        skip::measured(&format!("weights 3 and 1, {balance}"), &format!("{share} % of {}", visits.len()));
        assert!((68..=82).contains(&share), "{balance}: {share} % of {}", visits.len());
    }
}

/// A server that was out and is back: its share of the requests in the first second, and in the fifth.
fn shares_after_return(balance: &str) -> (usize, usize) {
    let port = Reserved::v4();
    let steady = ScriptedServer::start(paced);
    let device = Setup::before(&[steady.address().to_owned(), port.address().to_string()])
        .upstream(&format!("balance = \"{balance}\""))
        .start();
    let mut client = device.client();
    until_true("the dead one is out", PATIENCE, || {
        assert_eq!(client.get("/").status(), 200);
        device.json(&["servers"])[1]["state"] == "down"
    });
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| load(&device, &over, 24, "/"));
        let returned = ScriptedServer::at(port.address(), paced);
        let back = until("it is back", Duration::from_secs(10), || {
            (device.json(&["servers"])[1]["state"] == "up").then(Instant::now)
        });
        let counts = || (returned.request_count(), steady.request_count());
        let share_over = |from: u64, to: u64| {
            thread::sleep((back + Duration::from_millis(from)).saturating_duration_since(Instant::now()));
            let (own, all) = counts();
            thread::sleep((back + Duration::from_millis(to)).saturating_duration_since(Instant::now()));
            let (own_then, all_then) = counts();
            (own_then - own) * 100 / (own_then - own + all_then - all).max(1)
        };
        let shares = (share_over(0, 1000), share_over(4000, 5000));
        over.store(true, Ordering::Relaxed);
        shares
    })
}

/// Answers after 20 ms.
fn paced(side: &mut ServerSide) {
    while side.request().is_some() {
        thread::sleep(Duration::from_millis(20));
        if !side.send(with_length(b"ok")) {
            return;
        }
    }
}

#[test]
fn a_server_that_is_back_takes_up_its_share_slowly() {
    thread::scope(|scope| {
        let runs = ["least-requests", "random-two", "round-robin"]
            .map(|balance| (balance, scope.spawn(move || shares_after_return(balance))));
        let shares = runs.map(|(balance, run)| (balance, run.join().expect("a run")));
        for (balance, (first, fifth)) in shares {
            skip::measured(
                &format!("slow start, {balance}"),
                &format!("{first} % in the first second, {fifth} % in the fifth"),
            );
        }
        for (balance, (first, fifth)) in shares {
            assert!(first <= 25, "{balance}: {first} % in the first second");
            assert!(fifth > first && (20..=45).contains(&fifth), "{balance}: {fifth} % in the fifth second");
        }
    });
}
