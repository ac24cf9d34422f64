//! Start, stop and the log: docs/operations.md's SIGTERM, and the access log.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::{never_answers, ok, then_silent, with_length};
use cmim_tests::origin::obedient::gets;
use cmim_tests::wire::WireError;
use cmim_tests::{Client, Crew, Device, Framing, Reply, ScriptedServer, Setup};
use rustix::process::Signal;

/// Answers after 300 ms.
fn unhurried() -> ScriptedServer {
    ScriptedServer::start(|side| {
        while side.request().is_some() {
            std::thread::sleep(Duration::from_millis(300));
            side.send(with_length(b"ok"));
        }
    })
}

#[test]
fn sigterm_lets_the_request_in_flight_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = unhurried();
        let mut device = Device::before(&[server.address()]);
        let mut client = device.client();
        client.send(request("GET", "/", "", b""));
        server.wait_for(1);
        device.signal(signal);
        until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
        client.reply().assert_whole(b"ok");
        client.assert_ended();
        assert_eq!(device.wait(Duration::from_secs(5)).code(), Some(0), "{}", device.output());
    }
}

#[test]
fn a_stderr_that_nobody_reads_costs_no_request_and_no_log_line() {
    let server = unhurried();
    let mut device = Setup::before(&[server.address()]).unheard().start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    server.wait_for(1);
    device.signal(Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    client.reply().assert_whole(b"ok");
    client.assert_ended();
    assert_eq!(device.wait(PATIENCE).code(), Some(0));
    let lines = device.access_log();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["status"], 200, "{lines:?}");
}

#[test]
fn an_error_that_nobody_reads_is_the_exit_code_alone() {
    let mut command = std::process::Command::new(cmim_tests::device::binary());
    command.args(["check", "/no/such/file.toml"]);
    let mut process = cmim_tests::process::Process::start_unheard("cmim check", &mut command);
    assert_eq!(process.wait(PATIENCE).code(), Some(1));
}

#[test]
fn sigterm_lets_a_head_that_has_begun_behind_a_request_in_flight_come_to_its_end() {
    let crew = Crew::of(2);
    let mut device = crew.setup("").start();
    let mut client = device.client();
    client.send(gets(&["/1?hold"]));
    crew.wait_for_visits(1);
    client.send("GET /2 HTTP/1.1\r\nHo");
    until_true("a head has begun", PATIENCE, || device.json(&["connections"]).to_string().contains("reading"));
    device.signal(Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    client.send("st: a\r\n\r\n");
    crew.wait_for_visits(2);
    crew.release();
    let (first, last) = (client.reply(), client.reply());
    first.assert_whole(b"/1?hold");
    last.assert_whole(b"/2");
    let closes = |reply: &Reply| reply.fields().lists("connection", "close");
    assert_eq!((closes(&first), closes(&last)), (false, true));
    client.assert_ended();
    assert_eq!(device.wait(PATIENCE).code(), Some(0), "{}", device.output());
}

#[test]
fn behind_a_reply_that_says_close_no_head_is_taken_any_more() {
    // The reply's head, and then its content, once it may.
    let (allow, allowed) = channel();
    let allowed = Mutex::new(allowed);
    let server = ScriptedServer::start(move |side| {
        while side.request().is_some() {
            for part in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "k"] {
                allowed.lock().expect("the channel").recv().expect("a word");
                side.send(part);
            }
        }
    });
    let mut device = Setup::before(&[server.address()]).start();
    let mut client = device.client();
    client.send(request("GET", "/1", "", b""));
    server.wait_for(1);
    client.send("GET /2 HTTP/1.1\r\nHo");
    until_true("a head has begun", PATIENCE, || device.json(&["connections"]).to_string().contains("reading"));
    device.signal(Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    allow.send(()).expect("a server");
    let head = client.head("GET");
    assert!(head.fields.lists("connection", "close"), "{head:?}");
    client.send("st: a\r\n\r\n");
    // Time for what must not happen.
    std::thread::sleep(Duration::from_millis(100));
    allow.send(()).expect("a server");
    client.content(head.framing, &mut |_| ()).expect("content");
    client.assert_ended();
    assert_eq!(device.wait(PATIENCE).code(), Some(0), "{}", device.output());
    assert_eq!(server.request_count(), 1, "a request that its client takes for not processed");
}

#[test]
fn sigterm_closes_idle_connections_at_once() {
    let server = ScriptedServer::start(ok);
    let mut device = Device::before(&[server.address()]);
    let mut idle = device.client();
    idle.get("/").assert_whole(b"ok");
    let start = Instant::now();
    assert_eq!(device.stop().code(), Some(0), "{}", device.output());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    idle.assert_ended();
    until_true("the server's connections are closed", PATIENCE, || server.open() == 0);
}

#[test]
fn drain_finishes_what_is_under_way_and_says_how_far_it_is() {
    let server = unhurried();
    let mut device = Device::before(&[server.address()]);
    let (mut busy, mut idle) = (device.client(), device.client());
    idle.get("/").assert_whole(b"ok");
    busy.send(request("GET", "/", "", b""));
    server.wait_for(2);
    let drained = device.cmim(&["drain"]);
    assert!(drained.status.success(), "{drained:?}");
    let said = String::from_utf8_lossy(&drained.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"draining"), Some(&"ended")), "{said}");
    assert!(lines.contains(&"1 connection left") || lines.contains(&"2 connections left"), "{said}");
    busy.reply().assert_whole(b"ok");
    busy.assert_ended();
    idle.assert_ended();
    assert_eq!(device.wait(PATIENCE).code(), Some(0), "{}", device.output());
    assert_eq!(device.cmim(&["drain"]).status.code(), Some(1), "nobody is there to drain");
}

#[test]
fn after_shutdown_grace_the_device_ends_anyway() {
    let server = ScriptedServer::start(never_answers);
    let mut device = Setup::before(&[server.address()]).start();
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    until_true("the request is on its way", PATIENCE, || server.bytes_received() > 0);
    let start = Instant::now();
    device.signal(Signal::TERM);
    // The grace of the test configuration is 5 s.
    device.wait(Duration::from_secs(8));
    assert!(start.elapsed() >= Duration::from_secs(4), "the grace was not given: {:?}", start.elapsed());
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let server = ScriptedServer::start(never_answers);
    let mut device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    until_true("the request is on its way", PATIENCE, || server.bytes_received() > 0);
    device.signal(Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    device.signal(Signal::TERM);
    device.wait(Duration::from_secs(3));
}

#[test]
fn a_reply_that_is_cut_by_the_end_of_the_device_is_reset_and_does_not_look_whole() {
    // Its end is the connection's: an orderly close would make it whole.
    let server = ScriptedServer::start(then_silent(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Accel-Buffering: no\r\n\r\nthe first half",
    ));
    let mut device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send("GET / HTTP/1.0\r\nHost: test.example\r\n\r\n");
    let head = client.head("GET");
    assert_eq!(head.framing, Framing::Close, "{head:?}");
    client.wire().exactly(14, &mut |_| ()).expect("the first half");
    device.signal(Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    device.signal(Signal::TERM);
    let end = client.wire().to_end(&mut |_| ());
    assert!(matches!(end, Err(WireError::Reset)), "{end:?}");
    device.wait(PATIENCE);
}

#[test]
fn a_restart_finds_its_port_free() {
    let server = ScriptedServer::start(ok);
    let port = cmim_tests::ports::Reserved::v4();
    for _ in 0..3 {
        let mut device = Setup::before(&[server.address()]).listen_at(port.address()).start();
        let mut client = device.client();
        client.get("/").assert_whole(b"ok");
        assert!(device.stop().success());
    }
}

#[test]
fn the_access_log_has_a_json_line_per_request() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.ask(
        "GET",
        "/one?x=%22quoted%22",
        "User-Agent: tests \"quoted\" \u{e9}\r\nReferer: http://r.example/\r\n",
        b"",
    );
    client.ask("POST", "/two", "", b"hello");
    let lines = until("two lines", PATIENCE, || Some(device.access_log()).filter(|lines| lines.len() == 2));
    let first = &lines[0];
    assert_eq!(first["method"], "GET", "{first}");
    assert_eq!(first["target"], "/one?x=%22quoted%22", "{first}");
    assert_eq!(first["status"], 200, "{first}");
    let all = first.to_string();
    for part in [server.address(), "127.0.0.1"] {
        assert!(all.contains(part), "no {part}: {first}");
    }
    let second = &lines[1];
    assert_eq!((second["method"].as_str(), second["status"].as_u64()), (Some("POST"), Some(200)), "{second}");
}

#[test]
fn the_access_log_comes_in_the_combined_format_too() {
    let server = ScriptedServer::start(ok);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("combined.log");
    let port = cmim_tests::ports::Reserved::v4();
    let file = directory.path().join("cmim.toml");
    let text = format!(
        "[daemon]\ncontrol_socket = \"{0}/c.sock\"\n[kernel]\nmode = \"off\"\n[access_log]\npath = \"{1}\"\nformat = \"combined\"\n\
         [[listener]]\nname = \"web\"\naddress = [\"{2}\"]\nupstream = \"app\"\n\
         [[upstream]]\nname = \"app\"\nservers = [{{ address = \"{3}\" }}]\n",
        directory.path().display(),
        path.display(),
        port.address(),
        server.address()
    );
    std::fs::write(&file, text).expect("a configuration");
    let mut command = std::process::Command::new(cmim_tests::device::binary());
    let mut process = cmim_tests::process::Process::start("cmim", command.arg("run").arg("--config").arg(&file));
    process.wait_for(port.address());
    Client::connect(port.address()).ask("GET", "/x", "User-Agent: tests\r\nReferer: http://r.example/\r\n", b"");
    let line = until("a line", PATIENCE, || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')));
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.trim_end().ends_with("\"GET /x HTTP/1.1\" 200 2 \"http://r.example/\" \"tests\""), "{line}");
}
