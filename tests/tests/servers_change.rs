//! `cmim servers add` and `remove` (docs/commands.md).

use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::{Device, Load, ScriptedServer, Setup};

fn named(name: &'static str) -> ScriptedServer {
    ScriptedServer::start(replies(move |_| with_length(name.as_bytes())))
}

#[track_caller]
fn done(device: &Device, arguments: &[&str]) -> String {
    let output = device.cmim(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn refused(device: &Device, arguments: &[&str]) -> String {
    let output = device.cmim(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn listed(device: &Device) -> Vec<String> {
    let servers = device.json(&["servers"]);
    let address = |server: &serde_json::Value| server["address"].as_str().expect("a text").to_owned();
    servers.as_array().expect("a list").iter().map(address).collect()
}

#[test]
fn servers_come_and_go_under_load_without_a_failed_request() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address()]).start();
    let load = Load::on(device.address(), 8);
    for _ in 0..3 {
        load.wait_for_more(100);
        done(&device, &["servers", "add", "app", b.address()]);
        let before = b.request_count();
        load.wait_for_more(300);
        assert!(b.request_count() > before, "the new server gets requests");
        done(&device, &["servers", "remove", "app", b.address()]);
        let after = b.request_count();
        load.wait_for_more(200);
        // Those that were on their way when it left, one a client at most.
        assert!(b.request_count() <= after + 8, "{} after {after}", b.request_count());
        until_true("it is forgotten", PATIENCE, || listed(&device) == [a.address()]);
    }
    load.assert_no_failure();
    assert_eq!(b.open(), 0, "its idle connections are closed");
}

#[test]
fn a_server_is_drained_by_the_address_that_its_file_has() {
    let (a, b) = (named("a"), named("b"));
    let (_, port) = a.address().rsplit_once(':').expect("a port");
    let names = [format!("localhost:{port}"), "[2001:DB8:0::1]:80".to_owned()];
    let device = Setup::before(&names).server(&format!("address = \"{}\"", b.address())).start();
    let state = |server: usize| device.json(&["servers"])[server]["state"].as_str().expect("a state").to_owned();
    for (server, name) in names.iter().enumerate() {
        done(&device, &["servers", "drain", "app", name]);
        assert_eq!(state(server), "draining", "{name}");
        done(&device, &["servers", "enable", "app", name]);
        assert_eq!(state(server), "up", "{name}");
    }
    let unknown = refused(&device, &["servers", "drain", "app", "localhost:1"]);
    assert!(unknown.contains("no server \"localhost:1\" is in an upstream \"app\""), "{unknown}");
    assert!(refused(&device, &["servers", "drain", "app", "nonsense"]).contains("no server \"nonsense\""));
}

#[test]
fn a_server_that_is_removed_finishes_its_requests_first() {
    let slow = ScriptedServer::start(|side| {
        if side.request().is_some() {
            std::thread::sleep(Duration::from_millis(300));
            side.send(with_length(b"slow"));
            side.wait_closed();
        }
    });
    let other = named("other");
    let device = Setup::before(&[slow.address()]).start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    slow.wait_for(1);
    done(&device, &["servers", "add", "app", other.address(), "--weight", "3"]);
    assert_eq!(
        done(&device, &["servers", "remove", "app", slow.address()]),
        format!("{} is no server of app any more\n", slow.address())
    );
    let states = device.json(&["servers"]);
    assert_eq!((&states[0]["state"], &states[0]["in_flight"]), (&"draining".into(), &1.into()), "{states}");
    assert_eq!(states[1]["weight"], 3, "{states}");
    client.reply().assert_whole(b"slow");
    until_true("it is forgotten", PATIENCE, || listed(&device) == [other.address()]);
    client.get("/").assert_whole(b"other");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let server = named("a");
    let device = Setup::before(&[server.address()]).start();
    let address = server.address();
    for (arguments, why) in [
        (["servers", "add", "app", address], "is a server of app already"),
        (["servers", "add", "ap", "127.0.0.1:9"], "did you mean \"app\"?"),
        (["servers", "add", "app", "127.0.0.1"], "did you mean \"127.0.0.1:8080\"?"),
        (["servers", "remove", "app", "127.0.0.1:9"], "is no server of app (`cmim servers` lists them)"),
        (["servers", "remove", "app", address], "is the only server of app"),
    ] {
        let said = refused(&device, &arguments);
        assert!(said.starts_with("cmim: ") && said.contains(why), "{arguments:?}: {said}");
    }
    device.client().get("/").assert_whole(b"a");
}

#[test]
fn save_writes_the_file_and_keeps_what_else_is_in_it() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address()]).upstream("# kept\nretries = 1 # kept too").start();
    let text = || std::fs::read_to_string(device.file()).expect("the file");
    let before = text();
    let said = done(&device, &["servers", "add", "app", b.address(), "--weight", "2", "--save"]);
    assert!(said.contains("; saved to ") && said.contains("cmim.toml"), "{said}");
    let last = format!("\"{}\" }}]", a.address());
    let with = format!("\"{}\" }}, {{ address = \"{}\", weight = 2 }}]", a.address(), b.address());
    assert_eq!(text(), before.replace(&last, &with));
    assert!(device.reload().contains("nothing changed"));
    done(&device, &["servers", "remove", "app", b.address(), "--save"]);
    assert_eq!(text(), before);
    // What is not saved is gone with the next look at the file.
    done(&device, &["servers", "add", "app", b.address()]);
    assert!(device.reload().contains(&format!("server {} removed", b.address())));
    let names: Vec<_> = std::fs::read_dir(device.directory()).expect("a directory").flatten().collect();
    assert!(!names.iter().any(|entry| entry.file_name().to_string_lossy().contains("cmim-new")), "{names:?}");
}
