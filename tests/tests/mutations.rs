//! Random damage to requests and replies: the device lives, and what it lets through is flawless HTTP/1.1.
//!
//! The seed is printed with a failure; `CMIM_TEST_SEED` plays it again.

use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::origin::faulty::{chunk, ok, with_length};
use cmim_tests::wire::WireError;
use cmim_tests::{ScriptedServer, Setup};
use fastrand::Rng;

const ROUNDS: usize = 1500;

/// Bytes that parsers differ over.
const PIECES: [&[u8]; 22] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\xff",
    b"0",
    b"+",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.0",
    b"1\r\na\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
];

fn seed() -> u64 {
    std::env::var("CMIM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

/// One to four changes: a byte replaced or lost, a piece put in, a stretch doubled, the end cut off.
fn damaged(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    for _ in 0..random.usize(1..=4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.usize(..bytes.len());
        let end = (at + random.usize(1..8)).min(bytes.len());
        match random.u8(..5) {
            0 => bytes[at] = random.u8(..),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = PIECES[random.usize(..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            3 => {
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
            _ if random.u8(..4) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}

fn requests() -> Vec<Vec<u8>> {
    vec![
        request("GET", "/get?x=y", "X-A: 1\r\nX-A: 2\r\nConnection: keep-alive, X-B\r\nX-B: 3\r\n", b""),
        request("POST", "/post", "Expect: 100-continue\r\n", b"content"),
        b"PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
            .to_vec(),
        b"GET http://b.example/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        b"HEAD / HTTP/1.1\r\nHost: [::1]:80\r\nForwarded: for=a;by=b\r\nX-Forwarded-For: c\r\nVia: 1.0 d\r\n\r\n"
            .to_vec(),
        b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n".to_vec(),
    ]
}

#[test]
fn whatever_a_client_sends_the_server_gets_flawless_requests() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).listener("trusted_proxies = [\"127.0.0.0/8\"]").start();
    let seed = seed();
    let mut random = Rng::with_seed(seed);
    let requests = requests();
    for round in 0..ROUNDS {
        let first = damaged(requests[random.usize(..requests.len())].clone(), &mut random);
        let sent = [first, requests[random.usize(..requests.len())].clone()].concat();
        let mut client = device.client();
        // The device may close before all is sent.
        let _ = client.wire().send(&sent);
        let _ = client.wire().finish_sending();
        let outcome = loop {
            match client.try_reply("GET") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let sent = sent.escape_ascii().to_string();
        assert!(!matches!(outcome, WireError::Deadline(_)), "seed {seed} round {round}: no end of `{sent}`");
        let faults: Vec<String> = server.faults().into_iter().filter(|fault| fault.contains("not HTTP")).collect();
        assert!(faults.is_empty(), "seed {seed} round {round}: `{sent}` became {faults:?}");
    }
    device.client().get("/alive").assert_whole(b"ok");
}

fn replies() -> Vec<Vec<u8>> {
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n".to_vec();
    chunked.extend(chunk(b"hello "));
    chunked.extend(chunk(b"world"));
    chunked.extend_from_slice(b"0\r\nX-T: 1\r\n\r\n");
    vec![
        with_length(b"hello world"),
        chunked,
        b"HTTP/1.1 200 OK\r\nConnection: close, X-B\r\nX-B: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nhello world"
            .to_vec(),
        b"HTTP/1.0 200 OK\r\nVia: 1.0 inner\r\n\r\nhello world".to_vec(),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n".to_vec(),
    ]
}

#[test]
fn whatever_a_server_sends_the_client_gets_flawless_replies() {
    let seed = seed();
    let random = std::sync::Mutex::new(Rng::with_seed(seed));
    let server = ScriptedServer::start(move |side| {
        while let Some(request) = side.request() {
            if request.target == "/alive" {
                side.send(with_length(b"ok"));
                continue;
            }
            let reply = {
                let mut random = random.lock().expect("the random numbers");
                let replies = replies();
                damaged(replies[random.usize(..replies.len())].clone(), &mut random)
            };
            if !side.send(reply) || request.target == "/last" {
                return;
            }
        }
    });
    let device = Setup::before(&[server.address()])
        .upstream("hold_time = \"20ms\"")
        .timeouts("server_first_byte = \"50ms\"\nserver_idle = \"50ms\"")
        .start();
    let mut client = device.client();
    for round in 0..ROUNDS {
        client.wire().set_patience(Duration::from_secs(5));
        client.send(request("GET", if round % 2 == 0 { "/" } else { "/last" }, "", b""));
        match client.try_reply("GET") {
            Ok(_) => {}
            // A reply cut short by its server: the next request needs a new connection.
            Err(WireError::Closed | WireError::Cut | WireError::Reset) => client = device.client(),
            Err(error) => panic!("seed {seed} round {round}: {error}"),
        }
    }
    device.client().get("/alive").assert_whole(b"ok");
}
