//! docs/configuration.md: what takes a server out, what brings it back, and who waits for it meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, throughout, until, until_true};
use cmim_tests::origin::faulty::{never_answers, ok, replies, then_close, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Device, ScriptedServer, ServerSide, Setup};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

const CHECKS: &str = "health = { path = \"/healthz\", every = \"50ms\", timeout = \"1s\", rise = 2, fall = 3 }";

fn server(device: &Device, address: &str) -> Value {
    let servers = device.status()["servers"].as_array().cloned().unwrap_or_default();
    servers.into_iter().find(|server| server["address"] == address).expect("the server is listed")
}

fn state(device: &Device, address: &str) -> String {
    server(device, address)["state"].as_str().unwrap_or_default().to_owned()
}

/// The requests of users that a server has had.
fn used(server: &ScriptedServer) -> usize {
    server.requests().iter().filter(|request| request.target != "/healthz").count()
}

/// Takes the only server out: it refuses three connections.
fn take_out(device: &Device, address: SocketAddr) {
    let mut client = device.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 502);
    }
    assert_eq!(state(device, &address.to_string()), "down");
}

#[test]
fn failing_checks_take_a_server_out_although_its_requests_work_and_only_checks_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let checked = ScriptedServer::start({
        let well = Arc::clone(&well);
        replies(move |request| {
            if request.target == "/healthz" && !well.load(Ordering::Relaxed) {
                return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec();
            }
            with_length(b"ok")
        })
    });
    let other = ScriptedServer::start(ok);
    let device = Setup::before(&[checked.address(), other.address()])
        .upstream(&format!("{CHECKS}\nbalance = \"round-robin\""))
        .start();
    let mut client = device.client();
    well.store(false, Ordering::Relaxed);
    until_true("the checks take the server out under load", PATIENCE, || {
        client.get("/").assert_whole(b"ok");
        state(&device, checked.address()) == "down"
    });
    let before = used(&checked);
    throughout(
        "no request goes to it, also after the pause that failed connections have",
        Duration::from_secs(2),
        || {
            client.get("/").assert_whole(b"ok");
            used(&checked) == before
        },
    );
    well.store(true, Ordering::Relaxed);
    until_true("good checks bring it back", PATIENCE, || state(&device, checked.address()) == "up");
    until_true("and it works again", PATIENCE, || {
        client.get("/").assert_whole(b"ok");
        used(&checked) > before
    });
    device.wait_to_say("the server is down");
    device.wait_to_say("the server is up");
}

#[test]
fn a_reply_without_end_shows_that_its_server_is_back() {
    let port = Reserved::v4();
    let device = Setup::before(&[port.address().to_string()]).upstream("retries = 0\nqueue_limit = 0").start();
    take_out(&device, port.address());
    let _server = ScriptedServer::at(port.address(), |side: &mut ServerSide| {
        while let Some(request) = side.request() {
            if request.target != "/events" {
                side.send(with_length(b"ok"));
                continue;
            }
            side.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n",
            );
            side.wait_closed();
        }
    });
    let mut events = device.client();
    events.send(request("GET", "/events", "", b""));
    assert_eq!(events.head("GET").status, 200);
    device.client().get("/").assert_whole(b"ok");
    assert_eq!(state(&device, &port.address().to_string()), "up");
}

#[test]
fn a_server_that_is_out_and_takes_connections_without_answering_is_not_back() {
    let port = Reserved::v4();
    let other = ScriptedServer::start(ok);
    let device = Setup::before(&[port.address().to_string(), other.address().into()])
        .timeouts("server_first_byte = \"200ms\"")
        .upstream("balance = \"round-robin\"")
        .start();
    let address = port.address().to_string();
    let mut client = device.client();
    until_true("the dead server is taken out", PATIENCE, || {
        client.get("/").assert_whole(b"ok");
        state(&device, &address) == "down"
    });
    let hung = ScriptedServer::at(port.address(), never_answers);
    // In four seconds there is room for one after 0.1 s and one 2 s behind that.
    let asked = std::time::Instant::now();
    while asked.elapsed() < Duration::from_secs(4) {
        let status = client.get("/").status();
        assert!(matches!(status, 200 | 504), "{status}");
    }
    assert!((1..=2).contains(&hung.opened()), "{} requests were risked", hung.opened());
}

#[test]
fn a_retry_waits_for_a_server_that_is_only_busy() {
    let refusing = Reserved::v4();
    let release = Arc::new(AtomicBool::new(false));
    let busy = ScriptedServer::start({
        let release = Arc::clone(&release);
        move |side: &mut ServerSide| {
            while side.request().is_some() {
                until_true("the test lets the server answer", PATIENCE, || release.load(Ordering::Relaxed));
                side.send(with_length(b"ok"));
            }
        }
    });
    let device = Setup::before(&[refusing.address().to_string()])
        .server(&format!("address = \"{}\", max_requests = 1", busy.address()))
        .start();
    thread::scope(|scope| {
        let first = scope.spawn(|| device.client().get("/first").text());
        busy.wait_for(1);
        let refused = server(&device, &refusing.address().to_string())["failures_total"].as_u64();
        let second = scope.spawn(|| device.client().get("/second").text());
        until_true("the second request waits", PATIENCE, || device.figure("/jobs/queued") == 1);
        let refused_again = server(&device, &refusing.address().to_string())["failures_total"].as_u64();
        assert_eq!(refused_again, refused.map(|before| before + 1), "it tries the server that refuses once");
        release.store(true, Ordering::Relaxed);
        assert_eq!((first.join().expect("a reply"), second.join().expect("a reply")), ("ok".into(), "ok".into()));
    });
}

#[test]
fn who_waits_beside_a_server_that_is_out_gets_it_once_it_is_back() {
    let port = Reserved::v4();
    let full = ScriptedServer::start(never_answers);
    let device = Setup::before(&[port.address().to_string()])
        .server(&format!("address = \"{}\", max_requests = 1", full.address()))
        .upstream("retries = 0")
        .start();
    let mut occupying = Vec::new();
    until_true("one is full and the other is out", PATIENCE, || {
        let mut client = device.client();
        client.send(request("GET", "/", "", b""));
        occupying.push(client);
        full.opened() > 0 && state(&device, &port.address().to_string()) == "down"
    });
    let mut waiting = device.client();
    waiting.send(request("GET", "/", "", b""));
    until_true("a request waits", PATIENCE, || device.figure("/jobs/queued") > 0);
    let _back = ScriptedServer::at(port.address(), ok);
    waiting.reply().assert_whole(b"ok");
}

#[test]
fn checks_begin_with_a_proxy_header_where_connections_do() {
    let v2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /healthz HTTP/1.1\r\n";
    for (version, expected) in [("v1", b"PROXY UNKNOWN\r\nGET /healthz HTTP/1.1\r\n".as_slice()), ("v2", v2)] {
        let server = ScriptedServer::start(|side: &mut ServerSide| side.wait_closed());
        let _device = Setup::before(&[server.address()])
            .upstream(&format!("{CHECKS}\nsend_proxy_protocol = \"{version}\""))
            .start();
        let received = until("a check arrives", PATIENCE, || {
            server.received().into_iter().find(|bytes| bytes.len() >= expected.len())
        });
        assert!(received.starts_with(expected), "{version}: {:?}", String::from_utf8_lossy(&received));
    }
}

#[test]
fn a_device_short_of_descriptors_does_not_blame_its_servers() {
    let server_side = ScriptedServer::start(then_close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()));
    let device = Setup::before(&[server_side.address()]).start();
    let pid = Pid::from_raw(device.pid().cast_signed()).expect("a pid");
    let mut client = device.client();
    assert_eq!(client.get("/").status(), 200);
    // The numbers below are taken for good.
    let usual = limit(pid, Some(3));
    for _ in 0..5 {
        let reply = client.get("/");
        assert_eq!((reply.status(), reply.fields().has("retry-after")), (503, true), "{}", reply.text());
    }
    limit(pid, usual);
    assert_eq!(state(&device, server_side.address()), "up");
    assert_eq!(client.get("/").status(), 200);
}

/// Sets the soft limit of descriptors of a process; what it was comes back.
fn limit(pid: Pid, soft: Option<u64>) -> Option<u64> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: soft, maximum }).expect("the limit is set").current
}
