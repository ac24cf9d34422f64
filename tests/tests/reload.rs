//! Changing the configuration of a running device (docs/operations.md: *Change without loss*).

use std::net::SocketAddr;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::{ok, replies, with_length};
use cmim_tests::origin::obedient::{assert_pages, gets};
use cmim_tests::ports::Reserved;
use cmim_tests::process::Process;
use cmim_tests::{Client, Crew, Device, Load, ScriptedServer, Setup};
use rustix::process::Signal;

fn named(name: &'static str) -> ScriptedServer {
    ScriptedServer::start(replies(move |_| with_length(name.as_bytes())))
}

fn refused(device: &Device) -> String {
    let output = device.cmim(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn five_reloads_under_load_fail_no_request_and_close_no_connection() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address()]).start();
    let load = Load::on(device.address(), 8);
    for round in 0..5 {
        load.wait_for_more(200);
        let (from, to) = if round % 2 == 0 { (a.address(), b.address()) } else { (b.address(), a.address()) };
        device.edit(|text| text.replace(from, to));
        let said = device.reload();
        assert!(said.contains(&format!("upstream app: server {to} added")), "{said}");
        let before = (a.request_count(), b.request_count());
        load.wait_for_more(200);
        let new = if round % 2 == 0 { b.request_count() - before.1 } else { a.request_count() - before.0 };
        assert!(new >= 150, "the new server got {new}");
    }
    let tally = load.assert_no_failure();
    assert!(tally.replies >= 2000 && tally.closed == 0, "{tally:?}");
    assert_eq!(device.figure("/client_connections/accepted_total"), 8);
    assert_eq!(device.status()["servers"].as_array().map(Vec::len), Some(1), "the servers that left are forgotten");
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_every_error_is_told() {
    let server = named("a");
    let device = Setup::before(&[server.address()]).start();
    let mut client = device.client();
    client.get("/").assert_whole(b"a");
    let before = device.cmim(&["config", "show"]).stdout;
    device.edit(|text| {
        text.replace("upstream = \"app\"", "upstream = \"ap\"")
            .replace("[limits]", "[limits]\nrequest_head = \"16 KB\"")
    });
    let said = refused(&device);
    let file = device.file().display().to_string();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with(&format!("{file}:")) && lines[0].contains("limits.request_head"), "{said}");
    assert!(lines[1].contains("listener[0].upstream") && lines[1].contains("did you mean \"app\"?"), "{said}");
    assert_eq!(lines[2], "cmim: nothing was changed");
    assert_eq!(device.cmim(&["config", "show"]).stdout, before);
    client.get("/").assert_whole(b"a");
}

#[test]
fn listeners_come_and_go_and_a_port_in_use_refuses_the_whole_change() {
    let server = named("a");
    let device = Setup::before(&[server.address()]).start();
    let new = Reserved::v4();
    let old = device.address();
    device.edit(|text| text.replace(&format!("\"{old}\""), &format!("\"{old}\", \"{}\"", new.address())));
    assert!(device.reload().contains(&format!("listener web: listens on {}", new.address())));
    Client::connect(new.address()).get("/").assert_whole(b"a");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_address = taken.local_addr().expect("its address");
    let before = device.cmim(&["config", "show"]).stdout;
    device.edit(|text| {
        text.replace(&new.address().to_string(), &taken_address.to_string())
            .replace("[timeouts]", "[timeouts]\nclient_idle = \"7s\"")
    });
    assert!(refused(&device).contains(&format!("{taken_address} is in use by another process")));
    assert_eq!(device.cmim(&["config", "show"]).stdout, before, "the timeout is not taken over either");
    Client::connect(new.address()).get("/").assert_whole(b"a");
}

#[test]
fn a_listener_that_goes_finishes_what_it_has() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/slow" {
                std::thread::sleep(Duration::from_millis(300));
            }
            if !side.send(with_length(b"a")) {
                return;
            }
        }
    });
    let gone = Reserved::v4();
    let device = Setup::before(&[server.address()]).listen_on([127, 0, 0, 1].into()).listen_at(gone.address()).start();
    let (mut busy, mut idle) = (Client::connect(gone.address()), Client::connect(gone.address()));
    idle.get("/").assert_whole(b"a");
    busy.send(request("GET", "/slow", "", b""));
    until_true("it is in the device", PATIENCE, || server.request_count() == 2);
    device.edit(|text| text.replace(&format!(", \"{}\"", gone.address()), ""));
    assert!(device.reload().contains(&format!("listener web: no longer listens on {}", gone.address())));
    assert!(Client::try_connect(gone.address()).is_err(), "nobody listens there");
    idle.assert_ended();
    busy.reply().assert_whole(b"a");
    busy.assert_ended();
    device.client().get("/").assert_whole(b"a");
}

#[test]
fn a_head_that_has_begun_behind_a_reply_is_read_to_its_end() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    client.send(gets(&["/1?hold"]));
    crew.wait_for_visits(1);
    client.send("GET /2 HTTP/1.1\r\nHo");
    until_true("a head has begun", PATIENCE, || device.json(&["connections"]).to_string().contains("reading"));
    device.edit(|text| text.replace("[timeouts]", "[timeouts]\nclient_idle = \"7s\""));
    device.reload();
    client.send("st: a\r\n\r\n");
    crew.wait_for_visits(2);
    crew.release();
    assert_pages(&mut client, &["/1?hold", "/2"]);
    client.get("/3").assert_whole(b"/3");
}

#[test]
fn an_upstream_that_goes_finishes_what_it_has() {
    let slow = ScriptedServer::start(|side| {
        if side.request().is_some() {
            std::thread::sleep(Duration::from_millis(300));
            side.send(with_length(b"slow"));
        }
    });
    let fast = named("fast");
    let device = Setup::before(&[slow.address()])
        .tables(&format!("[[upstream]]\nname = \"other\"\nservers = [{{ address = \"{}\" }}]", fast.address()))
        .start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    slow.wait_for(1);
    device.edit(|text| {
        let cut = text.find("[[upstream]]").expect("the first upstream");
        let rest = text[cut..].find("[[upstream]]\nname = \"other\"").expect("the second one") + cut;
        format!("{}{}", &text[..cut], &text[rest..]).replace("upstream = \"app\"", "upstream = \"other\"")
    });
    assert!(device.reload().contains("upstream app removed"));
    client.reply().assert_whole(b"slow");
    client.get("/").assert_whole(b"fast");
    assert_eq!(device.figure("/client_connections/accepted_total"), 1, "on the same connection");
}

#[test]
fn limits_timeouts_routes_and_the_access_log_take_effect() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address()])
        .tables(&format!("[[upstream]]\nname = \"other\"\nservers = [{{ address = \"{}\" }}]", b.address()))
        .start();
    let mut client = device.client();
    client.get("/b/").assert_whole(b"a");
    let log = device.directory().join("other.log");
    device.edit(|text| {
        text.replace("[limits]", "[limits]\nrequest_target = 8\nclient_connections_per_address = 1")
            .replace("[timeouts]", "[timeouts]\nclient_idle = \"1s\"")
            .replace("access.log", "other.log")
            .replace("upstream = \"app\"", "upstream = \"app\"\nroutes = [{ path = \"/b/\", upstream = \"other\" }]")
    });
    device.reload();
    client.get("/b/").assert_whole(b"b");
    assert_eq!(client.get("/much/longer").status(), 414);
    client.assert_ended();
    let mut short = device.client();
    short.get("/").assert_whole(b"a");
    short.assert_ended();
    let lines = until("the new log has three lines", PATIENCE, || {
        std::fs::read_to_string(&log).ok().filter(|text| text.lines().count() == 3)
    });
    assert!(lines.contains("/b/"), "{lines}");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_applies() {
    let server = named("a");
    let device = Setup::before(&[server.address()]).start();
    device.edit(|text| text.replace("workers = 2", "workers = 3").replace("\"5s\"", "\"4s\""));
    let said = device.reload();
    assert!(said.contains("daemon.shutdown_grace changed"), "{said}");
    assert!(said.contains("not without a restart or `cmim upgrade`: daemon.workers"), "{said}");
    let again = device.json(&["reload"]);
    assert_eq!((again["applied"].as_array().map(Vec::len), &again["restart"][0]), (Some(0), &"daemon.workers".into()));
    assert_eq!(device.figure("/workers"), 2);
}

#[test]
fn a_listener_that_is_renamed_keeps_its_address_and_lists_newcomers_by_its_new_name() {
    let server = named("a");
    let device = Setup::before(&[server.address()]).start();
    let mut before = device.client();
    before.get("/").assert_whole(b"a");
    device.edit(|text| text.replace("name = \"web\"", "name = \"shop\""));
    device.reload();
    let mut after = device.client();
    after.get("/").assert_whole(b"a");
    before.get("/").assert_whole(b"a");
    let list = device.json(&["connections"]);
    let names: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|entry| entry["listener"].as_str()).collect();
    assert_eq!(names, ["web", "shop"], "{list}");
}

#[test]
fn sighup_reloads_and_opens_the_log_anew() {
    let (a, b) = (named("a"), named("b"));
    let device = Setup::before(&[a.address()]).start();
    let mut client = device.client();
    client.get("/").assert_whole(b"a");
    until_true("a line", PATIENCE, || device.access_log().len() == 1);
    std::fs::rename(device.directory().join("access.log"), device.directory().join("old.log")).expect("moved");
    device.edit(|text| text.replace(a.address(), b.address()));
    device.signal(Signal::HUP);
    until_true("the other server answers", PATIENCE, || client.get("/").text() == "b");
    until_true("the new log has lines", PATIENCE, || !device.access_log().is_empty());
    device.edit(|text| text.replace("[limits]", "[limits]\nnonsense = 1"));
    device.signal(Signal::HUP);
    device.wait_to_say("limits.nonsense: unknown key");
    client.get("/").assert_whole(b"b");
}

#[test]
fn a_daemon_without_a_file_says_so() {
    let server = ScriptedServer::start(ok);
    let port = Reserved::v4();
    let directory = tempfile::tempdir().expect("a directory");
    let control = directory.path().join("c.sock");
    let mut command = std::process::Command::new(cmim_tests::device::binary());
    let address: SocketAddr = port.address();
    command.args(["run", "--listen", &address.to_string(), "--server", server.address(), "--kernel", "off"]);
    command.args(["--access-log", "off"]).arg("--control").arg(&control);
    let mut process = Process::start("cmim", &mut command);
    process.wait_for(address);
    until_true("its control socket is there", PATIENCE, || control.exists());
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(cmim_tests::device::binary());
        let output = command.args(arguments).arg("--control").arg(&control).output().expect("running cmim");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&["reload"]).contains("the daemon runs without a file"));
    assert!(run(&["servers", "add", "app", "127.0.0.1:9", "--save"]).contains("from flags, not from a file"));
}
