//! docs/http.md: the connections to the servers are few, shared, fresh, and their races are won.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{closes_idle_at_random, ok, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, Device, ScriptedServer, Setup};
use serde_json::Value;

#[test]
fn fifty_clients_taking_turns_use_at_most_ten_server_connections() {
    const CLIENTS: usize = 50;
    const AT_ONCE: usize = 10;
    const TURNS: usize = 20;
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| device.client()).collect();
    thread::scope(|scope| {
        for group in clients.chunks_mut(CLIENTS / AT_ONCE) {
            scope.spawn(|| {
                for _ in 0..TURNS {
                    for client in group.iter_mut() {
                        client.get("/").assert_whole(b"ok");
                    }
                }
            });
        }
    });
    assert_eq!(device.figure("/client_connections/open"), CLIENTS as u64);
    assert!(server.opened() <= AT_ONCE, "{} server connections", server.opened());
    assert_eq!(server.request_count(), CLIENTS * TURNS);
}

#[test]
fn a_single_client_uses_a_single_server_connection_whichever_worker_has_it() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).daemon("").start();
    for _ in 0..40 {
        device.client().get("/").assert_whole(b"ok");
    }
    assert_eq!(server.opened(), 1, "a worker opened a connection although another had an idle one");
    let status = device.status();
    assert_eq!(status["server_connections"]["opened_total"], 1, "{status}");
    assert_eq!(status["server_connections"]["reused_total"], 39, "{status}");
    assert_eq!(status["server_connections"]["idle"], 1, "{status}");
}

#[test]
fn a_server_that_closes_idle_connections_at_random_loses_no_request_in_10_000() {
    const CLIENTS: usize = 8;
    let server = ScriptedServer::start(closes_idle_at_random(5));
    let device = Device::before(&[server.address()]);
    let lost = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = device.client();
                for _ in 0..10_000 / CLIENTS {
                    if client.get("/").text() != "ok" {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    assert!(server.opened() > 100, "the server was to close often");
}

/// Answers a connection's first request, and resets it at the second, before a byte of reply.
fn resets_at_the_second(side: &mut cmim_tests::ServerSide) {
    if side.request().is_some() && side.send(with_length(b"ok")) && side.request().is_some() {
        side.reset();
    }
}

#[test]
fn an_idempotent_request_that_meets_a_stale_connection_is_sent_again() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let server = ScriptedServer::start(resets_at_the_second);
        let device = Setup::before(&[server.address()]).upstream("retries = 0").start();
        let mut client = device.client();
        for number in 0..6 {
            let content: &[u8] = if method == "PUT" { b"content" } else { b"" };
            assert_eq!(client.ask(method, "/", "", content).status(), 200, "{method} number {number}");
        }
    }
}

#[test]
fn a_post_that_may_have_been_processed_is_502_and_not_sent_again() {
    let server = ScriptedServer::start(resets_at_the_second);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.get("/").assert_whole(b"ok");
    assert_eq!(client.ask("POST", "/", "", b"order").status(), 502);
    let posts = server.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(posts, 1, "the order was placed {posts} times");
    client.get("/").assert_whole(b"ok");
}

#[test]
fn a_post_is_not_put_on_a_connection_that_the_server_has_closed() {
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            // Says nothing of closing.
            side.send(with_length(b"ok"));
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for number in 0..20 {
        assert_eq!(client.ask("POST", "/", "", b"order").status(), 200, "number {number}");
        until_true("the closed connection leaves the pool", PATIENCE, || {
            device.figure("/server_connections/idle") == 0
        });
    }
    assert_eq!(server.request_count(), 20);
}

#[test]
fn an_idle_connection_that_says_something_leaves_the_pool() {
    let server = ScriptedServer::start(|side| {
        while side.request().is_some() && side.send(with_length(b"ok")) {
            thread::sleep(Duration::from_millis(20));
            side.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..5 {
        client.get("/").assert_whole(b"ok");
        until_true("the connection leaves the pool", PATIENCE, || device.figure("/server_connections/idle") == 0);
    }
    assert_eq!(server.opened(), 5);
}

/// What comes on a connection at its second request, as if the server had sent it before it got that.
fn says_at_the_second(said: &'static str) -> ScriptedServer {
    ScriptedServer::start(move |side| {
        if side.request().is_some() && side.send(with_length(b"ok")) && side.request().is_some() {
            side.send(said);
        }
    })
}

const LATE_408: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";

#[test]
fn what_a_server_says_on_an_idle_connection_is_no_response_to_a_request_that_can_be_sent_twice() {
    for said in [LATE_408, "\r\n", "\r\n\r\n", "no HTTP\r\n\r\n", "HTTP/1.1 408 Requ", "HTTP/1.1 408 Timeout\r\nConn"] {
        for lines in ["retries = 0", "retries = 0\nserver_pipeline = 8"] {
            let server = says_at_the_second(said);
            let device = Setup::before(&[server.address()]).upstream(lines).start();
            let mut client = device.client();
            for number in 0..6 {
                client.get("/").assert_whole(b"ok");
                let content: &[u8] = if number % 2 == 0 { b"content" } else { b"" };
                let reply = client.ask(if number % 2 == 0 { "PUT" } else { "DELETE" }, "/", "", content);
                assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "`{said}`, {lines}, number {number}");
            }
        }
    }
}

#[test]
fn a_408_on_a_new_connection_or_to_a_post_is_the_response() {
    let server = says_at_the_second(LATE_408);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.get("/").assert_whole(b"ok");
    assert_eq!(client.ask("POST", "/", "", b"order").status(), 408);
    assert_eq!(server.request_count(), 2, "the order was placed once");

    let always = ScriptedServer::start(|side| {
        if side.request().is_some() {
            side.send(LATE_408);
        }
    });
    let device = Device::before(&[always.address()]);
    assert_eq!(device.client().get("/").status(), 408);
    assert_eq!(always.request_count(), 1);
}

#[test]
fn what_a_server_adds_behind_its_responses_costs_no_request() {
    for added in ["\r\n", "\r\n\r\n", LATE_408, "no HTTP"] {
        let server = ScriptedServer::start(move |side| {
            while side.request().is_some() && side.send(with_length(b"ok")) {
                // At once, a little later, and just when the next request comes.
                thread::sleep(Duration::from_micros(fastrand::u64(..500)));
                if !side.send(added) {
                    return;
                }
            }
        });
        let device = Setup::before(&[server.address()]).upstream("retries = 0").start();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = device.client();
                    for number in 0..100 {
                        let reply = client.get("/");
                        assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "{added:?}: {number}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_refused_connection_goes_to_another_server() {
    let dead = Reserved::v4();
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[dead.address().to_string(), server.address().into()]).start();
    let mut client = device.client();
    for _ in 0..20 {
        client.get("/").assert_whole(b"ok");
        // No byte of it can have been processed by the one that refused.
        assert_eq!(client.ask("POST", "/", "", b"order").status(), 200);
    }
    assert_eq!(server.request_count(), 40);
}

#[test]
fn when_every_server_refuses_the_client_hears_so_and_stays() {
    let dead = [Reserved::v4(), Reserved::v4()];
    let addresses = dead.each_ref().map(|port| port.address().to_string());
    let device = Device::before(&addresses);
    let mut client = device.client();
    for _ in 0..10 {
        let status = client.get("/").status();
        assert!(matches!(status, 502 | 503), "{status}");
    }
    client.assert_quiet();
}

#[test]
fn a_server_that_does_not_accept_in_time_is_504() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    full.listen(0).expect("listening");
    let address = full.local_addr().expect("its address").as_socket().expect("an IP address");
    // Fills the accept queue: what comes next gets no answer to its SYN.
    let _queued: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("non-blocking");
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let device =
        Setup::before(&[address.to_string()]).timeouts("server_connect = \"300ms\"").upstream("retries = 1").start();
    let start = Instant::now();
    assert_eq!(device.client().get("/").status(), 504);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

fn server_state(device: &Device, address: &str) -> Value {
    let servers = device.json(&["servers"]);
    let all = servers.as_array().unwrap_or_else(|| panic!("no list: {servers}"));
    all.iter().find(|server| server["address"] == address).cloned().unwrap_or_else(|| panic!("{address} in {servers}"))
}

#[test]
fn failures_in_a_row_take_a_server_out_and_a_probe_brings_it_back() {
    let dead = Reserved::v4();
    let dead_address = dead.address().to_string();
    let server = ScriptedServer::start(ok);
    let device =
        Setup::before(&[dead_address.as_str(), server.address()]).upstream("balance = \"round-robin\"").start();
    let mut client = device.client();
    until_true("the dead server is taken out", PATIENCE, || {
        client.get("/").assert_whole(b"ok");
        server_state(&device, &dead_address)["state"] != "up"
    });
    let failures = server_state(&device, &dead_address)["failures_total"].as_u64();
    assert!(failures >= Some(3), "{failures:?}");
    assert_eq!(server_state(&device, server.address())["state"], "up");
    let revived = ScriptedServer::at(dead.address(), ok);
    until_true("the revived server gets requests again", Duration::from_secs(20), || {
        client.get("/").assert_whole(b"ok");
        revived.request_count() > 0
    });
    until_true("and is up", Duration::from_secs(20), || {
        client.get("/").assert_whole(b"ok");
        server_state(&device, &dead_address)["state"] == "up"
    });
}

#[test]
fn the_only_server_comes_back_as_soon_as_it_listens_again() {
    let port = Reserved::v4();
    let device = Device::before(&[port.address().to_string()]);
    let mut client = device.client();
    for _ in 0..10 {
        assert!(client.get("/").status() >= 502);
    }
    let server = ScriptedServer::at(port.address(), ok);
    until_true("requests reach the server again", Duration::from_secs(10), || client.get("/").status() == 200);
    assert!(server.request_count() >= 1);
}

#[test]
fn an_idle_server_connection_is_closed_after_its_keep_alive() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).timeouts("server_keep_alive = \"300ms\"").start();
    device.client().get("/").assert_whole(b"ok");
    assert_eq!(server.open(), 1);
    until_true("the idle connection is closed", Duration::from_secs(5), || server.open() == 0);
}

#[test]
fn no_more_than_max_idle_connections_stay() {
    let server = ScriptedServer::start(|side| {
        while side.request().is_some() {
            thread::sleep(Duration::from_millis(50));
            side.send(with_length(b"ok"));
        }
    });
    let device = Setup::before(&[server.address()]).upstream("max_idle = 2").start();
    let mut clients: Vec<Client> = (0..8).map(|_| device.client()).collect();
    for client in &mut clients {
        client.send(request("GET", "/", "", b""));
    }
    for client in &mut clients {
        client.reply().assert_whole(b"ok");
    }
    until_true("two stay", PATIENCE, || server.open() == 2);
    assert_eq!(device.figure("/server_connections/idle"), 2);
}

#[test]
fn a_client_that_leaves_does_not_take_its_servers_connection_into_the_pool() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/slow" {
                thread::sleep(Duration::from_millis(200));
            }
            side.send(with_length(request.target.as_bytes()));
        }
    });
    let device = Device::before(&[server.address()]);
    for _ in 0..5 {
        let mut leaving = device.client();
        leaving.send(request("GET", "/slow", "", b""));
        until_true("the request is on its way", PATIENCE, || server.requests().iter().any(|r| r.target == "/slow"));
        drop(leaving);
        for _ in 0..5 {
            device.client().get("/fast").assert_whole(b"/fast");
        }
    }
}

#[test]
fn the_figures_add_up_after_traffic() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..10 {
        client.get("/");
    }
    let status = device.status();
    assert_eq!(status["requests_total"], 10, "{status}");
    assert_eq!(status["jobs"]["active"], 0, "{status}");
    assert_eq!(status["jobs"]["done_total"], 10, "{status}");
    assert_eq!(status["server_connections"]["open"], 1, "{status}");
    assert_eq!(status["servers"][0]["requests_total"], 10, "{status}");
    assert_eq!(status["servers"][0]["in_flight"], 0, "{status}");
    assert_eq!(status["servers"][0]["failures_total"], 0, "{status}");
}
