//! Tunnels that the kernel carries: what `cmim splices`, `cmim status` and bpftool say of them, and what is left when the
//! device dies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::bpftool::dump;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::{Client, Device, ScriptedServer, Setup, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

const HANDSHAKE: &str = "GET /raw HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

fn skipped(test: &str) -> bool {
    skip::without_root(test) || skip::without_tools(test, &["bpftool"])
}

/// Sends everything back behind the handshake.
fn echo() -> ScriptedServer {
    ScriptedServer::start(|side| {
        if side.request().is_none() {
            return;
        }
        side.send(SWITCH);
        let (socket, _) = side.into_parts();
        let mut stream = TcpStream::from(socket);
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(buffer.get(..count).expect("within")).is_err() {
                return;
            }
        }
    })
}

fn setup(server: &ScriptedServer) -> Setup<'static> {
    Setup::before(&[server.address()]).kernel("required", "splice = \"sockmap\"")
}

fn tunnel(device: &Device) -> Client {
    let mut client = device.client();
    client.send(HANDSHAKE);
    assert_eq!(client.head("GET").status, 101);
    client
}

/// Sends bytes and waits for them to come back.
#[track_caller]
fn there_and_back(client: &mut Client, size: usize) {
    let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let sending = thread::spawn({
        let socket = client.wire().socket().try_clone().expect("a second handle");
        let bytes = bytes.clone();
        move || (&socket).write_all(&bytes)
    });
    let mut got = Vec::with_capacity(size);
    client.wire().exactly(size as u64, &mut |part| got.extend_from_slice(part)).expect("an echo");
    sending.join().expect("the writer").expect("sent");
    assert!(got == bytes, "other bytes came back");
}

/// Waits until the kernel has both directions of this many tunnels.
#[track_caller]
fn splices(device: &Device, tunnels: usize) -> Vec<Value> {
    until("the kernel carries them", PATIENCE, || {
        let splices = device.json(&["splices"]);
        let splices = splices.as_array().expect("a list").clone();
        (splices.len() == 2 * tunnels).then_some(splices)
    })
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// One end of a connection on loopback, as its key has it: the port in network order.
fn end_of(key: &Value, port: &str) -> String {
    let byte = |at: usize| key[port][at].as_u64().unwrap_or_else(|| panic!("no {port} in {key}"));
    format!("127.0.0.1:{}", byte(0) * 256 + byte(1))
}

#[test]
fn splices_agrees_with_the_kernels_map_and_with_what_went_through() {
    if skipped("splices_agrees_with_the_kernels_map_and_with_what_went_through") {
        return;
    }
    let server = echo();
    let device = setup(&server).start();
    let (mut one, mut other) = (tunnel(&device), tunnel(&device));
    splices(&device, 2);
    there_and_back(&mut one, 5_000);
    there_and_back(&mut other, 70);
    let listed = splices(&device, 2);
    let mut figures: Vec<u64> = listed.iter().map(|it| number(it, "bytes") + number(it, "relayed")).collect();
    figures.sort_unstable();
    assert_eq!(figures, [70, 70, 5_000, 5_000], "{listed:?}");
    let client_address = one.wire().socket().local_addr().expect("bound").as_socket().expect("of IP").to_string();
    let of_one = listed.iter().find(|it| it["from"] == client_address.as_str());
    let of_one = of_one.unwrap_or_else(|| panic!("{client_address} in {listed:?}"));
    assert_eq!(of_one["to"], server.address());
    assert_eq!(of_one["from_local"], device.address().to_string());
    for splice in &listed {
        assert_eq!((&splice["lane"], &splice["state"]), (&json!("sockmap"), &json!("splicing")), "{splice}");
        assert_eq!((&splice["remaining"], &splice["backlog"]), (&Value::Null, &json!(0)), "{splice}");
    }

    let kernel = dump(device.pin_dir(), "CMIM_CONNECTIONS");
    assert_eq!(kernel.len(), 4);
    for entry in &kernel {
        let matching = listed.iter().find(|it| {
            it["from"] == end_of(&entry["key"], "remote_port")
                && it["from_local"] == end_of(&entry["key"], "local_port")
        });
        let listed = matching.unwrap_or_else(|| panic!("{entry} in {listed:?}"));
        let value = &entry["value"];
        assert_eq!(number(value, "spliced"), number(listed, "bytes"), "{entry} {listed}");
        assert_eq!(number(value, "passed"), number(listed, "relayed"), "{entry} {listed}");
        assert_eq!(number(value, "generation"), number(listed, "id"), "{entry} {listed}");
        assert_eq!(number(value, "remaining"), u64::MAX, "{entry}");
    }
    let page = String::from_utf8_lossy(&device.cmim(&["splices"]).stdout).into_owned();
    assert!(page.contains("FROM") && page.contains("sockmap") && page.contains(&client_address), "{page}");

    assert_eq!(device.figure("/lanes/sockmap/active"), 2);
    drop((one, other));
    until_true("they are counted and gone", PATIENCE, || {
        let lane = &device.status()["lanes"]["sockmap"];
        *lane == json!({ "active": 0, "splices_total": 2, "bytes_total": 2 * (5_000 + 70) })
    });
    assert_eq!(device.json(&["splices"]), json!([]));
    assert!(dump(device.pin_dir(), "CMIM_CONNECTIONS").is_empty());
    assert!(dump(device.pin_dir(), "CMIM_TAKEN").len() > 4, "an array, whose entries stay");
}

#[test]
fn a_daemon_that_dropped_root_splices_all_the_same() {
    if skipped("a_daemon_that_dropped_root_splices_all_the_same") {
        return;
    }
    let server = echo();
    let mut device = setup(&server).daemon("user = \"nobody\"").start();
    let mut client = tunnel(&device);
    splices(&device, 1);
    there_and_back(&mut client, 3_000_000);
    drop(client);
    until_true("it is gone", PATIENCE, || device.json(&["splices"]) == json!([]));
    assert!(device.stop().success());
    // Of what is root's it could remove the pins, but not their directory: the next start would.
    std::fs::remove_dir(device.pin_dir()).expect("an empty directory");
}

#[test]
fn auto_takes_the_kernel_for_tunnels_and_pipe_and_off_do_not() {
    if skipped("auto_takes_the_kernel_for_tunnels_and_pipe_and_off_do_not") {
        return;
    }
    let server = echo();
    for (mode, expected) in [("auto", 1), ("pipe", 0), ("off", 0)] {
        let device = Setup::before(&[server.address()]).kernel("required", &format!("splice = \"{mode}\"")).start();
        let mut client = tunnel(&device);
        there_and_back(&mut client, 10_000);
        assert_eq!(device.figure("/lanes/sockmap/active"), expected, "{mode}");
        let copied = device.figure("/lanes/copy/active") + device.figure("/lanes/pipe/active");
        assert_eq!(copied, 1 - expected, "{mode}");
    }
}

#[test]
fn a_reload_changes_lane_and_window_of_the_splices_to_come() {
    if skipped("a_reload_changes_lane_and_window_of_the_splices_to_come") {
        return;
    }
    let server = echo();
    let device = Setup::before(&[server.address()]).kernel("required", "splice = \"pipe\"").start();
    let mut before = tunnel(&device);
    there_and_back(&mut before, 10_000);
    assert_eq!(device.figure("/lanes/sockmap/active"), 0);
    device.edit(|text| text.replace("splice = \"pipe\"", "splice = \"sockmap\"\nsplice_window = \"192KiB\""));
    assert!(device.reload().contains("kernel changed"));
    let mut after = tunnel(&device);
    there_and_back(&mut after, 10_000);
    there_and_back(&mut before, 10_000);
    assert_eq!(device.figure("/lanes/sockmap/active"), 1);
    let entries = dump(device.pin_dir(), "CMIM_CONNECTIONS");
    let windows: Vec<_> = entries.iter().map(|entry| number(&entry["value"], "window")).collect();
    assert_eq!(windows, [192 << 10; 2], "{entries:?}");
}

#[test]
fn a_tunnel_to_a_unix_socket_is_not_the_kernels() {
    if skipped("a_tunnel_to_a_unix_socket_is_not_the_kernels") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("server.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the device");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a head");
            head.extend_from_slice(&byte);
        }
        stream.write_all(SWITCH.as_bytes()).expect("connected");
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).expect("connected");
        stream.write_all(&bytes).expect("connected");
    });
    let device =
        Setup::before(&[format!("unix:{}", path.display())]).kernel("required", "splice = \"sockmap\"").start();
    let mut client = tunnel(&device);
    there_and_back(&mut client, 5);
    serving.join().expect("it ended");
    assert_eq!(device.figure("/lanes/sockmap/splices_total"), 0);
}

#[test]
fn a_job_that_is_a_tunnel_can_be_stopped_and_the_kernel_lets_go() {
    if skipped("a_job_that_is_a_tunnel_can_be_stopped_and_the_kernel_lets_go") {
        return;
    }
    let server = echo();
    let device = setup(&server).start();
    let mut client = tunnel(&device);
    splices(&device, 1);
    let id = device.json(&["jobs"])[0]["id"].as_str().expect("one job").to_owned();
    assert!(device.cmim(&["jobs", "cancel", &id]).status.success());
    client.wire().to_end(&mut |_| {}).expect_err("it is reset");
    until_true("nothing is in the kernel", PATIENCE, || device.json(&["splices"]) == json!([]));
}

#[test]
fn sigterm_ends_live_tunnels_within_the_grace() {
    if skipped("sigterm_ends_live_tunnels_within_the_grace") {
        return;
    }
    let server = echo();
    let mut device = setup(&server).start();
    let mut client = tunnel(&device);
    splices(&device, 1);
    device.signal(Signal::TERM);
    // Two signals that wait together are one.
    device.wait_to_say("draining");
    // Still carried meanwhile.
    there_and_back(&mut client, 100_000);
    let start = Instant::now();
    device.signal(Signal::TERM);
    assert!(device.wait(PATIENCE).success(), "{}", device.output());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let _ = client.wire().to_end(&mut |_| {});
}

#[test]
fn kill_9_during_live_splices_leaves_nothing_behind_the_next_start() {
    if skipped("kill_9_during_live_splices_leaves_nothing_behind_the_next_start") {
        return;
    }
    let server = echo();
    let mut first = setup(&server).start();
    let mut clients: Vec<Client> = (0..20).map(|_| tunnel(&first)).collect();
    splices(&first, 20);
    for client in &mut clients {
        there_and_back(client, 1_000);
    }
    first.signal(Signal::KILL);
    first.wait(PATIENCE);
    for client in &mut clients {
        // Both connections died with the process, the kernel carries nothing on.
        let _ = client.wire().to_end(&mut |_| {});
    }
    let pin_dir = first.pin_dir().to_owned();
    let mut second = setup(&server).pinned_at(&pin_dir).start();
    assert_eq!(second.json(&["splices"]), json!([]));
    assert!(dump(&pin_dir, "CMIM_CONNECTIONS").is_empty());
    there_and_back(&mut tunnel(&second), 10_000);
    assert!(second.stop().success());
    assert!(!pin_dir.exists());
}

#[test]
fn doctor_tries_the_lanes_and_says_which_are_off() {
    if skip::without_root("doctor_tries_the_lanes_and_says_which_are_off") {
        return;
    }
    let lanes = |device: &Device| {
        let findings = device.json(&["doctor", "--config", &device.file().display().to_string()]);
        let all = findings.as_array().expect("a list");
        let lanes: Vec<Value> = all.iter().filter(|it| it["kind"] == "lane").cloned().collect();
        assert_eq!(
            lanes.iter().map(|lane| lane["name"].as_str().unwrap_or("")).collect::<Vec<_>>(),
            ["copy", "pipe", "sockmap", "local"]
        );
        lanes
    };
    let server = echo();
    let device = setup(&server).start();
    for lane in &lanes(&device) {
        assert_eq!(lane["ok"], true, "{lane}");
    }
    device.edit(|text| text.replace("splice = \"sockmap\"", "splice = \"pipe\"\nlocal_bypass = \"off\""));
    let off = lanes(&device);
    assert_eq!(off[2]["detail"], "off: kernel.splice = \"pipe\"");
    assert_eq!(off[3]["detail"], "off: kernel.local_bypass = \"off\"");
}
