//! `cmim upgrade`, and sockets that the service manager opened (docs/operations.md).

use std::io::BufRead as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::{ok, replies, with_length};
use cmim_tests::ports::Reserved;
use cmim_tests::{Client, Device, Load, ScriptedServer, Setup, skip};
use serde_json::Value;

fn named(name: &'static str) -> ScriptedServer {
    ScriptedServer::start(replies(move |_| with_length(name.as_bytes())))
}

#[test]
fn an_upgrade_under_load_fails_no_request() {
    let server = named("a");
    let mut device = Device::before(&[server.address()]);
    let load = Load::on(device.address(), 16);
    load.wait_for_more(300);
    let successor = device.upgrade(&[]);
    let old = device.pid();
    assert!(successor.said.contains(&format!("has taken over; pid {old} finishes its ")), "{}", successor.said);
    until_true("the old process ends", PATIENCE, || !device.running());
    load.wait_for_more(300);
    assert_eq!(device.status()["pid"], successor.pid);
    // And once more, from there.
    let next = device.upgrade(&[]);
    until_true("it has answered", PATIENCE, || device.status()["pid"] == next.pid);
    load.wait_for_more(300);
    let tally = load.assert_no_failure();
    // A client that comes again may still meet the old process.
    assert!(tally.closed >= 16, "each connection was told to close, behind a reply: {tally:?}");
    next.stop();
    assert!(!device.control().exists(), "nothing is left");
}

#[test]
fn a_request_in_flight_is_finished_and_an_idle_connection_gets_one_more() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/slow" {
                std::thread::sleep(Duration::from_millis(500));
            }
            if !side.send(with_length(b"a")) {
                return;
            }
        }
    });
    let mut device = Device::before(&[server.address()]);
    let (mut busy, mut idle) = (device.client(), device.client());
    idle.get("/").assert_whole(b"a");
    busy.send(request("GET", "/slow", "", b""));
    server.wait_for(2);
    let _successor = device.upgrade(&[]);
    let last = idle.get("/");
    last.assert_whole(b"a");
    assert_eq!(last.fields().joined("connection"), "close");
    idle.assert_ended();
    busy.reply().assert_whole(b"a");
    busy.assert_ended();
    until_true("the old process ends", PATIENCE, || !device.running());
    device.client().get("/").assert_whole(b"a");
}

#[test]
fn what_the_file_has_now_is_what_the_new_process_does() {
    let server = named("a");
    let device = Device::before(&[server.address()]);
    let new = Reserved::v4();
    device.edit(|text| {
        let old = device.address();
        text.replace("workers = 2", "workers = 3")
            .replace(&format!("\"{old}\""), &format!("\"{old}\", \"{}\"", new.address()))
    });
    let _successor = device.upgrade(&[]);
    assert_eq!(device.figure("/workers"), 3);
    let load = Load::on(device.address(), 12);
    load.wait_for_more(100);
    load.assert_no_failure();
    Client::connect(new.address()).get("/").assert_whole(b"a");
}

#[test]
fn the_admin_address_goes_over_too() {
    let server = named("a");
    let admin = Reserved::v4();
    let device =
        Setup::before(&[server.address()]).daemon(&format!("metrics_address = \"{}\"", admin.address())).start();
    // It keeps the old process draining for a while.
    let mut idle = device.client();
    idle.get("/").assert_whole(b"a");
    let _successor = device.upgrade(&[]);
    until_true("the new process alone answers", PATIENCE, || {
        Client::connect(admin.address()).get("/readyz").status() == 200
    });
    for _ in 0..5 {
        assert_eq!(Client::connect(admin.address()).get("/readyz").status(), 200);
    }
    assert_eq!(idle.get("/").status(), 200);
}

#[test]
fn a_binary_that_does_not_start_leaves_the_old_process_in_place() {
    let server = named("a");
    let directory = tempfile::tempdir().expect("a directory");
    let tier = directory.path().display();
    let mut device = Setup::before(&[server.address()])
        .buffer(&format!("[[buffer.tier]]\nkind = \"disk\"\npath = \"{tier}\"\nsize = \"16MiB\""))
        .start();
    let load = Load::on(device.address(), 4);
    load.wait_for_more(50);
    let refused = |arguments: &[&str]| {
        let output = device.cmim(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["upgrade", "--binary", "/bin/false"]).contains("ended (exit status: 1) before it was ready"));
    assert!(refused(&["upgrade", "--binary", "/nowhere/cmim"]).contains("cannot start /nowhere/cmim"));
    device.edit(|text| text.replace("[limits]", "[limits]\nnonsense = 1"));
    assert!(refused(&["upgrade"]).contains("limits.nonsense: unknown key"));
    // This one fails behind the point where the old process has let go of the tier's directory.
    device.edit(|text| {
        text.replace("nonsense = 1", "").replace(&format!("path = \"{tier}\""), "path = \"/proc/nowhere\"")
    });
    assert!(refused(&["upgrade"]).contains("/proc/nowhere"));
    load.wait_for_more(50);
    let tally = load.assert_no_failure();
    assert_eq!(tally.closed, 0, "the old process goes on as before");
    assert!(device.running());
    assert_eq!(device.status()["pid"], device.pid());
    device.edit(|text| text.replace("path = \"/proc/nowhere\"", &format!("path = \"{tier}\"")));
    let _successor = device.upgrade(&[]);
    device.client().get("/").assert_whole(b"a");
}

/// Runs the device as systemd would: with a listening socket as descriptor 3, and NOTIFY_SOCKET.
const ACTIVATE: &str = "\
import os, socket, sys
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen(64)
port = listening.getsockname()[1]
directory, server, binary = sys.argv[1:4]
with open(directory + '/cmim.toml', 'w') as file:
    file.write(f'''[daemon]
workers = 2
control_socket = \"{directory}/control.sock\"
shutdown_grace = \"5s\"
[kernel]
mode = \"off\"
[access_log]
path = \"off\"
[[listener]]
address = \"127.0.0.1:{port}\"
[[upstream]]
servers = [{{ address = \"{server}\" }}]
''')
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', NOTIFY_SOCKET=directory + '/notify.sock')
print(port, flush=True)
os.execv(binary, ['cmim', 'run', '--config', directory + '/cmim.toml'])
";

#[test]
fn a_socket_of_the_service_manager_is_used_and_handed_on_and_the_manager_is_told() {
    if skip::without_tools(
        "a_socket_of_the_service_manager_is_used_and_handed_on_and_the_manager_is_told",
        &["python3"],
    ) {
        return;
    }
    let server = ScriptedServer::start(ok);
    let directory = tempfile::tempdir().expect("a directory");
    let manager = UnixDatagram::bind(directory.path().join("notify.sock")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let heard = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).expect("a word to the manager");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut command = std::process::Command::new("python3");
    command.args(["-c", ACTIVATE]).arg(directory.path()).arg(server.address()).arg(cmim_tests::device::binary());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("python3");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a port");
    let address: std::net::SocketAddr = format!("127.0.0.1:{}", line.trim()).parse().expect("a port");
    assert_eq!(heard(), "READY=1\n");
    let control = directory.path().join("control.sock");
    let cmim = |arguments: &[&str]| {
        let mut command = std::process::Command::new(cmim_tests::device::binary());
        let output = command.args(arguments).arg("--control").arg(&control).output().expect("running cmim");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let load = Load::on(address, 8);
    load.wait_for_more(50);
    cmim(&["upgrade"]);
    let status: Value = serde_json::from_str(&cmim(&["status", "--json"])).expect("JSON");
    // The new process is not the main one before the old one says so; what it says until then is not heard.
    let words = [heard(), heard()];
    assert!(words.contains(&format!("MAINPID={}\n", status["pid"])), "{words:?}");
    load.wait_for_more(50);
    load.assert_no_failure();
    assert!(child.wait().expect("a child of ours").success());
    cmim(&["drain"]);
    assert!(Client::try_connect(address).is_err(), "nobody listens there any more");
}
