//! Section 9, guard: the block list, the counters and the rates, from the command line, over a reload and an upgrade.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use cmim_tests::bpftool::{dump, number, pins, program_names};
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::guarded::{INTERFACE, PORT, skipped};
use cmim_tests::origin::faulty::ok;
use cmim_tests::{Client, Device, Guarded, Load, ScriptedServer};
use serde_json::{Value, json};

/// Whether a new connection to the device gets a reply, tried long enough for one SYN and no more.
fn connects(bench: &Guarded) -> bool {
    let address = bench.device.address();
    bench.outside.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
}

#[test]
fn deny_add_list_and_remove_keep_a_source_out_and_let_it_in_again() {
    if skipped("deny_add_list_and_remove_keep_a_source_out_and_let_it_in_again") {
        return;
    }
    let bench = Guarded::start("required");
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
    let bench = Guarded::start_with("required", "syn_rate_per_source = 1\nsyn_rate_per_listener = 500");
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
    let counted = ["passed", "dropped_denied", "dropped_flags", "dropped_rate", "dropped_wrapped", "cookies_sent"];
    let sum: u64 = counted.iter().map(|name| figure(&format!("/counters/{name}"))).sum();
    assert_eq!(figure("/counters/packets"), sum, "{after}");
    let shown = bench.device.cmim(&["guard"]);
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && page.contains(INTERFACE) && page.contains("1 SYN/s"), "{page}");
}

#[test]
fn the_metrics_have_the_guards_counters_by_reason_and_listener() {
    if skipped("the_metrics_have_the_guards_counters_by_reason_and_listener") {
        return;
    }
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 9_900));
    let bench = Guarded::start_with_daemon(&format!("metrics_address = \"{metrics}\""), "syn_rate_per_source = 1");
    until_true("a SYN is over the limit", PATIENCE, || !connects(&bench));
    let told = bench.device.json(&["guard"]);
    let text = bench.inside.run(|| Client::connect(metrics).get("/metrics").text());
    let (counters, listener) = (&told["counters"], &told["listeners"][0]);
    let of = format!("listener=\"web\",address=\"10.77.0.1:{PORT}\"");
    for (name, figure) in [
        ("cmim_guard_dropped_total{reason=\"rate\"}".to_owned(), &counters["dropped_rate"]),
        ("cmim_guard_dropped_total{reason=\"denied\"}".to_owned(), &counters["dropped_denied"]),
        (format!("cmim_guard_listener_syns_passed_total{{{of}}}"), &listener["syns_passed"]),
        (format!("cmim_guard_listener_dropped_total{{{of},reason=\"rate\"}}"), &listener["dropped_rate"]),
    ] {
        let line = format!("{name} {figure}");
        assert!(text.lines().any(|found| found == line), "no `{line}` in {text}");
    }
    assert!(counters["dropped_rate"].as_u64() > Some(0), "{told}");
}

#[test]
fn a_reload_tells_the_kernel_of_listeners_rates_and_interfaces() {
    if skipped("a_reload_tells_the_kernel_of_listeners_rates_and_interfaces") {
        return;
    }
    let bench = Guarded::start_with("required", "syn_rate_per_source = 100");
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
    let mut bench = Guarded::start("required");
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
    let mut bench = Guarded::start("required");
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
fn required_takes_changes_while_an_interface_is_gone() {
    if skipped("required_takes_changes_while_an_interface_is_gone") {
        return;
    }
    let bench = Guarded::start("required");
    bench.inside.ip(&["link", "delete", INTERFACE]);
    until_true("it is missed", PATIENCE, || bench.device.status()["kernel"]["missing"].to_string().contains(INTERFACE));
    let added = bench.device.cmim(&["servers", "add", "app", "127.0.0.1:9"]);
    assert!(added.status.success(), "{added:?}");
    let new = "127.0.0.1:8099";
    bench.device.edit(|text| {
        text.replace(&format!("\"10.77.0.1:{PORT}\""), &format!("\"10.77.0.1:{PORT}\", \"{new}\""))
            .replace(&format!("interfaces = [\"{INTERFACE}\"]"), "interfaces = []")
    });
    bench.device.reload();
    bench.inside.run(|| Client::connect(new.parse().expect("an address")).get("/").assert_whole(b"ok"));
    let status = bench.device.status();
    assert_eq!((&status["kernel"]["missing"], &status["kernel"]["mode"]), (&json!([]), &json!("on")), "{status}");
}

#[test]
fn a_reload_that_fails_late_leaves_the_networks_of_before_where_they_were() {
    if skipped("a_reload_that_fails_late_leaves_the_networks_of_before_where_they_were") {
        return;
    }
    let bench = Guarded::start("required");
    let network = "203.0.113.0/24:80";
    bench.inside.ip(&["route", "add", "local", "203.0.113.0/24", "dev", "lo"]);
    bench.outside.ip(&["route", "add", "203.0.113.0/24", "via", "10.77.0.1"]);
    let own = format!("\"10.77.0.1:{PORT}\"");
    bench.device.edit(|text| text.replace(&own, &format!("{own}, \"{network}\"")));
    bench.device.reload();
    let ask = || bench.outside.run(|| Client::connect(([203, 0, 113, 7], 80).into()).get("/").assert_whole(b"ok"));
    ask();
    // More networks than there are rows of sockets: the first take what the one that goes had, the last is refused.
    let many: Vec<String> = (1..=129).map(|port| format!("\"203.0.113.0/25:{}\"", 1000 + port)).collect();
    bench.device.edit(|text| text.replace(&format!("\"{network}\""), &many.join(", ")));
    let refused = bench.device.cmim(&["reload"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("CMIM_LISTENING is full"), "{why}");
    for _ in 0..4 {
        ask();
    }
}
