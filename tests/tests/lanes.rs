//! Section 9, lanes: whichever carries a content, the client gets it to the byte, both connections go on, and a client
//! that stops reading stops its server.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, throughout, until, until_true};
use cmim_tests::origin::ServerSide;
use cmim_tests::pattern::Pattern;
use cmim_tests::skip::{measured, skipped, without_root};
use cmim_tests::{Client, Device, ScriptedServer, Setup};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// `kernel.splice` and the name in the status of the lane that it leads to.
const COPY: (&str, &str) = ("off", "copy");
const PIPE: (&str, &str) = ("pipe", "pipe");
const SOCKMAP: (&str, &str) = ("sockmap", "sockmap");
/// The local lane is no choice of a splice's: a connection begins on it.
const LOCAL: (&str, &str) = ("auto", "local");
/// Answered with a few bytes, behind which the server closes.
const LAST: &str = "/last";

/// Contents of each lane, and the longest of them. `CMIM_LANE_CONTENTS=1000 CMIM_LANE_LONGEST=52428800` is the long run.
const CONTENTS: u64 = 60;
const LONGEST: u64 = 8 * MIB;
const SHORTEST: u64 = 64 * KIB;
const SPLICE_WINDOW: u64 = MIB;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

fn device(lane: (&str, &str), server: &ScriptedServer) -> Device {
    let mode = if lane == SOCKMAP || lane == LOCAL { "auto" } else { "off" };
    let bypass = if lane == LOCAL { "on" } else { "off" };
    let keys = format!("splice = \"{}\"\nlocal_bypass = \"{bypass}\"", lane.0);
    Setup::before(&[server.address()]).kernel(mode, &keys).start()
}

/// Whether this host has the local lane; where not, that is said.
fn without_local_lane(test: &str) -> bool {
    if without_root(test) {
        return true;
    }
    let server = server();
    let device = device(LOCAL, &server);
    let on = device.has_program("cmim_local_msg");
    if !on {
        skipped(test, &format!("no local lane here: {}", device.status()["kernel"]["missing"]));
    }
    !on
}

/// Answers each request with the content that its target names, pausing now and then; the connection stays.
fn server() -> ScriptedServer {
    ScriptedServer::start(|side| while serve_one(side, &|_| {}).is_some() {})
}

/// `None`: the connection is over. `before` is called before each piece with the position from which it goes on.
fn serve_one(side: &mut ServerSide, before: &dyn Fn(u64)) -> Option<()> {
    let asked = side.request()?;
    if asked.target == LAST {
        side.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        return None;
    }
    let pattern = Pattern::of_target(&asked.target);
    let mut sent = side.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", pattern.length));
    let mut at = 0;
    let mut dice = fastrand::Rng::with_seed(pattern.seed as u64);
    while sent && at < pattern.length {
        before(at);
        // Pieces of all sizes, so that no boundary falls where another does.
        let piece = pattern.piece(at);
        let piece = &piece[..piece.len().min(dice.usize(1..=256 * 1024))];
        if dice.u8(..) < 6 {
            thread::sleep(Duration::from_millis(2));
        }
        sent = side.send(piece);
        at += piece.len() as u64;
    }
    sent.then_some(())
}

/// Sizes spread evenly over their orders of magnitude.
fn length(dice: &mut fastrand::Rng, longest: u64) -> u64 {
    let doublings = (longest as f64 / SHORTEST as f64).log2();
    ((SHORTEST as f64 * (dice.f64() * doublings).exp2()) as u64).min(longest)
}

/// One client connection after the other asks for contents; some leave in the middle, some half-close behind the last.
fn contents_of_all_sizes(lane: (&str, &str)) {
    let (contents, longest) = (setting("CMIM_LANE_CONTENTS", CONTENTS), setting("CMIM_LANE_LONGEST", LONGEST));
    let server = server();
    let device = device(lane, &server);
    let seed = setting("CMIM_TEST_SEED", u64::from(fastrand::u32(..)));
    println!("CMIM_TEST_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut client, mut left, mut done, mut sum) = (device.client(), 0, 0, 0);
    while done < contents {
        let pattern = Pattern::new(dice.usize(..1000), length(&mut dice, longest));
        client.send(request("GET", &pattern.target("length"), "", b""));
        let half_closed = dice.u8(..) < 20;
        if half_closed {
            client.wire().finish_sending().expect("half-closing");
        }
        let head = client.head("GET");
        assert_eq!(head.status, 200, "{head:?}");
        if dice.u8(..) < 20 {
            let some = dice.u64(..pattern.length / 2);
            let mut check = pattern.check();
            client.wire().exactly(some, &mut |part| check.feed(part)).expect("a part");
            check.assert_right_so_far();
            client.into_wire().reset();
            (client, left) = (device.client(), left + 1);
            continue;
        }
        pattern.assert_follows(&head, &mut client);
        done += 1;
        sum += pattern.length;
        if half_closed {
            client = device.client();
        }
        if lane == LOCAL {
            // A connection of large contents would leave the lane: this one is used once more, the next has a new one.
            assert_eq!(client.get(LAST).status(), 200);
        }
    }
    let connections = left + if lane == LOCAL { contents as usize } else { 1 };
    assert!(server.opened() <= connections, "{} server connections, {left} clients left", server.opened());
    // Whoever leaves in the middle is followed by a reset at the server; on the local lane a read that waits there
    // learns of it by EAGAIN. Had the server given up another connection for that, it would have been one more.
    let is_reset = |fault: &str| fault.ends_with("was reset") || (lane == LOCAL && fault.contains("nothing came"));
    let faults: Vec<String> = server.faults().into_iter().filter(|fault| !is_reset(fault)).collect();
    assert_eq!(faults, Vec::<String>::new());
    let at_rest = device.wait_until_at_rest(PATIENCE);
    let status = device.status();
    let used = &status["lanes"][lane.1];
    assert!(used["splices_total"].as_u64() >= Some(contents), "{}: {status}", lane.1);
    assert_eq!(used["active"], 0, "after {at_rest:?}: {status}");
    // What the local lane's reader is behind with goes by TCP, in order with what does not.
    let least = if lane == LOCAL { contents * SHORTEST / 4 } else { sum };
    assert!(used["bytes_total"].as_u64() >= Some(least), "{least}: {status}");
}

#[test]
fn contents_of_all_sizes_arrive_to_the_byte_by_copy() {
    contents_of_all_sizes(COPY);
}

#[test]
fn contents_of_all_sizes_arrive_to_the_byte_by_pipe() {
    contents_of_all_sizes(PIPE);
}

#[test]
fn contents_of_all_sizes_arrive_to_the_byte_by_sockmap() {
    if !without_root("contents_of_all_sizes_arrive_to_the_byte_by_sockmap") {
        contents_of_all_sizes(SOCKMAP);
    }
}

#[test]
fn contents_of_all_sizes_arrive_to_the_byte_by_the_local_lane() {
    if !without_local_lane("contents_of_all_sizes_arrive_to_the_byte_by_the_local_lane") {
        contents_of_all_sizes(LOCAL);
    }
}

/// The kernel's limits on what one connection's two sockets may hold for it, and the device's own pieces in between.
fn most_in_flight() -> u64 {
    let most_of = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("a sysctl");
        text.split_whitespace().last().and_then(|most| most.parse::<u64>().ok()).expect("three numbers")
    };
    // Two connections, each with a sender's and a receiver's buffer.
    2 * (most_of("tcp_rmem") + most_of("tcp_wmem")) + SPLICE_WINDOW + 512 * KIB
}

fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("MemAvailable");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("kilobytes") * KIB
}

/// LANE of every line of `cmim connections`.
fn lanes_of_connections(device: &Device) -> Vec<String> {
    let listed = device.json(&["connections"]);
    let lanes = listed.as_array().expect("a list").iter().map(|connection| connection["lane"].as_str());
    lanes.map(|lane| lane.expect("a text").to_owned()).collect()
}

/// IN and OUT of the only line of `cmim connections`.
fn bytes_of_the_connection(device: &Device) -> [u64; 2] {
    let listed = device.json(&["connections"]);
    ["bytes_in", "bytes_out"].map(|field| listed[0][field].as_u64().expect("a number"))
}

fn clients_that_stop_reading(lane: (&str, &str)) {
    const CLIENTS: usize = 4;
    const CONTENT: u64 = 2048 * MIB;
    let sent: Arc<[AtomicU64; CLIENTS]> = Arc::default();
    let counted = Arc::clone(&sent);
    let next = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |side| {
        let own = next.fetch_add(1, Ordering::SeqCst);
        serve_one(side, &|at| counted[own].store(at, Ordering::SeqCst));
    });
    let device = device(lane, &server);
    let before = available_memory();
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = device.client();
            client.send(request("GET", &Pattern::new(number, CONTENT).target("length"), "", b""));
            client.head("GET");
            client
        })
        .collect();
    let now = || sent.each_ref().map(|sent| sent.load(Ordering::SeqCst));
    // What a server can send it has sent, once nothing more has gone for a while.
    let stopped = until("the servers are made to wait", Duration::from_secs(20), || {
        let earlier = now();
        thread::sleep(Duration::from_millis(400));
        (earlier.iter().all(|&sent| sent > 0) && earlier == now()).then_some(earlier)
    });
    let bound = most_in_flight();
    let fallen = before.saturating_sub(available_memory());
    let figures = format!(
        "stopped clients of 2 GiB each, lane {}: their servers sent {:?} KiB (bound {} KiB); {} KiB less memory",
        lane.1,
        stopped.map(|sent| sent / KIB),
        bound / KIB,
        fallen / KIB,
    );
    measured("clients_that_stop_reading", &figures);
    assert_eq!(lanes_of_connections(&device), vec![lane.1; CLIENTS]);
    assert!(stopped.iter().all(|&sent| sent <= bound), "{figures}");
    // Other tests run beside; the 8 GiB would show all the same.
    assert!(fallen < 1024 * MIB, "{figures}");
    throughout("they go on waiting", Duration::from_millis(300), || now() == stopped);
    drop(clients);
    device.wait_until_at_rest(PATIENCE);
    until_true("the servers are free", PATIENCE, || server.open() == 0);
}

#[test]
fn a_client_that_stops_reading_stops_its_server_by_copy() {
    clients_that_stop_reading(COPY);
}

#[test]
fn a_client_that_stops_reading_stops_its_server_by_pipe() {
    clients_that_stop_reading(PIPE);
}

#[test]
fn a_client_that_stops_reading_stops_its_server_by_sockmap() {
    if !without_root("a_client_that_stops_reading_stops_its_server_by_sockmap") {
        clients_that_stop_reading(SOCKMAP);
    }
}

#[test]
fn a_client_that_stops_reading_stops_its_server_by_the_local_lane() {
    if !without_local_lane("a_client_that_stops_reading_stops_its_server_by_the_local_lane") {
        clients_that_stop_reading(LOCAL);
    }
}

#[test]
fn connections_lists_a_tunnel_with_its_lane_and_bytes_and_an_idle_client_without() {
    const REPLY: usize = 100_000;
    let name = "connections_lists_a_tunnel_with_its_lane_and_bytes_and_an_idle_client_without";
    let server = ScriptedServer::start(|side| {
        if side.request().is_some() {
            side.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n");
            side.wire().exactly(5, &mut |_| ()).expect("a question");
            side.send(vec![7; REPLY]);
            side.wait_closed();
        }
    });
    for lane in [COPY, PIPE, SOCKMAP] {
        if lane == SOCKMAP && without_root(name) {
            return;
        }
        let device = device(lane, &server);
        let mut client = device.client();
        until_true("it is listed", PATIENCE, || lanes_of_connections(&device) == [""]);
        client.send(request("GET", "/", "Connection: Upgrade\r\nUpgrade: raw\r\n", b""));
        assert_eq!(client.head("GET").status, 101);
        until_true("the lane is shown", PATIENCE, || lanes_of_connections(&device) == [lane.1]);
        let before = bytes_of_the_connection(&device);
        client.send("ask\r\n");
        client.wire().exactly(REPLY as u64, &mut |_| ()).expect("an answer");
        // What the kernel carries it counts a moment later.
        let expected = [before[0] + 5, before[1] + REPLY as u64];
        until_true("its bytes are shown", PATIENCE, || bytes_of_the_connection(&device) == expected);
    }
}

/// A content that the buffers can take whole leaves the pipe for them, and its server is free.
#[test]
fn a_slow_client_of_a_content_that_fits_the_buffers_frees_its_server() {
    let server = server();
    let device = device(PIPE, &server);
    let pattern = Pattern::new(7, 24 * MIB);
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", &pattern.target("length"), "", b""));
    let head = client.head("GET");
    until_true("the server is idle again", PATIENCE, || {
        let status = device.status();
        status["servers"][0]["in_flight"] == 0 && status["server_connections"]["idle"] == 1
    });
    assert!(device.figure("/buffers/memory/used") > MIB);
    client.wire().socket().set_recv_buffer_size(1 << 20).expect("a receive buffer");
    pattern.assert_follows(&head, &mut client);
    device.wait_until_at_rest(PATIENCE);
    assert_eq!(device.figure("/lanes/pipe/bytes_total"), pattern.length);
}

/// What its last bytes say of a content decides over both connections, on every lane.
fn ends(lane: (&str, &str)) {
    let server = ScriptedServer::start(|side| {
        let Some(asked) = side.request() else { return };
        let pattern = Pattern::of_target(&asked.target);
        side.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", pattern.length));
        let bytes = pattern.bytes();
        match asked.target.split('/').nth(1) {
            Some("past") => {
                side.send([&bytes[..], b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"].concat());
                side.wait_closed();
            }
            Some("short") => {
                side.send(&bytes[..bytes.len() - 1]);
            }
            Some("reset") => {
                side.send(&bytes[..bytes.len() / 2]);
                side.reset();
            }
            other => panic!("no such end: {other:?}"),
        }
    });
    let device = device(lane, &server);
    let pattern = Pattern::new(3, 3 * MIB);
    let mut client = device.client();
    client.send(request("GET", &format!("/past{}", pattern.target("length")), "", b""));
    let head = client.head("GET");
    pattern.assert_follows(&head, &mut client);
    client.wire().set_patience(PATIENCE);
    for end in ["short", "reset"] {
        client.send(request("GET", &format!("/{end}{}", pattern.target("length")), "", b""));
        let head = client.head("GET");
        let mut check = pattern.check();
        let outcome = client.content(head.framing, &mut |part| check.feed(part));
        assert!(outcome.is_err() && check.at() < pattern.length, "{end}: a part is no whole");
        check.assert_right_so_far();
        client = device.client();
    }
    assert_eq!(server.opened(), 3, "a connection with such an end is not used again");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_server_that_sends_too_much_or_too_little_is_found_out_by_copy() {
    ends(COPY);
}

#[test]
fn a_server_that_sends_too_much_or_too_little_is_found_out_by_pipe() {
    ends(PIPE);
}

#[test]
fn a_server_that_sends_too_much_or_too_little_is_found_out_by_sockmap() {
    if !without_root("a_server_that_sends_too_much_or_too_little_is_found_out_by_sockmap") {
        ends(SOCKMAP);
    }
}
