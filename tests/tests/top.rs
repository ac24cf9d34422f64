//! `cmim top` in a terminal of its own.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cmim_tests::deadline::{PATIENCE, until, until_true};
use cmim_tests::origin::faulty::ok;
use cmim_tests::{Device, ScriptedServer, skip};

#[test]
fn top_shows_the_device_drains_the_selected_server_and_ends_at_q() {
    if skip::without_tools("top_shows_the_device_drains_the_selected_server_and_ends_at_q", &["script"]) {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let command = format!(
        "stty rows 24 columns 100; exec {} top --control {}",
        cmim_tests::device::binary().display(),
        device.control().display()
    );
    let mut terminal = Command::new(skip::find("script").expect("script"));
    terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("TERM", "xterm");
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("running script");
    let shown = Arc::new(Mutex::new(Vec::new()));
    let mut output = child.stdout.take().expect("its output");
    let reading = {
        let shown = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = std::io::Read::read(&mut output, &mut part) {
                shown.lock().expect("the screen").extend_from_slice(&part[..count]);
            }
        })
    };
    let shows = |text: &str| String::from_utf8_lossy(&shown.lock().expect("the screen")).contains(text);
    until_true("the table is there", PATIENCE, || shows(server.address()) && shows("FAILURES"));
    let mut keys = child.stdin.take().expect("its keyboard");
    keys.write_all(b"d").expect("a key");
    until_true("the server is drained", PATIENCE, || device.json(&["servers"])[0]["state"] == "draining");
    until_true("the screen says so", PATIENCE, || shows("takes no new requests"));
    keys.write_all(b"q").expect("a key");
    let status = until("it ends", PATIENCE, || child.try_wait().expect("a child of ours"));
    assert!(status.success(), "{status}");
    drop(keys);
    reading.join().expect("reading");
    let piped = device.cmim(&["top"]);
    assert_eq!(piped.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("this needs a terminal"));
}
