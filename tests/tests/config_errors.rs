//! docs/configuration.md: a bad configuration is refused with its place, what was expected, and the nearest valid name.

use std::process::{Command, Output};

use cmim_tests::deadline::PATIENCE;
use cmim_tests::device::binary;
use cmim_tests::process::Process;
use tempfile::TempDir;

/// A configuration that is right; the tests break it.
const GOOD: &str = r#"[daemon]
workers = 2
shutdown_grace = "5s"

[limits]
request_head = "32KiB"

[[listener]]
name = "web"
address = ["127.0.0.1:8080"]
upstream = "app"

[[upstream]]
name = "app"
hold_time = "2s"
servers = [ { address = "127.0.0.1:9001" } ]
"#;

struct Checked {
    output: Output,
    _directory: TempDir,
}

impl Checked {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("cmim.toml");
        std::fs::write(&file, text).expect("a file");
        let output = Command::new(binary()).arg("check").arg(file).output().expect("running cmim check");
        Self { output, _directory: directory }
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Replaces `from` by `to` in the good configuration and holds that it is refused with all of `words`, at the line of
/// the change.
#[track_caller]
fn assert_refused(from: &str, to: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from} is not in the good configuration");
    let text = GOOD.replacen(from, to, 1);
    let checked = Checked::new(&text);
    let errors = checked.errors();
    assert_eq!(checked.output.status.code(), Some(1), "`{to}` was accepted: {errors}");
    let first = GOOD[..GOOD.find(from).expect("the change")].lines().count().max(1);
    let places: Vec<String> = (first..=first + to.lines().count()).map(|line| format!("cmim.toml:{line}:")).collect();
    assert!(places.iter().any(|place| errors.contains(place.as_str())), "`{to}`: not at {places:?}: {errors}");
    for word in words {
        assert!(errors.contains(word), "`{to}`: no word of {word}: {errors}");
    }
}

#[test]
fn a_good_configuration_says_what_it_would_do() {
    let checked = Checked::new(GOOD);
    let said = String::from_utf8_lossy(&checked.output.stdout).into_owned();
    assert_eq!(checked.output.status.code(), Some(0), "{}", checked.errors());
    for word in ["127.0.0.1:8080", "127.0.0.1:9001", "app"] {
        assert!(said.contains(word), "no word of {word}: {said}");
    }
}

#[test]
fn unknown_keys_come_with_the_nearest_name() {
    assert_refused("hold_time", "hold_tiem", &["hold_tiem", "hold_time"]);
    assert_refused("request_head", "reqest_head", &["reqest_head", "request_head"]);
    assert_refused("[limits]", "[limit]", &["limit", "limits"]);
    assert_refused("{ address = \"127.0.0.1:9001\"", "{ adress = \"127.0.0.1:9001\"", &["adress", "address"]);
    assert_refused("name = \"web\"", "name = \"web\"\nuptsream = \"x\"", &["uptsream", "upstream"]);
}

#[test]
fn bad_values_come_with_what_was_expected() {
    assert_refused("\"2s\"", "\"2 parsecs\"", &["hold_time", "2 parsecs"]);
    assert_refused("\"2s\"", "\"-2s\"", &["hold_time"]);
    assert_refused("\"32KiB\"", "\"32KB?\"", &["request_head", "32KB?"]);
    assert_refused("\"32KiB\"", "true", &["request_head"]);
    assert_refused("workers = 2", "workers = 0", &["workers"]);
    assert_refused("workers = 2", "workers = \"many\"", &["workers", "auto"]);
    assert_refused("127.0.0.1:8080", "localhost", &["address", "localhost"]);
    assert_refused("127.0.0.1:8080", "127.0.0.1:99999", &["address"]);
    assert_refused("127.0.0.1:9001", "127.0.0.1", &["address"]);
    assert_refused("hold_time = \"2s\"", "length_rewrite = \"allways\"", &["length_rewrite", "always"]);
    assert_refused("hold_time = \"2s\"", "balance = \"round-robbin\"", &["balance", "round-robin"]);
}

#[test]
fn dangling_names_come_with_the_nearest_one() {
    assert_refused("upstream = \"app\"", "upstream = \"ap\"", &["ap", "app"]);
    assert_refused(
        "upstream = \"app\"",
        "upstream = \"app\"\nroutes = [ { path = \"/x/\", upstream = \"appp\" } ]",
        &["appp", "app"],
    );
}

#[test]
fn missing_and_repeated_things_are_named() {
    assert_refused("servers = [ { address = \"127.0.0.1:9001\" } ]", "servers = []", &["servers"]);
    assert_refused("{ address = \"127.0.0.1:9001\" }", "{ weight = 1 }", &["address"]);
    let twice = GOOD.to_owned() + "\n[[upstream]]\nname = \"app\"\nservers = [ { address = \"127.0.0.1:9002\" } ]\n";
    let checked = Checked::new(&twice);
    assert_eq!(checked.output.status.code(), Some(1), "two upstreams of one name");
    assert!(checked.errors().contains("app"), "{}", checked.errors());
}

#[test]
fn broken_toml_comes_with_its_place() {
    assert_refused("hold_time = \"2s\"", "hold_time = = \"2s\"", &[]);
    assert_refused("[limits]", "[limits", &[]);
}

#[test]
fn every_error_is_said_and_not_only_the_first() {
    let text =
        GOOD.replace("hold_time", "hold_tiem").replace("\"32KiB\"", "\"much\"").replace("workers = 2", "workers = 0");
    let errors = Checked::new(&text).errors();
    for word in ["hold_tiem", "request_head", "workers"] {
        assert!(errors.contains(word), "no word of {word}: {errors}");
    }
}

#[test]
fn a_network_is_refused_where_the_kernel_part_is_off() {
    assert_refused(
        "[[listener]]\nname = \"web\"\naddress = [\"127.0.0.1:8080\"]",
        "[kernel]\nmode = \"off\"\n[[listener]]\nname = \"web\"\naddress = [\"203.0.113.0/24:80-89\"]",
        &["listener[0].address[0]", "203.0.113.0/24:80-89", "kernel.mode"],
    );
}

#[test]
fn run_refuses_a_bad_configuration_as_check_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("cmim.toml");
    std::fs::write(&file, GOOD.replace("hold_time", "hold_tiem")).expect("a file");
    let output = Command::new(binary()).arg("run").arg("--config").arg(&file).output().expect("running cmim");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("hold_tiem") && errors.contains("hold_time"), "{errors}");
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let output = Command::new(binary()).args(["check", "/nonexistent/cmim.toml"]).output().expect("running cmim");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/cmim.toml"));
}

#[test]
fn the_defaults_are_commented_and_check() {
    let defaults = Command::new(binary()).args(["config", "defaults"]).output().expect("running cmim");
    let text = String::from_utf8_lossy(&defaults.stdout).into_owned();
    assert!(defaults.status.success());
    for key in
        ["hold_time", "pipeline_depth", "client_head", "pin_dir", "memory_per_reply", "shutdown_grace", "retries"]
    {
        assert!(text.contains(key), "no {key} in the defaults");
    }
    assert!(text.lines().filter(|line| line.contains('#')).count() > 20, "hardly a comment");
    // Only a listener's address and a server's have no default: with theirs uncommented, the file is whole.
    let whole = text.replace("# address = ", "address = ").replace("# servers = ", "servers = ");
    let checked = Checked::new(&whole);
    assert_eq!(checked.output.status.code(), Some(0), "{}", checked.errors());
}

#[test]
fn a_control_socket_that_could_not_be_upgraded_is_refused_from_the_flag_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("cmim.toml");
    let text = "kernel.mode = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                [[upstream]]\nservers = [{ address = \"127.0.0.1:9\" }]\n";
    std::fs::write(&file, text).expect("a configuration");
    let socket = format!("/tmp/{}", "s".repeat(99));
    let mut command = Command::new(binary());
    command.args(["run", "--config", &file.display().to_string(), "--control", &socket]);
    let mut process = Process::start("cmim run", &mut command);
    assert_eq!(process.wait(PATIENCE).code(), Some(2), "{}", process.output());
    let error = process.output();
    assert!(error.starts_with("--control: expected a socket's path of at most 103 bytes"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}
