//! Configurations from flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::model::{AccessLogPath, KernelMode, LengthRewrite};
use crate::config::{Config, Quick, defaults, quick};

fn flags(listen: &[&str], servers: &[&str], set: &[&str]) -> Quick {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Quick { listen: owned(listen), servers: owned(servers), set: owned(set), ..Quick::default() }
}

fn set(set: &[&str]) -> Config {
    quick(&flags(&["127.0.0.1:8080"], &["127.0.0.1:9001"], set)).unwrap()
}

fn messages(options: &Quick) -> Vec<String> {
    let errors = quick(options).expect_err("flags that are refused");
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn addresses_and_servers_make_a_device_with_the_defaults_that_logs_to_stdout() {
    let config = quick(&flags(&["127.0.0.1:8080", "[::1]:0"], &["127.0.0.1:9001", "unix:/run/app.sock"], &[])).unwrap();
    let mut expected = defaults::config();
    expected.access_log.path = AccessLogPath::Stdout;
    expected.listeners[0].address = config.listeners[0].address.clone();
    expected.upstreams[0].servers = config.upstreams[0].servers.clone();
    assert_eq!(config, expected);
    let listen: Vec<String> = config.listeners[0].address.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:8080", "[::1]:0"]);
    let servers: Vec<String> = config.upstreams[0].servers.iter().map(|server| server.address.to_string()).collect();
    assert_eq!(servers, ["127.0.0.1:9001", "unix:/run/app.sock"]);
}

#[test]
fn every_flag_reaches_its_key() {
    let options = Quick {
        kernel: Some("off".to_owned()),
        workers: Some("3".to_owned()),
        control: Some(PathBuf::from("run/control.sock")),
        pin_dir: Some(PathBuf::from("/sys/fs/bpf/test")),
        interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        access_log: Some("off".to_owned()),
        ..flags(&["127.0.0.1:8080"], &["localhost:9001"], &[])
    };
    let config = quick(&options).unwrap();
    assert_eq!(config.kernel.mode, KernelMode::Off);
    assert_eq!(config.daemon.workers, 3);
    assert_eq!(config.daemon.control_socket, std::env::current_dir().unwrap().join("run/control.sock"));
    assert_eq!(config.kernel.pin_dir, Path::new("/sys/fs/bpf/test"));
    assert_eq!(config.kernel.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.access_log.path, AccessLogPath::Off);
    assert_eq!(config.upstreams[0].servers[0].address.to_string(), "127.0.0.1:9001");
    let auto = Quick { workers: Some("auto".to_owned()), ..options };
    assert_eq!(quick(&auto).unwrap().daemon.workers, defaults::workers());
}

#[test]
fn set_reaches_any_key_in_toml_and_plain_words_need_no_quotes() {
    let config = set(&[
        "upstream.length_rewrite=\"always\"",
        "limits.request_head=16KiB",
        "upstream.hold_time = 250ms",
        "upstream.retries=0",
        "listener.routes=[{ path = \"/a\", upstream = \"app\" }]",
        "access_log.path=/tmp/access.log",
        "buffer.tier=[{ kind = \"disk\", path = \"/tmp/disk\", size = \"1GiB\" }]",
    ]);
    let app = &config.upstreams[0];
    assert_eq!(app.length_rewrite, LengthRewrite::Always);
    assert_eq!(app.hold_time, Duration::from_millis(250));
    assert_eq!(app.retries, 0);
    assert_eq!(config.limits.request_head, 16 << 10);
    assert_eq!(config.listeners[0].routes.len(), 1);
    assert_eq!(config.access_log.path, AccessLogPath::File(PathBuf::from("/tmp/access.log")));
    assert_eq!(config.buffer.tiers.len(), 1);
}

#[test]
fn set_goes_before_other_flags_and_the_last_set_wins() {
    let servers = "upstream.servers=[{ address = \"127.0.0.1:5\", max_requests = 1 }]";
    let config = set(&[servers, "upstream.retries=1", "upstream.retries=5"]);
    assert_eq!(config.upstreams[0].servers.len(), 1);
    assert_eq!(config.upstreams[0].servers[0].max_requests, Some(1));
    assert_eq!(config.upstreams[0].retries, 5);
    let alone = flags(&[], &[], &[servers, "listener.address=\"127.0.0.1:4\""]);
    assert!(quick(&alone).is_ok());
}

#[test]
fn every_message_names_its_flag() {
    let options = Quick {
        kernel: Some("on".to_owned()),
        workers: Some("0".to_owned()),
        access_log: Some("log".to_owned()),
        interfaces: vec!["a/b".to_owned()],
        ..flags(
            &[":80"],
            &["10.0.0.1", "127.0.0.1:1", "127.0.0.1:1"],
            &["upstream.balence=hash", "limits.request_head=\"x\"", "foo"],
        )
    };
    assert_eq!(
        messages(&options),
        [
            "--listen: expected an IP address and a port such as \"0.0.0.0:80\" or \"[::]:80\", found \":80\"; \
             did you mean \"0.0.0.0:80\"?",
            "--server: expected an address such as \"10.0.0.11:8080\", \"[2001:db8::11]:8080\" or \"unix:/run/app.sock\", \
             found \"10.0.0.1\"; did you mean \"10.0.0.1:8080\"?",
            "--server: the address \"127.0.0.1:1\" is already used by an earlier --server",
            "--kernel: expected \"auto\", \"required\" or \"off\", found \"on\"",
            "--workers: expected a whole number from 1 to 1024, found 0",
            "--interface: expected the name of a network interface, such as \"eth0\", found \"a/b\"",
            "--access-log: expected \"stdout\", \"off\" or an absolute path, found \"log\"",
            "--set: upstream[0].balence: unknown key; did you mean \"balance\"?",
            "--set: limits.request_head: expected a size such as \"64KiB\", \"256MiB\" or a number of bytes, found \"x\"",
            "--set: expected KEY=VALUE in TOML, such as limits.request_head=\"16KiB\", found \"foo\"",
        ]
    );
}

#[test]
fn flags_without_an_address_or_a_server_say_which_is_missing() {
    assert_eq!(
        messages(&Quick::default()),
        [
            "--listen: missing; name at least one, such as --listen 127.0.0.1:8080",
            "--server: missing; name at least one, such as --server 127.0.0.1:9001",
        ]
    );
}

#[test]
fn a_set_of_the_wrong_shape_is_refused_by_its_key() {
    let refused = |setting: &str| messages(&flags(&["127.0.0.1:1"], &["127.0.0.1:2"], &[setting])).join("\n");
    assert_eq!(refused("kernel=off"), "--set: kernel: expected a table: [kernel], found \"off\"");
    assert_eq!(refused("listener=5"), "--set: listener: expected a list of tables: [[listener]], found 5");
    assert_eq!(
        refused("kernel.mode.x=5"),
        "--set: kernel.mode: expected \"auto\", \"required\" or \"off\", found a table"
    );
    for setting in ["", "=", "x=", "x", "# comment"] {
        assert!(refused(setting).starts_with("--set: expected KEY=VALUE in TOML"), "{setting}");
    }
}
