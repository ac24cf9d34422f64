//! docs/http.md and 8: no client can starve others, and none can make the device hold more than its bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::obedient::{Visit, gets, page};
use cmim_tests::{Client, Crew, Device, skip};
use socket2::Socket;

/// Keeps `depth` requests of client `number` in the device until it is over.
fn ask_on(device: &Device, over: &AtomicBool, number: usize, depth: usize) {
    let mut client = device.client();
    let target = |round: usize| format!("/{number}/{round}?wait=10");
    let mut sent = 0;
    for round in 0.. {
        while sent < round + depth {
            client.send(request("GET", &target(sent), "", b""));
            sent += 1;
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
        client.reply().assert_whole(&page(&target(round)));
    }
}

/// How many of the visits are whose.
fn shares(visits: &[Visit]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for visit in visits {
        *shares.entry(visit.target.split('/').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
    }
    shares
}

/// Lets clients of these depths share a server of one request at a time, and holds their shares to be equal.
fn assert_equal_shares(test: &str, depths: &[usize]) {
    const ROUNDS: usize = 14;
    let crew = Crew::of(1);
    let device = crew.setup("max_requests = 1").start();
    let over = AtomicBool::new(false);
    let count = depths.len() * ROUNDS;
    let counted = thread::scope(|scope| {
        for (number, depth) in depths.iter().enumerate() {
            let (device, over) = (&device, &over);
            scope.spawn(move || ask_on(device, over, number, *depth));
        }
        // All have to be there before it counts.
        until_true("all are there", PATIENCE, || shares(&crew.visits()).len() == depths.len());
        let begun = crew.visits().len();
        until_true("enough turns", Duration::from_secs(20), || crew.visits().len() >= begun + count);
        let counted = crew.visits()[begun..begun + count].to_vec();
        over.store(true, Ordering::Relaxed);
        counted
    });
    let shares = shares(&counted);
    skip::measured(test, &format!("of {count} turns {:?}", shares.values().collect::<Vec<_>>()));
    assert_eq!(crew.most_at_once(), 1);
    // One client alone misses a turn now and then, when it is not back with its next request in time.
    for (client, share) in &shares {
        assert!((ROUNDS - 3..=ROUNDS + 3).contains(share), "client {client} had {share} of {count} turns: {shares:?}");
    }
}

#[test]
fn one_client_with_sixteen_requests_has_the_share_of_fifteen_with_one_each() {
    let depths: Vec<usize> = std::iter::once(16).chain([1; 15]).collect();
    assert_equal_shares("turns of one client with 16 requests and 15 with one each", &depths);
}

#[test]
fn two_deep_clients_and_two_with_one_request_have_equal_shares() {
    assert_equal_shares("turns of clients with 16, 16, 2 and 2 requests", &[16, 16, 2, 2]);
}

const REQUESTS: usize = 10_000;

/// A client that sends requests for as long as they are taken, and never reads.
struct Greedy {
    socket: Socket,
    rest: Vec<u8>,
}

impl Greedy {
    fn ask(device: &Device, words: &str) -> Self {
        let targets: Vec<String> = (0..REQUESTS).map(|number| format!("/{number}?{words}")).collect();
        let (socket, _) = Client::connect_slow(device.address(), 4096).into_wire().into_parts();
        socket.set_nonblocking(true).expect("non-blocking");
        Self { socket, rest: gets(&targets) }
    }

    /// Sends what is taken now.
    fn send(&mut self) {
        while let Ok(count @ 1..) = self.socket.send(&self.rest) {
            self.rest.drain(..count);
        }
    }
}

/// Lets a client ask and never read for `span`, while another asks on; says how far the device's memory grew.
fn growth(device: &Device, greedy: &mut Greedy, span: Duration) -> u64 {
    let mut other = device.client();
    // What the device takes once, whoever asks.
    for number in 0..50 {
        other.get(&format!("/warm/{number}?size=100000")).assert_whole(&page(&format!("/warm/{number}?size=100000")));
    }
    let before = device.resident();
    let mut most = before;
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    // As long as it takes until the device holds what it is going to hold.
    let mut grown_at = start;
    while start.elapsed() < span || grown_at.elapsed() < span / 4 {
        greedy.send();
        let asked = Instant::now();
        other.get("/other?size=1000").assert_whole(&page("/other?size=1000"));
        slowest = slowest.max(asked.elapsed());
        let resident = device.resident();
        if resident > most {
            (most, grown_at) = (resident, Instant::now());
        }
    }
    assert!(slowest < Duration::from_millis(500), "another client waited {slowest:?}");
    most - before
}

#[test]
fn ten_thousand_stacked_requests_for_small_pages_cost_what_the_depth_allows() {
    // 16 replies of 2 kB, a read buffer for each of them and for the requests: far below this.
    const BOUND: u64 = 8 << 20;
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut greedy = Greedy::ask(&device, "size=2000");
    let grown = growth(&device, &mut greedy, Duration::from_secs(1));
    let asked = crew.visits().iter().filter(|visit| visit.target.ends_with("?size=2000")).count();
    skip::measured(
        "10,000 stacked requests for 2 kB, never read",
        &format!("{:.1} MiB more resident (bound {} MiB), {asked} forwarded", mib(grown), BOUND >> 20),
    );
    assert!(grown < BOUND, "{grown} bytes");
    // What the kernel's socket buffers take of it, and no more.
    assert!(asked < REQUESTS, "all {asked} were forwarded for a client that reads nothing");
    drop(greedy);
    assert_all_gone(&device, &crew);
}

#[test]
fn ten_thousand_stacked_requests_for_large_pages_cost_what_the_memory_tier_allows() {
    const MEMORY: u64 = 24 << 20;
    // Beside the tier's own size: read buffers of the connections, and what the allocator keeps.
    const BOUND: u64 = MEMORY + (16 << 20);
    for delimited in ["length", "chunked"] {
        let crew = Crew::of(2);
        let device = crew.setup("").buffer(&format!("memory = {MEMORY}")).start();
        let mut greedy = Greedy::ask(&device, &format!("size=4000000&as={delimited}"));
        let grown = growth(&device, &mut greedy, Duration::from_secs(1));
        let used = device.figure("/buffers/memory/used");
        skip::measured(
            &format!("10,000 stacked requests for 4 MB ({delimited}), never read"),
            &format!(
                "{:.1} MiB more resident, {:.1} MiB of the tier (bound {} MiB)",
                mib(grown),
                mib(used),
                BOUND >> 20
            ),
        );
        assert!(grown < BOUND, "{delimited}: {grown} bytes");
        assert!((MEMORY / 4..=MEMORY).contains(&used), "{delimited}: {used} of {MEMORY}");
        let asked = crew.visits().iter().filter(|visit| visit.target.contains("size=4000000")).count();
        assert!(asked <= 17, "{delimited}: {asked} forwarded, at a depth of 16");
        drop(greedy);
        assert_all_gone(&device, &crew);
    }
}

#[test]
fn a_stack_of_more_than_the_memory_tier_comes_whole() {
    let crew = Crew::of(4);
    let device = crew.setup("").buffer(&format!("memory = {}", 4 << 20)).start();
    for delimited in ["length", "chunked", "close"] {
        let targets: Vec<String> = (0..16).map(|number| format!("/{number}?size=2000000&as={delimited}")).collect();
        let mut client = device.client();
        client.send(gets(&targets));
        // What comes later has to wait for what is due, and must not keep the room from it.
        for target in &targets {
            let reply = client.try_reply("GET").unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(reply.status(), 200, "{target}: {}", reply.text());
            assert!(reply.content == page(target), "{target}: the content differs");
        }
        device.wait_until_at_rest(PATIENCE);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[track_caller]
fn assert_all_gone(device: &Device, crew: &Crew) {
    const WITHIN: Duration = Duration::from_millis(1500);
    device.wait_until_at_rest(WITHIN);
    until_true("only idle server connections are left", WITHIN, || {
        crew.open() as u64 == device.figure("/server_connections/idle")
    });
    // The greedy one; the other has ended by then too.
    until("no client is left", PATIENCE, || (device.figure("/client_connections/open") == 0).then_some(()));
    let status = device.status();
    let jobs = &status["jobs"];
    assert_eq!(status["requests_total"], jobs["done_total"], "{status}");
}
