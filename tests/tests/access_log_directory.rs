//! docs/access-log.md: the directory of the access log is made where it is missing, at the start and at a reload.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::ok;
use cmim_tests::{Device, ScriptedServer, Setup, skip};
use rustix::process::Signal;

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[track_caller]
fn logs_a_request(device: &Device, path: &Path) {
    let before = lines(path);
    device.client().get("/").assert_whole(b"ok");
    until_true("the request is in the log", PATIENCE, || lines(path) == before + 1);
}

#[test]
fn a_missing_directory_is_made_at_the_start_and_at_a_reload() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).access_log("logs/access.log").start();
    logs_a_request(&device, &device.directory().join("logs/access.log"));
    device.edit(|text| text.replace("/logs/access.log", "/more/access.log"));
    let checked = device.cmim(&["check", &device.file().display().to_string()]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(!device.directory().join("more").exists(), "cmim check makes nothing");
    device.reload();
    logs_a_request(&device, &device.directory().join("more/access.log"));
}

#[test]
fn two_missing_directories_are_a_slip_and_refused() {
    let mut device = Setup::before(&["127.0.0.1:9"]).access_log("no/such/access.log").launch();
    assert_eq!(device.wait(PATIENCE).code(), Some(1));
    device.wait_to_say("access_log.path: cannot open");
    assert!(!device.directory().join("no").exists());
}

#[test]
fn the_user_that_the_daemon_becomes_opens_the_log_anew_where_it_was_made() {
    let name = "the_user_that_the_daemon_becomes_opens_the_log_anew_where_it_was_made";
    if skip::without_root(name) {
        return;
    }
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()])
        .daemon("user = \"nobody\"")
        .access_log("logs/access.log")
        .open_to_all()
        .start();
    let path = device.directory().join("logs/access.log");
    logs_a_request(&device, &path);
    assert_eq!(std::fs::metadata(&path).expect("the log").uid(), 0, "root can open it again at the next start");
    let rotated = device.directory().join("logs/access.log.1");
    std::fs::rename(&path, &rotated).expect("rotated");
    device.signal(Signal::HUP);
    until_true("the log is opened anew", PATIENCE, || path.exists());
    logs_a_request(&device, &path);
    assert_eq!(lines(&rotated), 1);
    // Without a rotation, too.
    device.signal(Signal::HUP);
    until_true("both were heard", PATIENCE, || device.output().matches("access log reopened").count() == 2);
}
