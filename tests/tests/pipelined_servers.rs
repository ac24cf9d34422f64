//! docs/http.md, "Pipelining towards servers": requests of different clients behind one another on one server connection,
//! and each client gets its own reply, whatever the server or the other clients do.

use std::thread;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until};
use cmim_tests::origin::faulty::{chunked, with_length};
use cmim_tests::pipelined::{
    Gate, PIPELINED, answers, assert_each_its_own, at_once, batch, bytes, clients, device, gets, own,
};
use cmim_tests::{Device, Framing, Nginx, Reply, ScriptedServer, Setup};

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
