//! docs/commands.md: the commands, their exit codes, their texts and their JSON.

use std::process::{Command, Output};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::device::binary;
use cmim_tests::origin::faulty::ok;
use cmim_tests::ports::Reserved;
use cmim_tests::process::Process;
use cmim_tests::{Client, Device, ScriptedServer, ServerSide, Setup};
use serde_json::Value;

fn cmim(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("running cmim")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_numbers(value: &Value, pointers: &[&str]) {
    for pointer in pointers {
        assert!(value.pointer(pointer).is_some_and(Value::is_u64), "no number {pointer} in {value:#}");
    }
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_right() {
    for (arguments, said) in [
        (["statsu"].as_slice(), "did you mean 'status'?"),
        (&["run", "--no-such-flag"], "'--no-such-flag'"),
        (&["status", "one", "too", "many"], "'one'"),
        (&["run", "--listen", "127.0.0.1:1"], "--server <ADDRESS>"),
        (&["completions", "no-such-shell"], "zsh"),
    ] {
        let output = cmim(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(error.trim_end().lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.starts_with("cmim: ") && error.contains("--help"), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?} has no {said}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    // A name that says too little is no slip: the whole help.
    let bare = cmim(&[]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(text(&bare.stderr).contains("Usage"), "{}", text(&bare.stderr));
    assert!(bare.stdout.is_empty());
}

#[test]
fn help_and_version_exit_0() {
    let help = cmim(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in ["run", "check", "config", "doctor", "status", "connections", "servers"] {
        assert!(text(&help.stdout).contains(command), "{command} is not in the help");
        assert_eq!(cmim(&[command, "--help"]).status.code(), Some(0), "{command} --help");
    }
    assert!(text(&cmim(&["--version"]).stdout).starts_with("cmim "));
}

#[test]
fn without_a_daemon_a_command_exits_1_in_one_clear_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("none.sock").display().to_string();
    for command in [["status"].as_slice(), &["connections"], &["servers"], &["config", "show"], &["status", "--json"]] {
        let output = cmim(&[command, &["--control", &socket]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{command:?}: {error}");
        assert!(error.contains(&socket), "{command:?} does not say which socket: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn status_has_every_figure_of_the_contract() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    for _ in 0..3 {
        client.get("/");
    }
    let status = device.status();
    assert_numbers(
        &status,
        &[
            "/client_connections/open",
            "/client_connections/accepted_total",
            "/server_connections/open",
            "/server_connections/idle",
            "/server_connections/opened_total",
            "/server_connections/reused_total",
            "/requests_total",
            "/replies/rewritten_total",
            "/replies/streamed_total",
            "/replies/spilled_total",
            "/stacked/noticed_total",
            "/stacked/distributed_total",
            "/stacked/in_flight",
            "/jobs/active",
            "/jobs/queued",
            "/jobs/done_total",
        ],
    );
    for field in ["used", "size", "replies", "spilled_total", "refused_total"] {
        assert_numbers(&status, &[&format!("/buffers/memory/{field}")]);
    }
    for lane in ["copy", "pipe", "sockmap", "local"] {
        for field in ["active", "splices_total", "bytes_total"] {
            assert_numbers(&status, &[&format!("/lanes/{lane}/{field}")]);
        }
    }
    assert!(status["buffers"].get("flash").is_none() && status["buffers"].get("disk").is_none(), "{status}");
    assert_eq!(status["kernel"]["mode"], "off", "{status}");
    assert_eq!(status["kernel"]["programs"], Value::Array(Vec::new()), "{status}");
    let first = &status["servers"][0];
    assert_eq!((first["upstream"].as_str(), first["state"].as_str()), (Some("app"), Some("up")), "{status}");
    assert_eq!(first["address"], server.address(), "{status}");
    assert_numbers(first, &["/in_flight", "/idle", "/requests_total", "/failures_total"]);
    assert_eq!(status["client_connections"]["open"], 1, "{status}");
    assert_eq!(status["requests_total"], 3, "{status}");
    assert_eq!(status["pid"], device.pid(), "{status}");
}

#[test]
fn status_fits_one_screen() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let screen = text(&device.cmim(&["status"]).stdout);
    assert!((5..=40).contains(&screen.lines().count()), "{screen}");
    assert!(screen.contains(server.address()), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 120), "{screen}");
}

#[test]
fn connections_lists_each_client() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    assert_eq!(device.json(&["connections"]), Value::Array(Vec::new()));
    let mut first = device.client();
    let mut second = device.client();
    first.get("/");
    first.get("/");
    second.get("/");
    let list = device.json(&["connections"]);
    let all = list.as_array().expect("a list");
    assert_eq!(all.len(), 2, "{list}");
    let own = first.wire().socket().local_addr().expect("an address").as_socket().expect("an IP address").to_string();
    let entry = all.iter().find(|entry| entry["address"] == own).unwrap_or_else(|| panic!("{own} in {list}"));
    assert_eq!(entry["requests"], 2, "{entry}");
    assert_eq!(entry["listener"], "web", "{entry}");
    assert_eq!(entry["state"], "idle", "{entry}");
    assert!(entry["bytes_in"].as_u64() > Some(40) && entry["bytes_out"].as_u64() > Some(40), "{entry}");
    assert!(entry["age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{entry}");
    let table = text(&device.cmim(&["connections"]).stdout);
    assert!(table.contains(&own), "{table}");
    drop((first, second));
    until_true("they are gone from the list", PATIENCE, || device.json(&["connections"]) == Value::Array(Vec::new()));
}

#[test]
fn connections_and_servers_show_what_is_in_flight() {
    let server = ScriptedServer::start(ServerSide::wait_closed);
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send(request("GET", "/", "", b""));
    until_true("the request waits for its reply", PATIENCE, || device.json(&["servers"])[0]["in_flight"] == 1);
    let entry = device.json(&["connections"])[0].clone();
    assert_eq!((entry["state"].as_str(), entry["stacked"].as_u64()), (Some("waiting"), Some(1)), "{entry}");
    assert_eq!(device.figure("/jobs/active"), 1);
    // A reset, not a half-close: nobody is there to take the reply.
    client.into_wire().reset();
    until_true("it is cancelled with its client", PATIENCE, || device.json(&["servers"])[0]["in_flight"] == 0);
    until_true("and its server connection closed", PATIENCE, || server.open() == 0);
    assert_eq!(device.figure("/jobs/active"), 0);
}

#[test]
fn servers_lists_addresses_and_states() {
    let (a, b) = (ScriptedServer::start(ok), ScriptedServer::start(ok));
    let device = Setup::before(&[a.address()]).server(&format!("address = \"{}\", weight = 3", b.address())).start();
    let list = device.json(&["servers"]);
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!((list[1]["address"].as_str(), list[1]["weight"].as_u64()), (Some(b.address()), Some(3)), "{list}");
    let table = text(&device.cmim(&["servers"]).stdout);
    for word in [a.address(), b.address(), "app", "up"] {
        assert!(table.contains(word), "no {word}: {table}");
    }
}

#[test]
fn an_action_takes_the_control_socket_in_front_of_it() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let control = device.control().display().to_string();
    let drained = cmim(&["servers", "--control", &control, "drain", "app", server.address()]);
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    assert_eq!(device.json(&["servers"])[0]["state"], "draining");
    let cancelled = cmim(&["jobs", "--control", &control, "cancel", "9.9"]);
    assert_eq!(cancelled.status.code(), Some(1), "no such job: {}", text(&cancelled.stderr));
    let json = cmim(&["servers", "--json", "--control", &control, "enable", "app", server.address()]);
    assert_eq!(json.status.code(), Some(2), "a change has no form as JSON");
    assert!(text(&json.stderr).contains("--json"), "{}", text(&json.stderr));
    assert_eq!(device.json(&["servers"])[0]["state"], "draining", "nothing was changed");
}

#[test]
fn config_show_is_a_configuration_that_checks() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).upstream("hold_time = \"1234ms\"").start();
    let shown = device.cmim(&["config", "show"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).contains("1234ms"), "{}", text(&shown.stdout));
    let file = device.directory().join("shown.toml");
    std::fs::write(&file, &shown.stdout).expect("a file");
    let check = cmim(&["check", &file.display().to_string()]);
    assert!(check.status.success(), "{}{}", text(&check.stdout), text(&check.stderr));
}

#[test]
fn doctor_says_what_this_host_allows() {
    let output = cmim(&["doctor"]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}{}", text(&output.stderr));
    for word in
        ["xdp", "sk_skb", "bpftool prog show name cmim_guard", "bpftool map dump pinned /sys/fs/bpf/cmim/CMIM_COUNTERS"]
    {
        assert!(report.contains(word), "no word of {word}: {report}");
    }
    let json = cmim(&["doctor", "--json"]);
    let findings: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let lanes = findings.as_array().expect("a list").iter().filter(|finding| finding["kind"] == "lane");
    let lanes: Vec<&str> = lanes.filter_map(|lane| lane["name"].as_str()).collect();
    assert_eq!(lanes, ["copy", "pipe", "sockmap", "local"]);
}

#[test]
fn run_by_flags_needs_no_file() {
    let server = ScriptedServer::start(ok);
    let directory = tempfile::tempdir().expect("a directory");
    let unix = ScriptedServer::unix(&directory.path().join("app.sock"), ok);
    let port = Reserved::v4();
    let control = directory.path().join("control.sock").display().to_string();
    let mut command = Command::new(binary());
    command.args([
        "run",
        "--listen",
        &port.address().to_string(),
        "--server",
        server.address(),
        "--server",
        unix.address(),
    ]);
    let mut process = Process::start("cmim run", command.args(["--kernel", "off", "--control", &control]));
    process.wait_for(port.address());
    let mut client = Client::connect(port.address());
    until_true("both servers are used", PATIENCE, || {
        client.get("/").assert_whole(b"ok");
        let mut others: Vec<Client> = (0..4).map(|_| Client::connect(port.address())).collect();
        others.iter_mut().for_each(|other| other.send(request("GET", "/", "", b"")));
        others.iter_mut().for_each(|other| other.reply().assert_whole(b"ok"));
        server.request_count() > 0 && unix.request_count() > 0
    });
    let status = cmim(&["status", "--json", "--control", &control]);
    assert!(status.status.success(), "{}", text(&status.stderr));
}

#[test]
fn a_port_in_use_is_said_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let mut device = Setup::before(&["127.0.0.1:9"]).listen_at(address).launch();
    assert_eq!(device.wait(PATIENCE).code(), Some(1));
    assert!(device.output().contains(&address.to_string()), "{}", device.output());
    assert!(device.output().to_lowercase().contains("in use"), "{}", device.output());
}

#[test]
fn a_control_socket_in_use_is_refused_and_a_dead_one_replaced() {
    let server = ScriptedServer::start(ok);
    let mut device = Device::before(&[server.address()]);
    let reserved = Reserved::v4();
    let port = reserved.address().to_string();
    let control = device.control().display().to_string();
    let arguments = ["run", "--listen", &port, "--server", server.address(), "--kernel", "off", "--control", &control];
    let mut second = Process::start("a second cmim", Command::new(binary()).args(arguments));
    assert_eq!(second.wait(PATIENCE).code(), Some(1));
    assert!(second.output().contains(&control), "{}", second.output());
    assert_eq!(device.client().get("/").status(), 200, "the first one is unharmed");
    assert!(device.cmim(&["status"]).status.success());
    device.signal(rustix::process::Signal::KILL);
    device.wait(PATIENCE);
    assert!(device.control().exists(), "a killed daemon leaves its socket behind");
    let _third = Process::start("a third cmim", Command::new(binary()).args(arguments));
    until("the third answers", PATIENCE, || device.cmim(&["status"]).status.success().then_some(()));
}

#[test]
fn the_control_socket_is_for_its_owner_alone_and_goes_with_the_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let server = ScriptedServer::start(ok);
    let mut device = Device::before(&[server.address()]);
    let mode = std::fs::metadata(device.control()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o007, 0, "others may control the daemon: {mode:o}");
    assert!(device.stop().success());
    assert!(!device.control().exists());
}
