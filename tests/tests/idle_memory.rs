//! What an idle keep-alive client connection costs: at most 3 KiB of the daemon's RAM, whatever it did before, and much less
//! once it is parked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::{Device, ScriptedServer, Setup, skip};
use rustix::process::{Resource, getrlimit};

/// As many as the issue wants, or as the limit on descriptors leaves room for.
const MOST_CONNECTIONS: u64 = 8_000;
/// Descriptors that this process and the device need for other things.
const SPARE: u64 = 1_000;
const ALLOWED: u64 = 3 * 1024;
/// Half of what HAProxy needs (`cargo xtask bench idle`).
const ALLOWED_PARKED: u64 = 550;
/// In which freed memory has to be back.
const SETTLING: Duration = Duration::from_secs(5);

fn connections() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    MOST_CONNECTIONS.min(limit.saturating_sub(SPARE))
}

/// Sends `asked` on a connection and reads a reply to its end: by hand, because a [`cmim_tests::Client`] of each of these
/// would keep more memory here than the device does.
fn ask(stream: &mut TcpStream, asked: &[u8], content: usize) {
    stream.write_all(asked).expect("a request");
    let mut got = Vec::with_capacity(content + 512);
    let mut part = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut part).expect("a reply");
        assert!(count > 0, "closed after `{}`", got.escape_ascii());
        got.extend_from_slice(&part[..count]);
        if let Some(at) = got.windows(4).take(2048).position(|window| window == b"\r\n\r\n") {
            assert!(got.starts_with(b"HTTP/1.1 200 "), "`{}`", got[..at].escape_ascii());
            if got.len() == at + 4 + content {
                return;
            }
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// Opens `count` connections beside the one that is there.
fn connect_all(device: &Device, count: u64) -> Vec<TcpStream> {
    let all = (0..count).map(|_| connect(device.address())).collect();
    until_true("all are open", PATIENCE, || device.figure("/client_connections/open") == count + 1);
    all
}

/// Bytes a connection above `before`, once they have stopped falling.
fn cost(device: &Device, before: u64, count: u64) -> u64 {
    device.wait_until_at_rest(PATIENCE);
    let each = || device.resident().saturating_sub(before) / count;
    let end = Instant::now() + SETTLING;
    let mut least = each();
    while least > ALLOWED && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        least = least.min(each());
    }
    least
}

#[test]
fn an_idle_connection_costs_at_most_3_kib() {
    let name = "an_idle_connection_costs_at_most_3_kib";
    let count = connections();
    if count < MOST_CONNECTIONS / 8 {
        skip::skipped(name, &format!("the limit on descriptors leaves {count} connections (ulimit -n)"));
        return;
    }
    let large = vec![b'x'; 100_000];
    let server = ScriptedServer::start(replies(move |request| {
        with_length(if request.target == "/large" { &large } else { b"ok" })
    }));
    let device = Setup::before(&[server.address()]).timeouts("client_idle = \"10m\"").start();
    let small = b"GET /small HTTP/1.1\r\nHost: test.example\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n";
    let much = b"GET /large HTTP/1.1\r\nHost: test.example\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n";
    let mut first = connect(device.address());
    ask(&mut first, small, 2);
    ask(&mut first, much, 100_000);
    let before = device.resident();

    let mut all = connect_all(&device, count);
    let silent = cost(&device, before, count);
    for stream in &mut all {
        ask(stream, small, 2);
    }
    let asked = cost(&device, before, count);
    for stream in all.iter_mut().step_by(8) {
        ask(stream, much, 100_000);
    }
    let busier = cost(&device, before, count);
    drop(all);
    until_true("all are closed", PATIENCE, || device.figure("/client_connections/open") == 1);
    let left = device.resident();
    // What their successors cost shows whether anything was left behind.
    let mut all = connect_all(&device, count);
    for stream in &mut all {
        ask(stream, small, 2);
    }
    let again = cost(&device, before, count);
    let each = || device.resident().saturating_sub(before) / count;
    until_true("parked connections are small", PATIENCE, || each() <= ALLOWED_PARKED);
    let parked = each();
    for stream in &mut all {
        ask(stream, small, 2);
    }
    skip::measured(
        name,
        &format!(
            "{count} connections: {silent} bytes each before a request, {asked} after a small reply, {busier} after \
             every eighth had one of 100 KB, {again} the second time, {parked} parked; {before} resident before, {left} after they left"
        ),
    );
    assert!(silent <= ALLOWED, "{silent} bytes a connection that asked for nothing yet");
    assert!(asked <= ALLOWED && busier <= ALLOWED, "{asked} and {busier} bytes a connection");
    assert!(again <= ALLOWED, "{again} bytes a connection, the second time");
}
