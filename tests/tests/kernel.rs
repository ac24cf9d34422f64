//! docs/bpftool.md: what bpftool sees while the device runs, that nothing is left after it, and hosts that allow less.

use std::collections::BTreeSet;

use cmim_tests::bpftool::{all_ids, dump, ids, names_of, number, pins, program_names};
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::guarded::{INTERFACE, PORT, skipped};
use cmim_tests::origin::faulty::ok;
use cmim_tests::{Client, Device, Guarded, Namespace, ScriptedServer, Setup, skip};
use rustix::process::Signal;
use serde_json::Value;

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

#[test]
fn bpftool_shows_programs_by_name_and_what_they_are_attached_to() {
    if skipped("bpftool_shows_programs_by_name_and_what_they_are_attached_to") {
        return;
    }
    let bench = Guarded::start("required");
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
    let bench = Guarded::start("auto");
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
    let mut bench = Guarded::start("auto");
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
    // docs/bpftool.md: a pinned sockhash holds its program.
    let mut held = names_of(&programs);
    assert!(held.contains("cmim_verdict"), "{held:?}");
    held.retain(|name| matches!(name.as_str(), "cmim_verdict" | "cmim_local_msg"));
    first.signal(Signal::KILL);
    first.wait(PATIENCE);
    until_true("the programs that pins hold are left, and no others", PATIENCE, || names_of(&programs) == held);
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

/// The rights of the installed unit.
fn unit_rights() -> &'static str {
    let unit = include_str!("../../packaging/cmim.service");
    unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("the unit limits them")
}

#[test]
fn with_the_units_rights_and_a_user_each_start_can_pin_and_each_end_removes_the_pins() {
    let name = "with_the_units_rights_and_a_user_each_start_can_pin_and_each_end_removes_the_pins";
    if skipped(name) || skip::without_tools(name, &["setpriv"]) {
        return;
    }
    let server = ScriptedServer::start(ok);
    let setup = || {
        Setup::before(&[server.address()]).daemon("user = \"nobody\"").kernel("required", "").with_rights(unit_rights())
    };
    let mut device = setup().start();
    let pin_dir = device.pin_dir().to_owned();
    let pinned = pins(&pin_dir);
    assert!(pinned.contains(&"CMIM_LISTENERS".to_owned()), "{pinned:?}");
    // The first leaves its pins to the next one; that and the last end by themselves.
    device.signal(Signal::KILL);
    device.wait(PATIENCE);
    for _ in 0..2 {
        let mut device = setup().pinned_at(&pin_dir).start();
        device.client().get("/").assert_whole(b"ok");
        assert_eq!(pins(&pin_dir), pinned);
        assert!(device.stop().success(), "{}", device.output());
        assert_eq!(pins(&pin_dir), Vec::<String>::new());
    }
    std::fs::remove_dir(&pin_dir).expect("an empty directory");
}

#[test]
fn an_interface_that_is_not_there_is_said_and_required_refuses_it() {
    if skipped("an_interface_that_is_not_there_is_said_and_required_refuses_it") {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).kernel("auto", "interfaces = [\"nosuch0\"]").start();
    device.client().get("/").assert_whole(b"ok");
    device.wait_to_say("nosuch0");
    assert!(device.status()["kernel"]["missing"].to_string().contains("nosuch0"), "{}", device.status());
    let mut refused = Setup::before(&[server.address()]).kernel("required", "interfaces = [\"nosuch0\"]").launch();
    assert_eq!(refused.wait(PATIENCE).code(), Some(1), "{}", refused.output());
    assert!(refused.output().contains("nosuch0"), "{}", refused.output());
}
