//! docs/http.md, "Pipelining towards servers": requests of different clients behind one another on one server connection,
//! and each client gets its own reply, whatever the server or the other clients do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::{chunked, with_length};
use cmim_tests::{Client, Device, Framing, Nginx, Reply, Request, ScriptedServer, ServerSide, Setup};

const PIPELINED: &str = "/server_connections/pipelined_total";

/// One worker, so that all clients are on the same.
fn device(server: &ScriptedServer, lines: &str) -> Device {
    Setup::before(&[server.address()]).workers(1).upstream("server_pipeline = 8").upstream(lines).start()
}

/// Clients that are there already; the server has one idle connection.
fn clients(device: &Device, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| device.client()).collect();
    clients.iter_mut().for_each(|client| client.get("/before").assert_whole(b"/before"));
    clients
}

/// Sends one request of each client so that the device finds all of them at once, in this order.
fn at_once(device: &Device, clients: &mut [Client], requests: &[(&str, &str)]) {
    device.paused(|| {
        for (client, (method, target)) in clients.iter_mut().zip(requests) {
            client.send(request(method, target, "", b""));
        }
    });
}

/// `GET /0`, `GET /1` ….
fn gets(device: &Device, clients: &mut [Client]) {
    let targets: Vec<String> = (0..clients.len()).map(|number| format!("/{number}")).collect();
    let requests: Vec<(&str, &str)> = targets.iter().map(|target| ("GET", target.as_str())).collect();
    at_once(device, clients, &requests);
}

fn assert_each_its_own(clients: &mut [Client]) {
    assert_its_own_from(0, clients);
}

/// `clients` begin with the one that sent `GET /FIRST`.
fn assert_its_own_from(first: usize, clients: &mut [Client]) {
    for (client, number) in clients.iter_mut().zip(first..) {
        client.reply().assert_whole(format!("/{number}").as_bytes());
    }
}

/// A content in which bytes that are missing or in a wrong place show.
fn bytes(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) + at / 251) as u8).collect()
}

/// A reply that tells its request.
fn own(request: &Request) -> Vec<u8> {
    with_length(request.target.as_bytes())
}

fn answers(side: &mut ServerSide) {
    while let Some(request) = side.request() {
        if !side.send(own(&request)) {
            return;
        }
    }
}

/// Answers what comes before the requests that a test is about; the first of those.
fn first(side: &mut ServerSide) -> Option<Request> {
    loop {
        let request = side.request()?;
        if request.target != "/before" {
            return Some(request);
        }
        side.send(own(&request));
    }
}

/// On the connection that had the requests before: all `count` requests, before one of them is answered. On others, which
/// get what is sent again, answers all.
fn batch(side: &mut ServerSide, count: usize) -> Option<Vec<Request>> {
    if side.index() > 0 {
        answers(side);
        return None;
    }
    let mut requests = vec![first(side)?];
    while requests.len() < count {
        requests.push(side.request()?);
    }
    Some(requests)
}

fn times_asked(server: &ScriptedServer) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for request in server.requests() {
        *times.entry(request.target).or_default() += 1;
    }
    times
}

/// Holds a server's replies back until the test says so.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wait(&self) {
        until_true("the gate opens", PATIENCE, || self.0.load(Ordering::Relaxed));
    }
}

#[test]
fn requests_of_different_clients_go_out_behind_one_another_and_each_gets_its_own_reply() {
    const CLIENTS: usize = 8;
    let server = ScriptedServer::start(|side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        let replies: Vec<u8> = requests.iter().flat_map(own).collect();
        side.send(replies);
        answers(side);
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    assert_each_its_own(&mut clients);
    assert_eq!(server.opened(), 1);
    assert_eq!(device.figure(PIPELINED), CLIENTS as u64 - 1);
    assert_eq!(device.figure("/servers/0/in_flight"), 0);
    assert_eq!(device.figure("/server_connections/idle"), 1);
    clients[3].get("/behind").assert_whole(b"/behind");
    assert_eq!(server.opened(), 1, "the connection can be used again");
}

#[test]
fn no_more_than_the_key_says_are_on_one_connection_and_by_default_one_is() {
    for (lines, expected) in [("server_pipeline = 3", 3), ("server_pipeline = 1", 8), ("", 8)] {
        let server = ScriptedServer::start(answers);
        let device = Setup::before(&[server.address()]).workers(1).upstream(lines).start();
        let mut clients = clients(&device, 8);
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
        assert_eq!(server.opened(), expected, "with `{lines}`");
        assert_eq!(device.figure(PIPELINED), 8 - expected as u64, "with `{lines}`");
    }
}

#[test]
fn only_safe_requests_share_a_connection() {
    let server = ScriptedServer::start(answers);
    let device = device(&server, "");
    let mut clients = clients(&device, 7);
    let requests = [
        ("GET", "/0"),
        ("POST", "/1"),
        ("GET", "/2"),
        ("PUT", "/3"),
        ("DELETE", "/4"),
        ("OPTIONS", "/5"),
        ("PATCH", "/6"),
    ];
    at_once(&device, &mut clients, &requests);
    assert_each_its_own(&mut clients);
    let requests = server.requests();
    let connection = |target: &str| requests.iter().find(|request| request.target == target).map(|r| r.connection);
    assert_eq!((connection("/2"), connection("/5")), (connection("/0"), connection("/0")));
    for target in ["/1", "/3", "/4", "/6"] {
        let shared =
            requests.iter().filter(|r| r.target != "/before" && Some(r.connection) == connection(target)).count();
        assert_eq!(shared, 1, "{target} shares its connection");
    }
}

#[test]
fn stacked_requests_of_one_client_have_connections_of_their_own() {
    let server = ScriptedServer::start(answers);
    let device = device(&server, "");
    let mut client = device.client();
    let requests: Vec<u8> = (0..4).flat_map(|number| request("GET", &format!("/{number}"), "", b"")).collect();
    client.send(requests);
    (0..4).for_each(|number| client.reply().assert_whole(format!("/{number}").as_bytes()));
    assert_eq!(device.figure(PIPELINED), 0);
}

/// How a server's connection ends in the middle of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Reset,
    /// Said in the last reply.
    Announced,
    InHead,
    InContent,
    NoHttp,
    SwitchesUnasked,
    UntilClose,
}

#[test]
fn a_connection_that_ends_anywhere_in_a_batch_costs_nobody_behind_its_reply() {
    const CLIENTS: usize = 4;
    let ends = [End::Orderly, End::Reset, End::Announced, End::InHead, End::InContent, End::NoHttp];
    for end in ends.into_iter().chain([End::SwitchesUnasked, End::UntilClose]) {
        for whole in 0..CLIENTS {
            let server = ScriptedServer::start(move |side| {
                let Some(requests) = batch(side, CLIENTS) else { return };
                let mut bytes: Vec<u8> = requests.iter().take(whole).flat_map(own).collect();
                let target = &requests[whole].target;
                match end {
                    End::Orderly | End::Reset => {}
                    End::Announced => bytes.extend(
                        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{target}").as_bytes(),
                    ),
                    End::InHead => bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Le"),
                    End::InContent => bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
                    End::NoHttp => bytes.extend(b"220 mail.example ESMTP\r\n\r\n"),
                    End::SwitchesUnasked => {
                        bytes.extend(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    }
                    End::UntilClose => bytes.extend(format!("HTTP/1.1 200 OK\r\n\r\n{target}").as_bytes()),
                }
                side.send(bytes);
                if end == End::Reset { side.reset() } else { side.close() }
            });
            let device = device(&server, "");
            let mut clients = clients(&device, CLIENTS);
            gets(&device, &mut clients);
            for (client, number) in clients.iter_mut().zip(0..) {
                let reply = client.try_reply("GET");
                // What its server breaks in the middle is a fault of this reply, as it is without any others.
                let alone_at_fault = match end {
                    End::InContent | End::SwitchesUnasked => number == whole,
                    End::InHead | End::NoHttp => number == whole && whole == 0,
                    _ => false,
                };
                match reply {
                    Ok(reply) if !alone_at_fault => reply.assert_whole(format!("/{number}").as_bytes()),
                    Ok(reply) => assert_eq!(reply.status(), 502, "{end:?} behind {whole}"),
                    Err(error) => assert!(alone_at_fault, "{end:?} behind {whole}: client {number}: {error}"),
                }
            }
            let most = times_asked(&server).into_iter().filter(|(target, _)| target != "/before").map(|(_, n)| n).max();
            assert!(most <= Some(3), "{end:?} behind {whole}: one request was sent {most:?} times");
            device.wait_until_at_rest(PATIENCE);
        }
    }
}

#[test]
fn a_client_that_leaves_takes_nobody_elses_reply_with_it() {
    const CLIENTS: usize = 4;
    for leaves in 0..CLIENTS {
        let gate = Gate::default();
        let closed = gate.clone();
        let server = ScriptedServer::start(move |side| {
            let Some(requests) = batch(side, CLIENTS) else { return };
            closed.wait();
            side.send(requests.iter().flat_map(own).collect::<Vec<u8>>());
            answers(side);
        });
        let device = device(&server, "");
        let mut clients = clients(&device, CLIENTS);
        gets(&device, &mut clients);
        server.wait_for(2 * CLIENTS);
        let mut behind = clients.split_off(leaves + 1);
        clients.pop().expect("the one that leaves").into_wire().reset();
        assert_its_own_from(leaves + 1, &mut behind);
        gate.open();
        assert_each_its_own(&mut clients);
        device.wait_until_at_rest(PATIENCE);
    }
}

#[test]
fn a_slow_reply_holds_up_nobody_for_long_and_is_asked_for_once() {
    const CLIENTS: usize = 6;
    let gate = Gate::default();
    let closed = gate.clone();
    let server = ScriptedServer::start(move |side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        closed.wait();
        side.send(requests.iter().flat_map(own).collect::<Vec<u8>>());
        side.wait_closed();
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    assert_its_own_from(1, &mut clients[1..]);
    gate.open();
    clients[0].reply().assert_whole(b"/0");
    let times = times_asked(&server);
    assert_eq!(times["/0"], 1);
    assert!(times.iter().all(|(target, times)| target == "/before" || *times <= 2), "{times:?}");
    // The replies that nobody waits for any more are not taken for others.
    clients[0].get("/behind").assert_whole(b"/behind");
}

#[test]
fn requests_stop_sharing_connections_to_a_slow_server() {
    const CLIENTS: usize = 4;
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target != "/before" {
                thread::sleep(Duration::from_millis(20));
            }
            side.send(own(&request));
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    let mut shared = Vec::new();
    for _ in 0..20 {
        let before = device.figure(PIPELINED);
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
        shared.push(device.figure(PIPELINED) - before);
    }
    assert_eq!(shared[0], CLIENTS as u64 - 1);
    // One finds out now and then.
    assert!(shared[10..].iter().sum::<u64>() <= 3, "{shared:?}");
}

#[test]
fn a_long_reply_to_a_client_that_does_not_read_holds_up_nobody() {
    const CLIENTS: usize = 4;
    const LENGTH: u64 = 8 << 20;
    let server = ScriptedServer::start(|side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        let long = bytes(LENGTH);
        if side.send(with_length(&long)) {
            side.send(requests.iter().skip(1).flat_map(own).collect::<Vec<u8>>());
        }
        side.wait_closed();
    });
    let device = device(&server, "hold_size = \"64KiB\"");
    let mut clients = clients(&device, CLIENTS);
    let mut reader = Client::connect_slow(device.address(), 4096);
    reader.get("/before").assert_whole(b"/before");
    std::mem::swap(&mut clients[0], &mut reader);
    gets(&device, &mut clients);
    assert_its_own_from(1, &mut clients[1..]);
    clients[0].reply().assert_whole(&bytes(LENGTH));
}

#[test]
fn every_kind_of_reply_ends_where_it_ends() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let reply = match request.target.as_str() {
                "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n".to_vec(),
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
                "/chunked" => chunked(&[b"in ", b"chunks"]),
                "/empty" => with_length(b""),
                "/early" => [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(), with_length(b"late")].concat(),
                "/long" => with_length(&bytes(600_000)),
                _ if request.method == "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
                _ => own(&request),
            };
            if !side.send(reply) {
                return;
            }
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, 8);
    let requests = ["/304", "/204", "/chunked", "/empty", "/early", "/long", "/head", "/after"];
    let requests: Vec<_> =
        requests.into_iter().map(|target| (if target == "/head" { "HEAD" } else { "GET" }, target)).collect();
    for _ in 0..20 {
        at_once(&device, &mut clients, &requests);
        let replies: Vec<Reply> =
            clients.iter_mut().zip(&requests).map(|(client, (method, _))| client.reply_to(method)).collect();
        assert_eq!((replies[0].status(), replies[0].head.framing), (304, Framing::NoContent));
        assert_eq!((replies[1].status(), replies[1].head.framing), (204, Framing::NoContent));
        replies[2].assert_whole(b"in chunks");
        replies[3].assert_whole(b"");
        replies[4].assert_whole(b"late");
        replies[5].assert_whole(&bytes(600_000));
        assert_eq!(replies[6].fields().only("content-length").as_deref(), Some("1000"));
        replies[7].assert_whole(b"/after");
    }
    assert!(device.figure(PIPELINED) >= 20, "{}", device.status());
}

#[test]
fn content_in_a_reply_to_head_is_nobodys_reply() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let smuggled = with_length(b"smuggled");
            let reply = if request.method == "HEAD" { with_length(&smuggled) } else { own(&request) };
            if !side.send(reply) {
                return;
            }
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, 6);
    for _ in 0..20 {
        let requests = [("GET", "/0"), ("HEAD", "/1"), ("GET", "/2"), ("GET", "/3"), ("HEAD", "/4"), ("GET", "/5")];
        at_once(&device, &mut clients, &requests);
        for ((client, (method, target)), number) in clients.iter_mut().zip(requests).zip(0..) {
            let reply = client.reply_to(method);
            assert!(method == "HEAD" || reply.text() == target, "client {number}: {reply:?}");
        }
    }
}

#[test]
fn requests_that_a_server_forgets_are_sent_again() {
    const CLIENTS: usize = 4;
    let server = ScriptedServer::start(|side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        side.send(own(&requests[0]));
        side.wait_closed();
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    assert_each_its_own(&mut clients);
}

#[test]
fn a_server_that_closes_behind_each_reply_is_found_out_and_gets_one_request_a_connection() {
    const CLIENTS: usize = 8;
    let server = ScriptedServer::start(|side| {
        if let Some(request) = side.request() {
            side.send(own(&request));
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    for _ in 0..3 {
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
    }
    let found_out = device.figure(PIPELINED);
    for _ in 0..5 {
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
    }
    assert_eq!(device.figure(PIPELINED), found_out);
    let told = device.output().lines().filter(|line| line.contains("ends connections on which requests wait")).count();
    assert_eq!(told, 1, "{}", device.output());
}

#[test]
fn requests_behind_one_another_count_as_in_flight_and_keep_to_max_requests() {
    const CLIENTS: usize = 6;
    let gate = Gate::default();
    let closed = gate.clone();
    let server = ScriptedServer::start(move |side| {
        while let Some(request) = side.request() {
            if request.target != "/before" {
                closed.wait();
            }
            side.send(own(&request));
        }
    });
    let only = format!("address = \"{}\", max_requests = 3", server.address());
    let none: [&str; 0] = [];
    let device = Setup::before(&none).server(&only).workers(1).upstream("server_pipeline = 8").start();
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    let status = until("the others wait", PATIENCE, || {
        let status = device.status();
        (status["jobs"]["queued"] == 3).then_some(status)
    });
    assert_eq!(status["servers"][0]["in_flight"], 3, "{status}");
    gate.open();
    assert_each_its_own(&mut clients);
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_server_that_ends_connections_at_random_points_answers_10_000_requests_of_64_clients_that_leave_now_and_then() {
    const CLIENTS: usize = 64;
    const EACH: usize = 10_000 / CLIENTS + 1;
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let length = request.target.len();
            let announced =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}", request.target);
            match fastrand::u32(..200) {
                0 => return,
                1 => return side.reset(),
                2 => {
                    side.send(announced);
                    return;
                }
                3 => {
                    side.send(own(&request));
                    return;
                }
                4 => {
                    side.send(own(&request));
                    return side.reset();
                }
                number => {
                    let reply = if number % 2 == 0 { own(&request) } else { chunked(&[request.target.as_bytes()]) };
                    if !side.send(reply) {
                        return;
                    }
                }
            }
        }
    });
    let device = Setup::before(&[server.address()]).upstream("server_pipeline = 8\nretries = 10").start();
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (device, wrong) = (&device, &wrong);
            scope.spawn(move || {
                let mut client = device.client();
                for turn in 0..EACH {
                    let target = format!("/{number}/{turn}");
                    if fastrand::u32(..100) == 0 {
                        client.send(request("GET", &format!("{target}/gone"), "", b""));
                        client = device.client();
                    }
                    let reply = client.get(&target);
                    if reply.status() != 200 || reply.text() != target {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let status = device.status();
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "{status}");
    assert!(device.figure(PIPELINED) > 100, "{status}");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn nginx_answers_clients_that_share_its_connections() {
    let nginx = Nginx::start("keepalive_requests 50;");
    let pages: Vec<Vec<u8>> = [0, 1, 1000, 20_000, 70_000, 400_000].into_iter().map(bytes).collect();
    for page in &pages {
        nginx.put(&page.len().to_string(), page);
    }
    for kernel in ["off", "auto"] {
        let setup = Setup::before(&[nginx.address()]).workers(1).kernel(kernel, "");
        ask_nginx(&setup.upstream("server_pipeline = 16").start(), &pages);
    }
}

fn ask_nginx(device: &Device, pages: &[Vec<u8>]) {
    thread::scope(|scope| {
        for number in 0..32 {
            scope.spawn(move || {
                let mut client = device.client();
                for turn in 0..60 {
                    let page = &pages[(number + turn) % pages.len()];
                    client.get(&format!("/{}", page.len())).assert_whole(page);
                }
            });
        }
    });
    assert!(device.figure(PIPELINED) > 100, "{}", device.status());
    device.wait_until_at_rest(PATIENCE);
}
