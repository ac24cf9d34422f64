//! Which server gets a request (docs/configuration.md: `balance`, `weight`, `backup`, routes).

use std::collections::BTreeSet;

use cmim_tests::client::request;
use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, ScriptedServer, Setup};

/// A server that answers with its name.
fn named(name: &'static str) -> ScriptedServer {
    ScriptedServer::start(replies(move |_| with_length(name.as_bytes())))
}

/// `count` replies on one connection.
fn asked(client: &mut Client, count: usize, fields: &str) -> Vec<String> {
    (0..count).map(|_| client.ask("GET", "/", fields, b"").text()).collect()
}

fn share(replies: &[String], name: &str) -> usize {
    replies.iter().filter(|reply| *reply == name).count()
}

#[test]
fn round_robin_takes_turns() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address(), b.address()]).upstream("balance = \"round-robin\"").start();
    let got = asked(&mut device.client(), 20, "");
    assert_eq!((share(&got, "a"), share(&got, "b")), (10, 10));
    assert!(got.windows(2).all(|pair| pair[0] != pair[1]), "{got:?}");
}

#[test]
fn round_robin_heeds_weights() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before::<&str>(&[])
        .server(&format!("address = \"{}\", weight = 3", a.address()))
        .server(&format!("address = \"{}\"", b.address()))
        .upstream("balance = \"round-robin\"")
        .start();
    let got = asked(&mut device.client(), 40, "");
    assert_eq!((share(&got, "a"), share(&got, "b")), (30, 10));
}

#[test]
fn least_requests_goes_where_less_is_in_flight() {
    let slow = ScriptedServer::start(|side| side.wait_closed());
    let fast = named("fast");
    let device = Setup::before(&[slow.address(), fast.address()]).upstream("balance = \"least-requests\"").start();
    // However many of the first land on the one that never answers, no second one does while the other is free.
    let mut clients: Vec<Client> = (0..10).map(|_| device.client()).collect();
    for client in &mut clients {
        client.send(request("GET", "/", "", b""));
        client.wire().brings_more(std::time::Duration::from_millis(100));
    }
    assert!(slow.opened() <= 2, "{} requests went where one was stuck", slow.opened());
}

#[test]
fn random_two_reaches_every_server() {
    let servers = [named("a"), named("b"), named("c")];
    let addresses = servers.each_ref().map(|server| server.address().to_owned());
    let device = Setup::before(&addresses).upstream("balance = \"random-two\"").start();
    let got: BTreeSet<String> = asked(&mut device.client(), 100, "").into_iter().collect();
    assert_eq!(got.len(), 3, "{got:?}");
}

#[test]
fn a_hash_sends_equals_to_the_same_server_and_others_elsewhere() {
    for (hash_on, fields) in [
        ("header:X-User", (|user| format!("X-User: {user}\r\n")) as fn(usize) -> String),
        ("cookie:user", |user| format!("Cookie: a=b; user={user}; c=d\r\n")),
    ] {
        let servers = [named("a"), named("b"), named("c")];
        let addresses = servers.each_ref().map(|server| server.address().to_owned());
        let device =
            Setup::before(&addresses).upstream(&format!("balance = \"hash\"\nhash_on = \"{hash_on}\"")).start();
        let mut seen = BTreeSet::new();
        for user in 0..30 {
            let got: BTreeSet<String> = asked(&mut device.client(), 3, &fields(user)).into_iter().collect();
            assert_eq!(got.len(), 1, "{hash_on}: user {user} went to {got:?}");
            seen.extend(got);
        }
        assert_eq!(seen.len(), 3, "{hash_on}");
    }
}

#[test]
fn a_hash_of_the_clients_address_keeps_a_client_on_one_server() {
    let (a, b) = (named("a"), named("b"));
    let device =
        Setup::before(&[a.address(), b.address()]).upstream("balance = \"hash\"\nhash_on = \"client-address\"").start();
    let got: BTreeSet<String> = (0..10).flat_map(|_| asked(&mut device.client(), 2, "")).collect();
    assert_eq!(got.len(), 1, "{got:?}");
}

#[test]
fn a_backup_serves_only_when_the_others_are_down() {
    let dead = Reserved::v4();
    let backup = named("backup");
    let main = ScriptedServer::at(dead.address(), replies(|_| with_length(b"main")));
    let device = Setup::before(&[dead.address().to_string()])
        .server(&format!("address = \"{}\", backup = true", backup.address()))
        .start();
    let mut client = device.client();
    assert_eq!(share(&asked(&mut client, 20, ""), "main"), 20);
    drop(main);
    let got = asked(&mut client, 20, "");
    assert_eq!(share(&got, "backup"), 20, "{got:?}");
}

#[test]
fn the_longest_host_then_the_longest_path_decides() {
    let (app, images, files) = (named("app"), named("images"), named("files"));
    let device = Setup::before(&[app.address()])
        .listener(
            "routes = [ { host = \"img.example.org\", path = \"/\", upstream = \"images\" },\n\
             { host = \"img.example.org\", path = \"/files/\", upstream = \"files\" },\n\
             { path = \"/static/\", upstream = \"files\" } ]",
        )
        .tables(&format!(
            "[[upstream]]\nname = \"images\"\nservers = [{{ address = \"{}\" }}]\n\
             [[upstream]]\nname = \"files\"\nservers = [{{ address = \"{}\" }}]",
            images.address(),
            files.address()
        ))
        .start();
    let mut client = device.client();
    for (host, target, expected) in [
        ("img.example.org", "/", "images"),
        ("IMG.example.org:8080", "/x", "images"),
        ("img.example.org", "/files/x", "files"),
        ("img.example.org", "/files", "images"),
        ("img.example.org", "/static/x", "images"),
        ("other.example.org", "/static/x?y", "files"),
        ("other.example.org", "/static", "app"),
        ("other.example.org", "/", "app"),
        ("example.org", "/img.example.org", "app"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.reply().text(), expected, "{host} {target}");
    }
}

#[test]
fn a_drained_server_gets_no_new_request_until_it_is_enabled() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address(), b.address()]).upstream("balance = \"round-robin\"").start();
    let mut client = device.client();
    let servers = device.json(&["servers"]);
    let upstream = servers[0]["upstream"].as_str().expect("a name").to_owned();
    let address = a.address().to_string();
    assert_eq!(share(&asked(&mut client, 6, ""), "a"), 3);

    assert!(device.cmim(&["servers", "drain", &upstream, &address]).status.success());
    assert_eq!(share(&asked(&mut client, 6, ""), "a"), 0);
    assert_eq!(device.json(&["servers"])[0]["state"], "draining");
    assert_eq!(device.json(&["servers"])[0]["idle"], 0);

    assert!(device.cmim(&["servers", "enable", &upstream, &address]).status.success());
    assert!(share(&asked(&mut client, 6, ""), "a") >= 2);
    let unknown = device.cmim(&["servers", "drain", &upstream, "127.0.0.1:1"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&unknown.stderr).lines().count(), 1);
}
