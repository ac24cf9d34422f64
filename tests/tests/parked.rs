//! Client connections that have been idle for a while are parked (docs/configuration.md, below `[buffer]`), and nobody
//! notices: what was true of them before is true afterwards.

use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, Device, ScriptedServer, Setup};

/// Answers each request with its target and the client that the device names.
fn echo() -> ScriptedServer {
    ScriptedServer::start(replies(|request| {
        let client = request.fields.joined("x-forwarded-for");
        with_length(format!("{} for {client}", request.target).as_bytes())
    }))
}

fn wait_until_parked(device: &Device, count: usize) {
    let parked = || {
        let connections = device.json(&["connections"]);
        let all = connections.as_array().expect("a list");
        all.iter().filter(|connection| connection["state"] == "parked").count()
    };
    until_true("connections are parked", PATIENCE, || parked() == count);
}

#[test]
fn a_parked_connection_goes_on_where_it_was() {
    let server = echo();
    let device = Setup::before(&[server.address()]).start();
    let mut clients: Vec<Client> = (0..3).map(|_| device.client()).collect();
    for client in &mut clients {
        client.get("/1").assert_whole(b"/1 for 127.0.0.1");
    }
    // One that never asked for anything is parked as well.
    let mut silent = device.client();
    wait_until_parked(&device, 4);
    let [plain, stacked, slow] = &mut clients[..] else { panic!("three") };
    plain.get("/2").assert_whole(b"/2 for 127.0.0.1");
    let both = [request("GET", "/2", "", b""), request("GET", "/3", "", b"")].concat();
    stacked.send(both);
    stacked.reply().assert_whole(b"/2 for 127.0.0.1");
    stacked.reply().assert_whole(b"/3 for 127.0.0.1");
    let whole = request("GET", "/2", "", b"");
    let (first, second) = whole.split_at(1);
    slow.send(first);
    until_true("a head has begun", PATIENCE, || device.json(&["connections"]).to_string().contains("reading"));
    slow.send(second);
    slow.reply().assert_whole(b"/2 for 127.0.0.1");
    silent.get("/1").assert_whole(b"/1 for 127.0.0.1");
    let connections = device.json(&["connections"]);
    let all = connections.as_array().expect("a list");
    // Each worker numbers what it accepts; the clients are known by their addresses.
    let requests = [&mut *plain, stacked, slow, &mut silent].map(|client| {
        let own = client.wire().socket().local_addr().expect("connected").as_socket().expect("of IP").to_string();
        all.iter().find(|one| one["address"] == own).and_then(|one| one["requests"].as_u64())
    });
    assert_eq!(requests, [Some(2), Some(3), Some(2), Some(1)], "what was counted before counts: {connections}");
    assert_eq!(device.figure("/client_connections/open"), 4);
    assert_eq!(device.figure("/client_connections/accepted_total"), 4);
    // Again, as often as one likes.
    wait_until_parked(&device, 4);
    plain.get("/4").assert_whole(b"/4 for 127.0.0.1");
}

#[test]
fn a_parked_connection_ends_when_its_client_or_its_time_does() {
    let server = echo();
    let device = Setup::before(&[server.address()]).timeouts("client_idle = \"8s\"").start();
    let (mut stays, mut leaves) = (device.client(), device.client());
    stays.get("/1");
    leaves.get("/1");
    let asked = Instant::now();
    wait_until_parked(&device, 2);
    drop(leaves);
    until_true("the one that left is gone", PATIENCE, || device.figure("/client_connections/open") == 1);
    stays.assert_ended();
    let idle = asked.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(11)).contains(&idle), "closed after {idle:?}");
    until_true("both are gone", PATIENCE, || device.figure("/client_connections/open") == 0);
}

#[test]
fn a_parked_client_is_the_one_that_its_proxy_header_named() {
    let server = echo();
    let device = Setup::before(&[server.address()]).listener("accept_proxy_protocol = true").start();
    let mut client = device.client();
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\r\n");
    client.get("/1").assert_whole(b"/1 for 192.0.2.7");
    wait_until_parked(&device, 1);
    client.get("/2").assert_whole(b"/2 for 192.0.2.7");
}

#[test]
fn parked_connections_follow_a_reload_and_a_shutdown() {
    let (first, second) = (echo(), ScriptedServer::start(replies(|_| with_length(b"the second"))));
    let other = Reserved::v4();
    let mut device =
        Setup::before(&[first.address()]).listen_on([127, 0, 0, 1].into()).listen_at(other.address()).start();
    let (mut stays, mut goes) = (device.client(), Client::connect(other.address()));
    stays.get("/1");
    goes.get("/1");
    wait_until_parked(&device, 2);
    let gone = format!(", \"{}\"", other.address());
    device.edit(|text| text.replace(&gone, "").replace(first.address(), second.address()));
    device.reload();
    goes.assert_ended();
    stays.get("/2").assert_whole(b"the second");
    wait_until_parked(&device, 1);
    let asked = Instant::now();
    assert!(device.stop().success());
    stays.assert_ended();
    assert!(asked.elapsed() < Duration::from_secs(5), "nothing was under way: {:?}", asked.elapsed());
}
