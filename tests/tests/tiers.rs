//! C2 to C4: contents held in RAM, flash and on disk, bounded, accounted, and gone when they are sent.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::device::binary;
use cmim_tests::mounts::in_own_mounts;
use cmim_tests::pattern::{Pattern, serve};
use cmim_tests::ports::Reserved;
use cmim_tests::tiers::{MEBIBYTE, Tiers, hurry, slow_client, table};
use cmim_tests::{Client, Device, Framing, ScriptedServer, Setup, skip};
use rustix::process::Signal;
use serde_json::Value;

const CLIENTS: usize = 12;
const PAGE: u64 = 12_000_000;
/// In which the server has to be free of all clients.
const ALLOWED: Duration = Duration::from_secs(3);
/// The daemon's RSS, whatever it holds on flash and disk.
const MOST_RESIDENT: u64 = 80_000_000;

/// The highest figures that were ever seen.
#[derive(Debug, Default)]
struct Peaks {
    memory: u64,
    flash: u64,
    disk: u64,
    resident: u64,
}

/// Looks at the device until `over`, and holds every tier to its size at every look.
fn watch(device: &Device, tiers: &Tiers, over: &AtomicBool) -> Peaks {
    let mut peaks = Peaks::default();
    while !over.load(Ordering::SeqCst) {
        let told = device.json(&["buffers"]);
        for (tier, peak) in [("memory", &mut peaks.memory), ("flash", &mut peaks.flash), ("disk", &mut peaks.disk)] {
            let (used, size) = (told[tier]["used"].as_u64().unwrap_or(u64::MAX), told[tier]["size"].as_u64());
            assert!(Some(used) <= size, "{tier}: {told}");
            *peak = used.max(*peak);
        }
        assert!(tiers.flash.used() <= 32 * MEBIBYTE && tiers.disk.used() <= 128 * MEBIBYTE);
        peaks.resident = device.resident().max(peaks.resident);
        thread::sleep(Duration::from_millis(20));
    }
    peaks
}

/// The figures that `/metrics` gives for a tier, as `cmim buffers --json` names them.
#[track_caller]
fn assert_metrics_agree(metrics: &str, told: &Value) {
    for (name, figure) in [
        ("cmim_buffer_used_bytes", "used"),
        ("cmim_buffer_size_bytes", "size"),
        ("cmim_buffer_replies", "replies"),
        ("cmim_buffer_spilled_total", "spilled_total"),
        ("cmim_buffer_refused_total", "refused_total"),
        ("cmim_buffer_written_bytes_total", "written_total"),
        ("cmim_buffer_written_per_day_bytes", "written_per_day"),
    ] {
        for tier in ["memory", "flash", "disk"] {
            let line = format!("{name}{{tier=\"{tier}\"}} {}", told[tier][figure]);
            assert!(metrics.lines().any(|found| found == line), "no `{line}` in {metrics}");
        }
    }
}

/// Starts the clients, and waits until the server is rid of all of them; says how long that took.
#[track_caller]
fn fill(device: &Device, server: &ScriptedServer) -> (Vec<Client>, Duration) {
    let start = Instant::now();
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|seed| slow_client(device, Pattern::new(seed, PAGE), if seed % 2 == 0 { "close" } else { "chunked" }))
        .collect();
    until_true("the server is free", ALLOWED * 3, || server.opened() == CLIENTS && server.open() == 0);
    (clients, start.elapsed())
}

/// All clients read on at once, to the last byte.
fn read_all(clients: &mut [Client]) {
    thread::scope(|scope| {
        for (seed, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                hurry(client);
                let head = client.head("GET");
                assert_eq!(head.framing, Framing::Length(PAGE), "{head:?}");
                Pattern::new(seed, PAGE).assert_follows(&head, client);
            });
        }
    });
}

#[test]
fn twelve_slow_clients_use_every_tier_and_free_their_servers() {
    let name = "twelve_slow_clients_use_every_tier_and_free_their_servers";
    in_own_mounts(name, || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let server = ScriptedServer::start(serve(|_| ()));
        let metrics = Reserved::v4();
        let device = tiers
            .before(server.address())
            .daemon(&format!("metrics_address = \"{}\"", metrics.address()))
            .upstream("hold_time = \"30s\"")
            .start();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&device, &tiers, &over));
            let end = scope.spawn(|| {
                let (mut clients, spent) = fill(&device, &server);
                until_true("the device has closed too", PATIENCE, || device.figure("/server_connections/open") == 0);
                tiers.assert_agrees_with_df(&device, PATIENCE);
                assert_held_figures(&device, &metrics);
                read_all(&mut clients);
                tiers.assert_empty(&device, PATIENCE);
                spent
            });
            let end = end.join();
            over.store(true, Ordering::SeqCst);
            let (peaks, spent) = (watcher.join().expect("within all bounds"), end.expect("the clients"));
            skip::measured(name, &format!("the server was free after {spent:?}; at most {peaks:?}"));
            assert!(spent <= ALLOWED, "the server was free after {spent:?}");
            assert!(peaks.memory > 0 && peaks.flash > 0 && peaks.disk > 0, "a tier was not used: {peaks:?}");
            assert!(peaks.resident < MOST_RESIDENT, "{peaks:?}");
        });
        assert_eq!(tiers.names(), Vec::<PathBuf>::new());
        assert_eq!(server.faults(), Vec::<String>::new());
    });
}

/// `cmim buffers`, the status and the metrics say the same while nothing moves.
#[track_caller]
fn assert_held_figures(device: &Device, metrics: &Reserved) {
    let told = device.json(&["buffers"]);
    for tier in ["memory", "flash", "disk"] {
        assert!(told[tier]["used"].as_u64() > Some(0) && told[tier]["replies"].as_u64() > Some(0), "{tier}: {told}");
        assert!(told[tier].get("degraded").is_none(), "{told}");
    }
    for tier in ["flash", "disk"] {
        // Every byte in a file was written there once.
        assert!(told[tier]["written_total"].as_u64() > Some(0), "{told}");
    }
    assert_eq!(device.status()["buffers"], told);
    let reply = Client::connect(metrics.address()).get("/metrics");
    assert_eq!(reply.status(), 200);
    assert_metrics_agree(&reply.text(), &told);
    let listing = device.cmim(&["buffers"]);
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    for tier in ["memory", "flash", "disk"] {
        assert!(listing.lines().any(|line| line.starts_with(tier)), "{listing}");
    }
    let spilled = device.figure("/replies/spilled_total");
    assert_eq!(spilled, CLIENTS as u64, "replies of {PAGE} bytes that left RAM");
}

#[test]
fn killed_with_much_held_it_leaves_nothing_and_starts_again() {
    in_own_mounts("killed_with_much_held_it_leaves_nothing_and_starts_again", || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let server = ScriptedServer::start(serve(|_| ()));
        let mut device = tiers.before(server.address()).upstream("hold_time = \"30s\"").start();
        let clients = fill(&device, &server).0;
        until_true("much is on disk", PATIENCE, || tiers.flash.used() + tiers.disk.used() > 64 * MEBIBYTE);
        device.signal(Signal::KILL);
        device.wait(PATIENCE);
        until_true("nothing is left", PATIENCE, || tiers.flash.used() == 0 && tiers.disk.used() == 0);
        assert_eq!(tiers.names(), Vec::<PathBuf>::new());
        drop(clients);
        let device = tiers.before(server.address()).start();
        let pattern = Pattern::new(99, PAGE);
        let mut client = device.client();
        client.send(request("GET", &pattern.target("chunked"), "", b""));
        let head = client.head("GET");
        pattern.assert_follows(&head, &mut client);
        tiers.assert_empty(&device, PATIENCE);
    });
}

#[test]
fn clients_that_leave_give_every_tier_back() {
    in_own_mounts("clients_that_leave_give_every_tier_back", || {
        let tiers = Tiers::new(32 * MEBIBYTE, 128 * MEBIBYTE);
        let server = ScriptedServer::start(serve(|_| ()));
        let device = tiers.before(server.address()).upstream("hold_time = \"30s\"").start();
        let clients = fill(&device, &server).0;
        assert!(device.figure("/buffers/disk/used") > 0);
        drop(clients);
        tiers.assert_empty(&device, PATIENCE);
    });
}

const LARGE: u64 = 300_000_000;

/// Reads the large reply with a pause at each megabyte; returns how long that took.
fn read_at_a_pace(device: &Device, prefix: &str, pattern: Pattern, pause: Duration) -> Duration {
    let start = Instant::now();
    let mut client = device.client();
    client.wire().set_patience(Duration::from_secs(30));
    client.send(request("GET", &(prefix.to_owned() + &pattern.target("chunked")), "", b""));
    let head = client.head("GET");
    let (mut check, mut next) = (pattern.check(), MEBIBYTE);
    let outcome = client.content(head.framing, &mut |part| {
        check.feed(part);
        if check.at() >= next {
            next += MEBIBYTE;
            thread::sleep(pause);
        }
    });
    check.assert_whole(outcome.as_ref().err());
    start.elapsed()
}

#[test]
fn a_large_reply_reaches_readers_of_different_speeds_whole() {
    let name = "a_large_reply_reaches_readers_of_different_speeds_whole";
    let [flash, disk] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let [server, held] = [(); 2].map(|()| ScriptedServer::start(serve(|_| ())));
    let device = Setup::before(&[server.address()])
        .buffer("memory = \"8MiB\"")
        .listener("routes = [ { path = \"/held/\", upstream = \"held\" } ]")
        .tables(&(table("flash", flash.path(), 32 * MEBIBYTE) + &table("disk", disk.path(), 512 * MEBIBYTE)))
        .tables(&format!(
            "[[upstream]]\nname = \"held\"\nlength_rewrite = \"always\"\nservers = [ {{ address = \"{}\" }} ]",
            held.address()
        ))
        .start();
    let pauses = [0, 5, 20].map(Duration::from_millis);
    let mut most = 0;
    thread::scope(|scope| {
        let mut readers: Vec<_> = pauses
            .iter()
            .enumerate()
            .map(|(seed, pause)| {
                scope.spawn({
                    let device = &device;
                    move || read_at_a_pace(device, "", Pattern::new(seed, LARGE), *pause)
                })
            })
            .collect();
        readers.push(scope.spawn(|| read_at_a_pace(&device, "/held", Pattern::new(9, LARGE), Duration::ZERO)));
        while readers.iter().any(|reader| !reader.is_finished()) {
            most = device.resident().max(most);
            thread::sleep(Duration::from_millis(50));
        }
        let spent: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        skip::measured(
            name,
            &format!(
                "{spent:?} with pauses of {pauses:?} each MiB and once held; {most} resident, {:?} of CPU",
                processor_time(&device)
            ),
        );
    });
    assert!(most < MOST_RESIDENT, "{most} bytes resident");
    assert_eq!(device.figure("/replies/rewritten_total"), 1, "{}", device.status());
    until("every tier is empty", PATIENCE, || {
        let told = device.json(&["buffers"]);
        ["memory", "flash", "disk"].iter().all(|tier| told[tier]["used"] == 0).then_some(())
    });
}

/// What the device has used of the processors.
fn processor_time(device: &Device) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", device.pid())).expect("a living process");
    // Behind the name in parentheses, which may hold spaces.
    let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("ticks")
}

/// A device that must not start: its one line on stderr, and exit code 1.
#[track_caller]
fn assert_refuses_to_start(setup: Setup<'_>, words: &[&str]) {
    let mut device = setup.launch();
    let status = device.wait(PATIENCE);
    let output = device.output();
    assert_eq!(status.code(), Some(1), "{output}");
    for word in words {
        assert!(output.contains(word), "no word of {word}: {output}");
    }
    assert!(!device.control().exists(), "it had begun to serve");
}

fn with_tiers(tables: &str) -> Setup<'static> {
    Setup::before(&["127.0.0.1:9"]).tables(tables)
}

#[test]
fn unfit_directories_are_told_by_their_key_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let missing = path.join("missing/tier");
    let tables = table("flash", &missing, 32 * MEBIBYTE);
    assert_refuses_to_start(with_tiers(&tables), &["buffer.tier[0].path", "missing", "no such directory", "mkdir -p"]);

    let file = path.join("file");
    std::fs::write(&file, "").expect("a file");
    let tables = table("flash", path, 32 * MEBIBYTE) + &table("disk", &file, 32 * MEBIBYTE);
    assert_refuses_to_start(with_tiers(&tables), &["buffer.tier[1].path", "not a directory"]);

    let tables = table("flash", path, 32 * MEBIBYTE) + &table("disk", path, 32 * MEBIBYTE);
    assert_refuses_to_start(with_tiers(&tables), &["buffer.tier[1].path", "buffer.tier[0].path"]);
    // The same by another name, which only this host can tell.
    let alias = path.join("alias");
    std::os::unix::fs::symlink(path, &alias).expect("a link");
    let tables = table("flash", path, 32 * MEBIBYTE) + &table("disk", &alias, 32 * MEBIBYTE);
    assert_refuses_to_start(with_tiers(&tables), &["buffer.tier[1].path", "same directory", "buffer.tier[0].path"]);

    assert_refuses_to_start(with_tiers(&table("flash", path, 100)), &["buffer.tier[0].size", "100"]);
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "", "a file of somebody else");
}

#[test]
fn a_missing_directory_is_made_by_the_start_and_not_by_a_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tier");
    let device = with_tiers(&table("flash", &path, 32 * MEBIBYTE)).start();
    let mode = |path| std::fs::metadata(path).expect("a directory").mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    device.wait_to_say(&format!("made {}", path.display()));
    std::fs::remove_dir(&path).expect("nothing in it");
    let file = device.file().display().to_string();
    let checked = Command::new(binary()).args(["check", &file]).output().expect("running cmim");
    assert!(checked.status.success(), "{checked:?}");
    assert!(!path.exists(), "a check changes nothing");
}

#[test]
fn a_directory_that_is_made_belongs_to_whom_the_daemon_becomes() {
    let name = "a_directory_that_is_made_belongs_to_whom_the_daemon_becomes";
    if skip::without_root(name) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // Its owner's to write to, and everybody's to look into.
    let seen = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), seen).expect("permissions");
    let path = directory.path().join("tier");
    let _device = with_tiers(&table("flash", &path, 32 * MEBIBYTE)).daemon("user = \"nobody\"").start();
    let owner = std::fs::metadata(&path).expect("a directory").uid();
    assert_ne!(owner, 0);
}

#[test]
fn a_directory_of_a_running_cmim_is_refused_and_free_after_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let foreign = directory.path().join("precious");
    std::fs::write(&foreign, "kept").expect("a file");
    let tables = table("disk", directory.path(), 32 * MEBIBYTE);
    let server = ScriptedServer::start(cmim_tests::origin::faulty::ok);
    let start = || Setup::before(&[server.address()]).tables(&tables);
    let mut first = start().start();
    assert_refuses_to_start(start(), &["buffer.tier[0].path", "in use by", &format!("pid {}", first.pid())]);
    first.client().get("/").assert_whole(b"ok");
    assert_eq!(first.stop().code(), Some(0), "{}", first.output());
    start().start().client().get("/").assert_whole(b"ok");
    assert_eq!(std::fs::read_to_string(&foreign).expect("the file"), "kept", "a file of somebody else");
}

#[test]
fn an_unwritable_directory_is_refused() {
    let name = "an_unwritable_directory_is_refused";
    if skip::without_root(name) || skip::without_tools(name, &["setpriv"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let tables = table("flash", directory.path(), 32 * MEBIBYTE);
    // A temporary directory is its owner's alone; this one can be seen and not written to.
    let seen = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), seen).expect("permissions");
    assert_refuses_to_start(
        with_tiers(&tables).as_user("nobody"),
        &["buffer.tier[0].path", "not writable", "chown", &directory.path().display().to_string()],
    );
}

#[test]
fn a_read_only_file_system_is_refused() {
    in_own_mounts("a_read_only_file_system_is_refused", || {
        let tiers = Tiers::new(32 * MEBIBYTE, 32 * MEBIBYTE);
        tiers.disk.make_read_only();
        assert_refuses_to_start(tiers.before("127.0.0.1:9"), &["buffer.tier[1].path", "read-only"]);
    });
}
