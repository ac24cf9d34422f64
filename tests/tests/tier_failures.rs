//! docs/operations.md: file systems that are full or fill up cost no reply that could have been kept, and are used again once
//! there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::mounts::in_own_mounts;
use cmim_tests::pattern::{Pattern, serve};
use cmim_tests::ports::Reserved;
use cmim_tests::tiers::{MEBIBYTE, Tiers, degraded, hurry, slow_client};
use cmim_tests::{Client, Device, Framing, ScriptedServer, skip};

const CLIENTS: usize = 12;
const PAGE: u64 = 12_000_000;
const SMALL: u64 = 20_000;
const FULL: &str = "No space left";
/// A full file system is looked at every 5 s at most; the rest is for a busy machine.
const RECOVERY: Duration = Duration::from_secs(9);

/// What came of a request: the status of a whole reply, whose bytes were right if it was a 200.
#[track_caller]
fn outcome(client: &mut Client, pattern: Pattern) -> (u16, Framing) {
    hurry(client);
    let head = client.head("GET");
    if head.status == 200 {
        pattern.assert_follows(&head, client);
    } else {
        client.content(head.framing, &mut |_| ()).expect("a whole refusal");
    }
    (head.status, head.framing)
}

/// The outcomes of all clients, who read on at the same time.
fn outcomes(clients: &mut [Client], length: u64) -> Vec<(u16, Framing)> {
    thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(seed, client)| scope.spawn(move || outcome(client, Pattern::new(seed, length))))
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    })
}

fn slow_clients(device: &Device, length: u64) -> Vec<Client> {
    (0..CLIENTS)
        .map(|seed| slow_client(device, Pattern::new(seed, length), if seed % 2 == 0 { "close" } else { "chunked" }))
        .collect()
}

/// A small dynamic reply is had at once, whatever else is held.
#[track_caller]
fn assert_serves(device: &Device) {
    let pattern = Pattern::new(77, SMALL);
    let mut client = device.client();
    client.send(request("GET", &pattern.target("chunked"), "", b""));
    let head = client.head("GET");
    assert_eq!(head.status, 200, "{head:?}");
    pattern.assert_follows(&head, &mut client);
}

/// Waits until no tier is degraded; says how long that took.
#[track_caller]
fn wait_for_recovery(device: &Device) -> Duration {
    let start = Instant::now();
    until("both tiers are in use again", RECOVERY, || {
        (degraded(device, "flash").is_none() && degraded(device, "disk").is_none()).then_some(())
    });
    start.elapsed()
}

#[test]
fn on_full_file_systems_a_reply_that_must_be_held_is_whole_or_a_502() {
    let name = "on_full_file_systems_a_reply_that_must_be_held_is_whole_or_a_502";
    in_own_mounts(name, || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let fillers = [tiers.flash.fill(), tiers.disk.fill()];
        let server = ScriptedServer::start(serve(|_| ()));
        let metrics = Reserved::v4();
        let device = tiers
            .before(server.address())
            .daemon(&format!("metrics_address = \"{}\"", metrics.address()))
            .upstream("length_rewrite = \"always\"")
            .start();

        // None of them fits in RAM.
        let large = outcomes(&mut slow_clients(&device, PAGE), PAGE);
        assert!(large.iter().all(|(status, _)| *status == 502), "{large:?}");
        assert_serves(&device);
        // Some of them do.
        let middle = outcomes(&mut slow_clients(&device, 900_000), 900_000);
        assert!(middle.iter().all(|(status, _)| matches!(status, 200 | 502)), "{middle:?}");
        assert!(middle.contains(&(200, Framing::Length(900_000))), "{middle:?}");
        assert_serves(&device);

        for tier in ["flash", "disk"] {
            let reason = degraded(&device, tier).unwrap_or_default();
            assert!(reason.contains(FULL), "{tier}: `{reason}`");
        }
        let told = Client::connect(metrics.address()).get("/metrics").text();
        for tier in ["flash", "disk"] {
            assert!(told.contains(&format!("cmim_buffer_degraded{{tier=\"{tier}\"}} 1\n")), "{told}");
        }
        let listing = device.cmim(&["buffers"]);
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.contains(&format!("degraded: {FULL}")), "{listing}");
        assert!(device.figure("/buffers/memory/refused_total") > 0);
        device.wait_until_at_rest(PATIENCE);
        let told = device.json(&["buffers"]);
        assert_eq!((&told["flash"]["used"], &told["disk"]["used"]), (&0.into(), &0.into()), "{told}");

        drop(fillers);
        skip::measured(name, &format!("in use again after {:?}", wait_for_recovery(&device)));
        let again = outcomes(&mut slow_clients(&device, PAGE), PAGE);
        assert!(again.iter().all(|outcome| *outcome == (200, Framing::Length(PAGE))), "{again:?}");
        assert!(device.figure("/buffers/flash/written_total") > 0);
        tiers.assert_empty(&device, PATIENCE);
    });
}

#[test]
fn on_full_file_systems_a_reply_that_may_be_chunked_is_whole() {
    in_own_mounts("on_full_file_systems_a_reply_that_may_be_chunked_is_whole", || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let _fillers = [tiers.flash.fill(), tiers.disk.fill()];
        let server = ScriptedServer::start(serve(|_| ()));
        let device = tiers.before(server.address()).upstream("hold_time = \"30s\"").start();
        let mut clients = slow_clients(&device, PAGE);
        let old_pattern = Pattern::new(50, PAGE);
        let mut old = Client::connect_slow(device.address(), 4096);
        old.send(format!("GET {} HTTP/1.0\r\n\r\n", old_pattern.target("chunked")));
        // They go on as chunked although their time is not over.
        for client in &mut clients {
            let wire = client.wire();
            until_true("a head comes", PATIENCE, || wire.brings_more(Duration::from_millis(100)));
        }
        // Slow clients hold all RAM; others are served all the same.
        assert_serves(&device);
        assert!(degraded(&device, "flash").is_some_and(|reason| reason.contains(FULL)));
        assert!(degraded(&device, "disk").is_some_and(|reason| reason.contains(FULL)));
        assert!(device.resident() < 80_000_000, "{} bytes resident", device.resident());
        let got = outcomes(&mut clients, PAGE);
        assert!(got.iter().all(|outcome| *outcome == (200, Framing::Chunked)), "{got:?}");
        assert_eq!(outcome(&mut old, old_pattern), (200, Framing::Close), "an HTTP/1.0 client's");
        device.wait_until_at_rest(PATIENCE);
        assert_eq!(device.figure("/jobs/failed_total"), 0, "{}", device.status());
    });
}

#[test]
fn a_disk_that_fills_from_outside_costs_no_reply_that_is_held() {
    let name = "a_disk_that_fills_from_outside_costs_no_reply_that_is_held";
    in_own_mounts(name, || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let server = ScriptedServer::start(serve(|_| ()));
        let device = tiers.before(server.address()).upstream("hold_time = \"30s\"").start();
        let mut early = slow_clients(&device, 6_000_000);
        // What the server has sent can still be on its way to the device.
        until_true("they are held", PATIENCE, || {
            server.opened() == CLIENTS && server.open() == 0 && device.figure("/server_connections/open") == 0
        });
        tiers.assert_agrees_with_df(&device, PATIENCE);
        let held = device.json(&["buffers"]);
        assert!(held["flash"]["used"].as_u64() > Some(16 * MEBIBYTE), "{held}");

        let fillers = [tiers.flash.fill(), tiers.disk.fill()];
        let mut late = slow_clients(&device, PAGE);
        until("the disk is degraded", PATIENCE, || degraded(&device, "disk"));
        assert_serves(&device);
        let early = outcomes(&mut early, 6_000_000);
        assert!(early.iter().all(|outcome| *outcome == (200, Framing::Length(6_000_000))), "{early:?}");
        let late = outcomes(&mut late, PAGE);
        assert!(late.iter().all(|(status, _)| *status == 200), "{late:?}");

        drop(fillers);
        skip::measured(name, &format!("in use again after {:?}", wait_for_recovery(&device)));
        tiers.assert_empty(&device, PATIENCE);
        assert_eq!(device.figure("/jobs/failed_total"), 0, "{}", device.status());
    });
}

#[test]
fn replies_on_their_way_into_a_tier_that_fills_up_move_on_to_the_next() {
    in_own_mounts("replies_on_their_way_into_a_tier_that_fills_up_move_on_to_the_next", || {
        const FIRST_PART: u64 = 3 * MEBIBYTE;
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let released = Arc::new(AtomicBool::new(false));
        let gate = released.clone();
        let server = ScriptedServer::start(serve(move |at| {
            while at >= FIRST_PART && !gate.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        }));
        let device = tiers.before(server.address()).upstream("length_rewrite = \"always\"").start();
        let mut clients: Vec<Client> =
            (0..6).map(|seed| slow_client(&device, Pattern::new(seed, PAGE), "chunked")).collect();
        until_true("their first parts are held", PATIENCE, || device.figure("/buffers/flash/used") > 8 * MEBIBYTE);
        let filler = tiers.flash.fill();
        released.store(true, Ordering::SeqCst);
        until_true("the server is free", PATIENCE, || server.open() == 0);
        let got = outcomes(&mut clients, PAGE);
        assert!(got.iter().all(|outcome| *outcome == (200, Framing::Length(PAGE))), "{got:?}");
        assert!(device.figure("/buffers/disk/written_total") > 0);
        drop(filler);
        wait_for_recovery(&device);
        tiers.assert_empty(&device, PATIENCE);
    });
}
