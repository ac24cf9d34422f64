//! Where the device listens and where its servers are: IPv4, IPv6, Unix sockets, several listeners.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, ScriptedServer, Setup};
use socket2::{Domain, SockAddr, Socket, Type};

fn named(name: &'static str) -> impl Fn(&mut cmim_tests::ServerSide) {
    replies(move |_| with_length(name.as_bytes()))
}

#[test]
fn a_server_behind_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = ScriptedServer::unix(&directory.path().join("app.sock"), named("unix"));
    let device = Setup::before(&[server.address()]).start();
    let mut client = device.client();
    for _ in 0..20 {
        client.get("/").assert_whole(b"unix");
    }
    assert_eq!(client.ask("POST", "/", "", &vec![b'x'; 1_000_000]).status(), 200);
    assert_eq!(server.opened(), 1);
    assert_eq!(device.status()["servers"][0]["address"], server.address());
}

#[test]
fn a_unix_socket_that_is_gone_is_a_server_that_is_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let device = Setup::before(&[format!("unix:{}", path.display())]).start();
    let mut client = device.client();
    assert!(matches!(client.get("/").status(), 502 | 503));
    let _server = ScriptedServer::unix(&path, named("unix"));
    until_true("the socket is found", PATIENCE, || client.get("/").status() == 200);
}

/// A Unix socket that takes two connections into its accept queue and no more.
fn crowded(path: &Path) -> UnixListener {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener.bind(&SockAddr::unix(path).expect("a short path")).expect("a fresh path");
    listener.listen(1).expect("listening");
    OwnedFd::from(listener).into()
}

/// Answers one request of no content, and closes.
fn answer_one(mut stream: UnixStream) {
    let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
    while !asked.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut piece).expect("a request");
        assert!(count > 0, "the device left in the middle of a head");
        asked.extend_from_slice(&piece[..count]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").expect("the device");
}

#[test]
fn a_unix_server_whose_accept_queue_is_full_is_waited_for() {
    const CLIENTS: usize = 12;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let listener = crowded(&path);
    let device = Setup::before(&[format!("unix:{}", path.display())]).timeouts("server_connect = \"20s\"").start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| device.client()).collect();
    for client in &mut clients {
        client.send(request("GET", "/", "", b""));
    }
    until_true("all are at the server", PATIENCE, || device.figure("/servers/0/in_flight") == CLIENTS as u64);
    thread::spawn(move || {
        for stream in listener.incoming().take(CLIENTS) {
            answer_one(stream.expect("a connection"));
        }
    });
    for client in &mut clients {
        client.reply().assert_whole(b"ok");
    }
    assert_eq!(device.figure("/servers/0/failures_total"), 0);
}

#[test]
fn a_unix_server_that_never_accepts_is_504() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let _listener = crowded(&path);
    let _before = [(); 2].map(|()| UnixStream::connect(&path).expect("a place in the queue"));
    let device = Setup::before(&[format!("unix:{}", path.display())])
        .timeouts("server_connect = \"200ms\"")
        .upstream("retries = 0")
        .start();
    assert_eq!(device.client().get("/").status(), 504);
}

#[test]
fn an_ipv6_listener_and_an_ipv6_server() {
    let server = ScriptedServer::at((Ipv6Addr::LOCALHOST, 0).into(), named("v6"));
    let device = Setup::before(&[server.address()]).listen_on(IpAddr::V6(Ipv6Addr::LOCALHOST)).start();
    device.client().get("/").assert_whole(b"v6");
    let got = server.wait_for(1);
    assert_eq!(got.fields.joined("x-forwarded-for"), "::1");
    // RFC 7239 6: an IPv6 address is bracketed and quoted.
    assert!(got.fields.joined("forwarded").contains("for=\"[::1]\""), "{:?}", got.fields);
}

#[test]
fn one_listener_with_an_address_of_each_family() {
    let server = ScriptedServer::start(named("both"));
    let device = Setup::before(&[server.address()])
        .listen_on(IpAddr::from([127, 0, 0, 1]))
        .listen_on(IpAddr::V6(Ipv6Addr::LOCALHOST))
        .start();
    for address in device.addresses() {
        Client::connect(*address).get("/").assert_whole(b"both");
    }
}

#[test]
fn two_listeners_with_an_upstream_each() {
    let (first, second) = (ScriptedServer::start(named("first")), ScriptedServer::start(named("second")));
    let port = Reserved::v4();
    let device = Setup::before(&[first.address()])
        .tables(&format!(
            "[[listener]]\nname = \"other\"\naddress = [\"{}\"]\nupstream = \"other\"\n\
             [[upstream]]\nname = \"other\"\nservers = [{{ address = \"{}\" }}]",
            port.address(),
            second.address()
        ))
        .start();
    device.client().get("/").assert_whole(b"first");
    let mut other = Client::connect(port.address());
    other.get("/").assert_whole(b"second");
    let connections = device.json(&["connections"]);
    assert!(
        connections.as_array().is_some_and(|all| all.iter().any(|one| one["listener"] == "other")),
        "{connections}"
    );
}

#[test]
fn many_connections_are_spread_over_the_workers() {
    let server = ScriptedServer::start(named("ok"));
    let device = Setup::before(&[server.address()]).start();
    let mut clients: Vec<Client> = (0..200).map(|_| device.client()).collect();
    for client in &mut clients {
        client.get("/").assert_whole(b"ok");
    }
    assert_eq!(device.figure("/client_connections/open"), 200);
    assert_eq!(device.figure("/workers"), 2);
}
