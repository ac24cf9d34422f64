//! docs/bpftool.md, the first slice: what bpftool sees while the device runs, and that nothing is left after it.
//!
//! Programs and maps are found by the descriptors of the process, so that other devices on this host do not matter.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::ok;
use cmim_tests::{Client, Device, Load, Namespace, ScriptedServer, Setup, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

const INTERFACE: &str = "cmim0";
const PORT: u16 = 8080;

/// Whether `test` has to be skipped here.
fn skipped(test: &str) -> bool {
    if skip::without_root(test) || skip::without_tools(test, &["bpftool", "ip"]) {
        return true;
    }
    let mounted = bpf_file_system();
    if !mounted {
        skip::skipped(test, "no BPF file system on /sys/fs/bpf, and none can be mounted");
    }
    !mounted
}

/// Whether there is a BPF file system; mounts it once, where the host's init did not.
fn bpf_file_system() -> bool {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    let is_mounted = || std::fs::read_to_string("/proc/mounts").unwrap_or_default().contains(" /sys/fs/bpf bpf ");
    *MOUNTED.get_or_init(|| {
        is_mounted() || {
            let _ = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status();
            is_mounted()
        }
    })
}

/// A device in a namespace of its own, a client's namespace, and a server beside the device.
struct Bench {
    device: Device,
    server: ScriptedServer,
    outside: Namespace,
    _inside: Namespace,
}

impl Bench {
    fn start(mode: &'static str) -> Self {
        Self::start_with(mode, "")
    }

    /// With further lines of the `[kernel]` table.
    fn start_with(mode: &'static str, lines: &str) -> Self {
        let (inside, outside) = (Namespace::new(), Namespace::new());
        inside.join((INTERFACE, "10.77.0.1/24"), &outside, ("peer0", "10.77.0.2/24"));
        let server = inside.run(|| ScriptedServer::start(ok));
        let device = Setup::before(&[server.address()])
            .listen_at(([10, 77, 0, 1], PORT).into())
            .kernel(mode, &format!("interfaces = [\"{INTERFACE}\"]\n{lines}"))
            .inside(&inside)
            .start();
        Self { device, server, outside, _inside: inside }
    }

    fn client(&self) -> Client {
        self.outside.run(|| self.device.client())
    }
}

#[track_caller]
fn bpftool(arguments: &[&str]) -> Value {
    let output = Command::new(skip::find("bpftool").expect("bpftool")).arg("-j").args(arguments).output();
    let output = output.expect("running bpftool");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "bpftool {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("bpftool {arguments:?}: {error}: {text}"))
}

/// The ids of `what` ("prog" or "map") behind the descriptors of a process.
fn ids(what: &str, pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("{what}_id:")))?;
            value.trim().parse().ok()
        })
        .collect()
}

/// The ids of `what` that the kernel has, of whoever.
fn all_ids(what: &str) -> BTreeSet<u64> {
    let list = bpftool(&[what, "show"]);
    list.as_array().into_iter().flatten().filter_map(|entry| entry["id"].as_u64()).collect()
}

fn program_names(pid: u32) -> BTreeSet<String> {
    let own = ids("prog", pid);
    let list = bpftool(&["prog", "show"]);
    let entries = list.as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["id"].as_u64().is_some_and(|id| own.contains(&id)))
        .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect()
}

/// The entries of a pinned map, each as named fields.
#[track_caller]
fn dump(pin_dir: &Path, map: &str) -> Vec<Value> {
    let path = pin_dir.join(map).display().to_string();
    let entries = bpftool(&["map", "dump", "pinned", &path]);
    let entries = entries.as_array().unwrap_or_else(|| panic!("no entries: {entries}"));
    entries.iter().map(|entry| entry.get("formatted").unwrap_or(entry).clone()).collect()
}

/// Whether some object below `value` has a field with this name.
fn mentions(value: &Value, part: &str) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, inner)| name.contains(part) || mentions(inner, part)),
        Value::Array(items) => items.iter().any(|item| mentions(item, part)),
        _ => false,
    }
}

/// Whether `value` holds this port: as a number, or as two bytes in network order.
fn has_port(value: &Value, port: u16) -> bool {
    let bytes = port.to_be_bytes();
    match value {
        Value::Number(number) => number.as_u64() == Some(u64::from(port)),
        Value::Array(items) => {
            let numbers: Vec<Option<u64>> = items.iter().map(number).collect();
            numbers == [Some(u64::from(bytes[0])), Some(u64::from(bytes[1]))]
                || items.iter().any(|item| has_port(item, port))
        }
        Value::Object(fields) => fields.values().any(|inner| has_port(inner, port)),
        _ => false,
    }
}

/// A number, also where bpftool writes it as "0x1f".
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    })
}

/// The sum of all numbers below `value`, keys left out: what a counter map has counted.
fn sum(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(sum).sum(),
        Value::Object(fields) => {
            fields.iter().filter(|(name, _)| !matches!(name.as_str(), "key" | "cpu")).map(|(_, inner)| sum(inner)).sum()
        }
        other => number(other).unwrap_or(0),
    }
}

fn pins(pin_dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(pin_dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[test]
fn bpftool_shows_programs_by_name_and_what_they_are_attached_to() {
    if skipped("bpftool_shows_programs_by_name_and_what_they_are_attached_to") {
        return;
    }
    let bench = Bench::start("required");
    let status = bench.device.status();
    let names = program_names(bench.device.pid());
    assert!(!names.is_empty(), "no program: {}", bench.device.output());
    assert!(names.iter().all(|name| name.starts_with("cmim_")), "{names:?}");
    assert!(matches!(status["kernel"]["mode"].as_str(), Some("on" | "partial")), "{status}");
    let programs = status["kernel"]["programs"].as_array().expect("a list");
    let xdp = programs.iter().find(|program| program["kind"] == "xdp").unwrap_or_else(|| panic!("no XDP: {status}"));
    assert!(xdp["attached_to"].to_string().contains(INTERFACE), "{xdp}");
    assert!(xdp["name"].as_str().is_some_and(|name| name.starts_with("cmim_")), "{xdp}");
    assert!(programs.iter().any(|program| program["kind"] == "sk_skb"), "{status}");
    // The kernel keeps 15 characters of a name.
    for program in programs {
        let name: String = program["name"].as_str().expect("a name").chars().take(15).collect();
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    bench.client().get("/").assert_whole(b"ok");
}

#[test]
fn the_pinned_maps_show_fields_by_name_with_true_values() {
    if skipped("the_pinned_maps_show_fields_by_name_with_true_values") {
        return;
    }
    let bench = Bench::start("auto");
    let pin_dir = bench.device.pin_dir();
    let listeners = dump(pin_dir, "CMIM_LISTENERS");
    assert!(listeners.iter().any(|entry| has_port(entry, PORT)), "port {PORT} in {listeners:?}");
    assert!(listeners.iter().all(|entry| mentions(entry, "port")), "fields by name: {listeners:?}");
    let counted = || dump(pin_dir, "CMIM_COUNTERS").iter().map(sum).sum::<u64>();
    let before = counted();
    let mut client = bench.client();
    for _ in 0..20 {
        client.get("/").assert_whole(b"ok");
    }
    let after = counted();
    assert!(after >= before + 20, "the guard saw {before} and then {after} packets");
    let missing: Vec<&str> = ["CMIM_LISTENERS", "CMIM_COUNTERS", "CMIM_CONNECTIONS", "CMIM_SOCKETS"]
        .into_iter()
        .filter(|map| !pin_dir.join(map).exists())
        .collect();
    assert!(missing.is_empty(), "not pinned: {missing:?}");
    assert_eq!(bench.server.request_count(), 20);
}

#[test]
fn nothing_is_left_after_sigterm() {
    if skipped("nothing_is_left_after_sigterm") {
        return;
    }
    let mut bench = Bench::start("auto");
    bench.client().get("/").assert_whole(b"ok");
    let pid = bench.device.pid();
    let (programs, maps) = (ids("prog", pid), ids("map", pid));
    assert!(!programs.is_empty() && !maps.is_empty());
    let pin_dir = bench.device.pin_dir().to_owned();
    assert!(!pins(&pin_dir).is_empty(), "nothing pinned while it runs");
    assert_eq!(bench.device.stop().code(), Some(0), "{}", bench.device.output());
    assert_eq!(pins(&pin_dir), Vec::<String>::new());
    assert!(!pin_dir.exists(), "the pin directory is left");
    // The kernel frees them a moment after the last reference.
    until_true("programs are gone", PATIENCE, || all_ids("prog").is_disjoint(&programs));
    until_true("maps are gone", PATIENCE, || all_ids("map").is_disjoint(&maps));
}

#[test]
fn after_kill_9_traffic_is_unharmed_and_the_next_start_cleans_up() {
    if skipped("after_kill_9_traffic_is_unharmed_and_the_next_start_cleans_up") {
        return;
    }
    let (inside, outside) = (Namespace::new(), Namespace::new());
    inside.join((INTERFACE, "10.77.0.1/24"), &outside, ("peer0", "10.77.0.2/24"));
    let server = inside.run(|| ScriptedServer::at(([0, 0, 0, 0], 0).into(), ok));
    let port = server.socket_address().port();
    let behind = format!("127.0.0.1:{port}");
    let address = ([10, 77, 0, 1], PORT).into();
    let setup = || {
        Setup::before(&[&behind])
            .listen_at(address)
            .kernel("auto", &format!("interfaces = [\"{INTERFACE}\"]\n"))
            .inside(&inside)
    };
    let mut first = setup().start();
    outside.run(|| Client::connect(address).get("/").assert_whole(b"ok"));
    let (programs, maps) = (ids("prog", first.pid()), ids("map", first.pid()));
    assert!(!programs.is_empty());
    first.signal(Signal::KILL);
    first.wait(PATIENCE);
    // Straight to the server, past whatever the dead device left on the interface.
    outside.run(|| Client::connect(([10, 77, 0, 1], port).into()).get("/").assert_whole(b"ok"));
    let pin_dir = first.pin_dir().to_owned();
    let mut second = setup().pinned_at(&pin_dir).start();
    outside.run(|| Client::connect(address).get("/").assert_whole(b"ok"));
    until_true("the dead device's programs are gone", PATIENCE, || all_ids("prog").is_disjoint(&programs));
    assert!(second.stop().success());
    until_true("the dead device's maps are gone", PATIENCE, || all_ids("map").is_disjoint(&maps));
    assert!(!pin_dir.exists(), "left: {:?}", pins(&pin_dir));
}

/// Whether a new connection to the device gets a reply, tried long enough for one SYN and no more.
fn connects(bench: &Bench) -> bool {
    let address = bench.device.address();
    bench.outside.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
}

#[test]
fn deny_add_list_and_remove_keep_a_source_out_and_let_it_in_again() {
    if skipped("deny_add_list_and_remove_keep_a_source_out_and_let_it_in_again") {
        return;
    }
    let bench = Bench::start("required");
    let cmim = |arguments: &[&str]| {
        let output = bench.device.cmim(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let mut open = bench.client();
    open.get("/").assert_whole(b"ok");
    assert_eq!(cmim(&["deny", "list"]).1, "nothing is denied\n");
    assert_eq!(bench.device.json(&["deny", "list"]), json!([]));

    // Host bits and single addresses are taken as they are meant.
    assert_eq!(
        cmim(&["deny", "add", "10.77.0.77/25"]),
        (Some(0), "10.77.0.0/25 is denied\n".to_owned(), String::new())
    );
    assert_eq!(cmim(&["deny", "add", "2001:db8:bad::7"]).0, Some(0));
    assert_eq!(bench.device.json(&["deny", "list"]), json!(["10.77.0.0/25", "2001:db8:bad::7/128"]));
    assert_eq!(cmim(&["deny", "list"]).1, "10.77.0.0/25\n2001:db8:bad::7/128\n");
    let listed = dump(bench.device.pin_dir(), "CMIM_DENY_V4");
    assert!(listed.iter().any(|entry| number(&entry["key"]["prefix_len"]) == Some(25)), "{listed:?}");
    assert!(!connects(&bench), "the source is denied");
    let guard = bench.device.json(&["guard"]);
    assert_eq!(guard["denied"], 2, "{guard}");
    assert!(guard["counters"]["dropped_denied"].as_u64() > Some(0), "{guard}");

    for refused in [["deny", "remove", "10.0.0.0/8"], ["deny", "add", "10.77.0.300"]] {
        let (code, _, why) = cmim(&refused);
        assert_eq!((code, why.lines().count()), (Some(1), 1), "{refused:?}: {why}");
    }
    assert_eq!(cmim(&["deny", "remove", "10.77.0.0/25"]).0, Some(0));
    assert_eq!(cmim(&["deny", "remove", "10.77.0.0/25"]).0, Some(1), "it is gone already");
    until_true("it may connect again", PATIENCE, || connects(&bench));
    open.get("/").assert_whole(b"ok");
    assert_eq!(bench.device.json(&["deny", "list"]), json!(["2001:db8:bad::7/128"]));
}

#[test]
fn guard_shows_interfaces_limits_and_what_was_counted() {
    if skipped("guard_shows_interfaces_limits_and_what_was_counted") {
        return;
    }
    let bench = Bench::start_with("required", "syn_rate_per_source = 1\nsyn_rate_per_listener = 500");
    let before = bench.device.json(&["guard"]);
    assert_eq!(before["interfaces"][0]["name"], INTERFACE, "{before}");
    assert!(matches!(before["interfaces"][0]["place"].as_str(), Some("native" | "generic")), "{before}");
    assert_eq!(
        (&before["syn_rate_per_source"], &before["syn_rate_per_listener"]),
        (&json!(1), &json!(500)),
        "{before}"
    );
    assert_eq!(before["listeners"][0]["listener"], "web", "{before}");
    assert_eq!(before["listeners"][0]["address"], format!("10.77.0.1:{PORT}"), "{before}");

    let mut connected = 0;
    until_true("a SYN is over the limit", PATIENCE, || {
        let passed = connects(&bench);
        connected += u64::from(passed);
        !passed
    });
    assert!(connected >= 1, "the first one is within it");
    let after = bench.device.json(&["guard"]);
    let figure = |pointer: &str| after.pointer(pointer).and_then(Value::as_u64).expect("a number");
    assert!(figure("/counters/dropped_rate") >= 1, "{after}");
    assert!(figure("/listeners/0/syns_passed") >= connected, "{after}");
    assert_eq!(figure("/listeners/0/dropped_rate"), figure("/counters/dropped_rate"), "{after}");
    let counted = ["passed", "dropped_denied", "dropped_flags", "dropped_rate", "cookies_sent"];
    let sum: u64 = counted.iter().map(|name| figure(&format!("/counters/{name}"))).sum();
    assert_eq!(figure("/counters/packets"), sum, "{after}");
    let shown = bench.device.cmim(&["guard"]);
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && page.contains(INTERFACE) && page.contains("1 SYN/s"), "{page}");
}

#[test]
fn a_reload_tells_the_kernel_of_listeners_rates_and_interfaces() {
    if skipped("a_reload_tells_the_kernel_of_listeners_rates_and_interfaces") {
        return;
    }
    let bench = Bench::start_with("required", "syn_rate_per_source = 100");
    bench.client().get("/").assert_whole(b"ok");
    let (old, new) = (format!("10.77.0.1:{PORT}"), "10.77.0.1:8099");
    bench.device.edit(|text| {
        text.replace(&format!("\"{old}\""), &format!("\"{old}\", \"{new}\""))
            .replace("syn_rate_per_source = 100", "syn_rate_per_source = 200")
    });
    let said = bench.device.reload();
    assert!(!said.contains("kernel part:"), "{said}");
    bench.outside.run(|| Client::connect(new.parse().expect("an address"))).get("/").assert_whole(b"ok");
    let guard = bench.device.json(&["guard"]);
    let listeners = guard["listeners"].as_array().expect("a list");
    let counted = |address: &str| {
        let listener = listeners.iter().find(|listener| listener["address"] == *address);
        listener.unwrap_or_else(|| panic!("no {address} in {guard}"))["syns_passed"].as_u64()
    };
    assert_eq!((counted(&old), counted(new)), (Some(1), Some(1)), "counts of those that stay are kept: {guard}");
    assert_eq!(guard["syn_rate_per_source"], 200, "{guard}");

    bench.device.edit(|text| {
        text.replace(&format!(", \"{new}\""), "").replace(&format!("interfaces = [\"{INTERFACE}\"]"), "interfaces = []")
    });
    bench.device.reload();
    let guard = bench.device.json(&["guard"]);
    assert_eq!(guard["interfaces"], json!([]), "{guard}");
    assert_eq!(guard["listeners"].as_array().map(Vec::len), Some(1), "{guard}");
    bench.device.edit(|text| text.replace("interfaces = []", &format!("interfaces = [\"{INTERFACE}\"]")));
    bench.device.reload();
    assert_eq!(bench.device.json(&["guard"])["interfaces"][0]["name"], INTERFACE);
    bench.client().get("/").assert_whole(b"ok");
}

#[test]
fn an_upgrade_hands_guard_pins_and_deny_list_over_under_load() {
    if skipped("an_upgrade_hands_guard_pins_and_deny_list_over_under_load") {
        return;
    }
    let mut bench = Bench::start("required");
    let pinned = pins(bench.device.pin_dir());
    assert!(bench.device.cmim(&["deny", "add", "198.51.100.0/24"]).status.success());
    let load = bench.outside.run(|| Load::on(bench.device.address(), 8));
    load.wait_for_more(100);
    let successor = bench.device.upgrade(&[]);
    load.wait_for_more(100);
    until_true("the old process ends", PATIENCE, || !bench.device.running());
    load.wait_for_more(100);
    load.assert_no_failure();
    let status = bench.device.status();
    assert_eq!((&status["pid"], &status["kernel"]["mode"]), (&json!(successor.pid), &json!("on")), "{status}");
    assert_eq!(pins(bench.device.pin_dir()), pinned);
    let guard = bench.device.json(&["guard"]);
    assert_eq!((&guard["interfaces"][0]["name"], &guard["denied"]), (&json!(INTERFACE), &json!(1)), "{guard}");
    assert!(program_names(successor.pid).contains("cmim_guard"));
    successor.stop();
    assert!(!bench.device.pin_dir().exists(), "nothing is left");
}

#[test]
fn an_upgrade_that_fails_late_gives_guard_and_pins_back() {
    if skipped("an_upgrade_that_fails_late_gives_guard_and_pins_back") {
        return;
    }
    let mut bench = Bench::start("required");
    let pinned = pins(bench.device.pin_dir());
    // It has taken the pins and the interface when it finds no directory for its tier.
    bench
        .device
        .edit(|text| text.replace("[limits]", "[[buffer.tier]]\nkind = \"disk\"\npath = \"/proc/nowhere\"\n[limits]"));
    let refused = bench.device.cmim(&["upgrade"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/proc/nowhere"), "{refused:?}");
    let pid = bench.device.pid();
    assert_eq!(bench.device.status()["pid"], pid);
    assert_eq!(pins(bench.device.pin_dir()), pinned);
    let guard = bench.device.json(&["guard"]);
    assert_eq!(guard["interfaces"][0]["name"], INTERFACE, "{guard}");
    let before = guard["counters"]["packets"].as_u64();
    bench.client().get("/").assert_whole(b"ok");
    assert!(bench.device.json(&["guard"])["counters"]["packets"].as_u64() > before, "it guards");
    assert!(bench.device.running());
    let pin_dir = bench.device.pin_dir().to_owned();
    assert_eq!(bench.device.stop().code(), Some(0), "{}", bench.device.output());
    assert!(!pin_dir.exists(), "nothing is left");
}

#[test]
fn without_a_kernel_part_deny_and_guard_say_so() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    for arguments in [&["deny", "add", "192.0.2.1"][..], &["deny", "list"], &["guard"]] {
        let output = device.cmim(arguments);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), why.lines().count()), (Some(1), 1), "{arguments:?}: {why}");
        assert!(why.contains("no kernel part"), "{arguments:?}: {why}");
    }
}

#[test]
fn mode_off_loads_nothing() {
    if skipped("mode_off_loads_nothing") {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    device.client().get("/").assert_whole(b"ok");
    assert_eq!(ids("prog", device.pid()), BTreeSet::new());
    assert_eq!(ids("map", device.pid()), BTreeSet::new());
    assert!(!device.pin_dir().exists());
    assert_eq!(device.status()["kernel"]["mode"], "off");
}

#[test]
fn a_plain_user_gets_userspace_only_and_is_told_once() {
    if skipped("a_plain_user_gets_userspace_only_and_is_told_once")
        || skip::without_tools("a_plain_user_gets_userspace_only_and_is_told_once", &["setpriv"])
    {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).kernel("auto", "").as_user("nobody").start();
    let mut client = device.client();
    for _ in 0..3 {
        client.get("/").assert_whole(b"ok");
    }
    let status = device.json(&["status"]);
    assert_eq!(status["kernel"]["mode"], "off", "{status}");
    assert!(!status["kernel"]["missing"].as_array().expect("a list").is_empty(), "{status}");
    let output = device.output();
    let told = output.lines().filter(|line| line.to_lowercase().contains("userspace")).count();
    assert_eq!(told, 1, "{output}");
}

#[test]
fn a_plain_user_who_requires_the_kernel_part_is_refused() {
    if skipped("a_plain_user_who_requires_the_kernel_part_is_refused")
        || skip::without_tools("a_plain_user_who_requires_the_kernel_part_is_refused", &["setpriv"])
    {
        return;
    }
    let mut device = Setup::before(&["127.0.0.1:9"]).kernel("required", "").as_user("nobody").launch();
    assert_eq!(device.wait(PATIENCE).code(), Some(1), "{}", device.output());
    assert!(device.output().contains("required"), "{}", device.output());
}

#[test]
fn an_interface_that_is_not_there_is_said_and_required_refuses_it() {
    if skipped("an_interface_that_is_not_there_is_said_and_required_refuses_it") {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).kernel("auto", "interfaces = [\"nosuch0\"]").start();
    device.client().get("/").assert_whole(b"ok");
    until("it is said", Duration::from_secs(2), || device.output().contains("nosuch0").then_some(()));
    assert!(device.status()["kernel"]["missing"].to_string().contains("nosuch0"), "{}", device.status());
    let mut refused = Setup::before(&[server.address()]).kernel("required", "interfaces = [\"nosuch0\"]").launch();
    assert_eq!(refused.wait(PATIENCE).code(), Some(1), "{}", refused.output());
    assert!(refused.output().contains("nosuch0"), "{}", refused.output());
}
