//! Every kind of error with its place and its words.

use std::path::Path;

use proptest::prelude::{any, proptest};

use super::example::EXAMPLE;
use super::{SMALLEST, messages, read};
use crate::config::load;

/// Checks the one message for each value of a key of the whole device, written on line 1.
#[track_caller]
fn check_device(key: &str, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let text = format!("{key} = {value}\n{SMALLEST}");
        let column = key.len() + 4;
        assert_eq!(messages(&text), [format!("1:{column}: {key}: {expected}")], "{key} = {value}");
    }
}

/// The same for a key of the only listener, on line 2.
#[track_caller]
fn check_listener(key: &str, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let text = SMALLEST.replacen("[[listener]]\n", &format!("[[listener]]\n{key} = {value}\n"), 1);
        assert_eq!(messages(&text), [format!("2:{expected}")], "{key} = {value}");
    }
}

/// The same for a key of the only upstream, on line 4.
#[track_caller]
fn check_upstream(key: &str, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let text = SMALLEST.replacen("[[upstream]]\n", &format!("[[upstream]]\n{key} = {value}\n"), 1);
        assert_eq!(messages(&text), [format!("4:{expected}")], "{key} = {value}");
    }
}

/// The same for the list of servers, on line 4.
#[track_caller]
fn check_servers(cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        let text = SMALLEST.replace("[{ address = \"127.0.0.1:9001\" }]", value);
        assert_eq!(messages(&text), [format!("4:{expected}")], "servers = {value}");
    }
}

#[test]
fn unknown_keys_name_the_nearest_or_the_known_ones() {
    let text = format!("[kernal]\nmode = \"auto\"\n{SMALLEST}");
    assert_eq!(messages(&text), ["1:2: kernal: unknown key; did you mean \"kernel\"?"]);
    let text = format!("[access_log]\nrotate = true\n{SMALLEST}");
    assert_eq!(messages(&text), ["2:1: access_log.rotate: unknown key; known: \"path\", \"format\""]);
    let text = format!("{SMALLEST}balence = \"hash\"\n");
    assert_eq!(messages(&text), ["5:1: upstream[0].balence: unknown key; did you mean \"balance\"?"]);
    let text = SMALLEST.replace("\" }]", "\", weigth = 2 }]");
    assert_eq!(messages(&text), ["4:42: upstream[0].servers[0].weigth: unknown key; did you mean \"weight\"?"]);
    let text = format!("{SMALLEST}[upstream.health]\nevery_ = \"2s\"\n");
    assert_eq!(messages(&text), ["6:1: upstream[0].health.every_: unknown key; did you mean \"every\"?"]);
    let text = format!("[[buffer.tier]]\nkind = \"disk\"\nsizes = 5\n{SMALLEST}");
    assert_eq!(messages(&text), ["3:1: buffer.tier[0].sizes: unknown key; did you mean \"size\"?"]);
    let text = SMALLEST.replacen("\n[[up", "\nroutes = [{ hots = \"a.b\", upstream = \"app\" }]\n[[up", 1);
    assert_eq!(messages(&text), ["3:13: listener[0].routes[0].hots: unknown key; did you mean \"host\"?"]);
}

#[test]
fn wrong_sizes_say_what_a_size_is() {
    let size = "expected a size such as \"64KiB\", \"256MiB\" or a number of bytes, found";
    check_device(
        "limits.request_head",
        &[
            ("\"32K\"", &format!("{size} \"32K\"; did you mean \"32KiB\"?")),
            ("true", &format!("{size} true")),
            ("1.5", &format!("{size} the fraction 1.5")),
            ("[1]", &format!("{size} a list")),
            ("-1", &format!("{size} -1")),
            ("0", "expected a size of at least 1, found 0"),
            ("\"17MiB\"", "expected a size of at most 16MiB, found \"17MiB\""),
        ],
    );
    check_device(
        "buffer.memory",
        &[
            ("\"0MiB\"", "expected a size of at least 1, found \"0MiB\""),
            ("\"99999999999TiB\"", "expected a size of at most 1048576TiB, found \"99999999999TiB\""),
            (
                "99999999999999999999999999999999999999999",
                &format!("{size} the number 99999999999999999999999999999999999999999, which no key can hold"),
            ),
        ],
    );
    check_device(
        "buffer.memory_per_reply",
        &[("\"257MiB\"", "expected a size of at most buffer.memory, which is 256MiB, found \"257MiB\"")],
    );
}

#[test]
fn wrong_durations_say_what_a_duration_is() {
    let duration = "expected a duration such as \"250ms\", \"10s\", \"5m\" or \"1h\", found";
    check_device(
        "timeouts.client_head",
        &[
            ("10", &format!("{duration} 10; did you mean \"10s\"?")),
            ("\"10sec\"", &format!("{duration} \"10sec\"; did you mean \"10s\"?")),
            ("\"soon\"", &format!("{duration} \"soon\"")),
            ("2026-01-01", &format!("{duration} the date 2026-01-01")),
            ("\"0s\"", "expected a duration longer than nothing, found \"0s\""),
            ("\"9000h\"", "expected a duration of at most 8760h, found \"9000h\""),
        ],
    );
}

#[test]
fn wrong_numbers_and_switches_say_their_range() {
    check_device(
        "daemon.workers",
        &[
            ("0", "expected a whole number from 1 to 1024, found 0"),
            ("\"all\"", "expected \"auto\" or a whole number from 1 to 1024, found \"all\""),
            ("\"Auto\"", "expected \"auto\" or a whole number from 1 to 1024, found \"Auto\"; did you mean \"auto\"?"),
        ],
    );
    check_device(
        "limits.client_connections",
        &[
            ("0", "expected a whole number from 1 to 1000000000, found 0"),
            ("\"many\"", "expected a whole number from 1 to 1000000000, found \"many\""),
        ],
    );
    check_listener(
        "pipeline_depth",
        &[("0", "18: listener[0].pipeline_depth: expected a whole number from 1 to 1024, found 0")],
    );
    check_listener(
        "allow_connect",
        &[("\"no\"", "17: listener[0].allow_connect: expected true or false, found \"no\"")],
    );
    check_upstream(
        "server_pipeline",
        &[
            ("0", "19: upstream[0].server_pipeline: expected a whole number from 1 to 64, found 0"),
            ("65", "19: upstream[0].server_pipeline: expected a whole number from 1 to 64, found 65"),
        ],
    );
    check_upstream("retries", &[("101", "11: upstream[0].retries: expected a whole number from 0 to 100, found 101")]);
    check_upstream(
        "health",
        &[
            ("{ rise = 0 }", "19: upstream[0].health.rise: expected a whole number from 1 to 1000, found 0"),
            (
                "\"/up\"",
                "10: upstream[0].health: expected a table such as { path = \"/healthz\", every = \"2s\" }, found \"/up\"",
            ),
        ],
    );
}

#[test]
fn wrong_choices_list_the_right_ones() {
    check_device("kernel.mode", &[("\"on\"", "expected \"auto\", \"required\" or \"off\", found \"on\"")]);
    check_device(
        "kernel.xdp_mode",
        &[("\"natve\"", "expected \"auto\", \"native\" or \"generic\", found \"natve\"; did you mean \"native\"?")],
    );
    check_device("access_log.format", &[("5", "expected \"json\" or \"combined\", found 5")]);
    check_device(
        "access_log.path",
        &[("\"stdot\"", "expected \"stdout\", \"off\" or an absolute path, found \"stdot\"; did you mean \"stdout\"?")],
    );
    check_upstream(
        "balance",
        &[(
            "\"leastrequests\"",
            "11: upstream[0].balance: expected \"least-requests\", \"round-robin\", \"random-two\" or \"hash\", \
         found \"leastrequests\"; did you mean \"least-requests\"?",
        )],
    );
    check_upstream(
        "hash_on",
        &[(
            "\"header:\"",
            "11: upstream[0].hash_on: expected \"client-address\", \"target\", \"header:NAME\" or \"cookie:NAME\", \
         found \"header:\"",
        )],
    );
}

#[test]
fn wrong_paths_and_names_say_their_form() {
    check_device("kernel.pin_dir", &[("\"bpf\"", "expected an absolute path, found \"bpf\"")]);
    check_device("daemon.user", &[("\"\"", "expected the name of a user, such as \"cmim\", found \"\"")]);
    check_device(
        "daemon.metrics_address",
        &[(
            "\"9900\"",
            "expected an IP address and a port such as \"0.0.0.0:80\" or \"[::]:80\", found \"9900\"; \
         did you mean \"0.0.0.0:9900\"?",
        )],
    );
    let long = format!("/{}", "a".repeat(107));
    let text = format!("daemon.control_socket = \"{long}\"\n{SMALLEST}");
    let shown = format!("/{}", "a".repeat(79));
    assert_eq!(
        messages(&text),
        [format!("1:25: daemon.control_socket: expected a socket's path of at most 107 bytes, found \"{shown}\"…")]
    );
    let name = "expected a name of letters, digits, \".\", \"_\" and \"-\", at most 64 of them, found";
    check_listener("name", &[("\"my web\"", &format!("8: listener[0].name: {name} \"my web\""))]);
    let interfaces = format!("kernel.interfaces = [\"eth0\", \"eth 1\", \"eth0\"]\n{SMALLEST}");
    assert_eq!(
        messages(&interfaces),
        [
            "1:30: kernel.interfaces[1]: expected the name of a network interface, such as \"eth0\", found \"eth 1\"",
            "1:39: kernel.interfaces[2]: the interface \"eth0\" is already used by kernel.interfaces[0] (line 1)",
        ]
    );
}

#[test]
fn tiers_are_of_two_kinds_and_on_two_paths() {
    let tiers = "\
[[buffer.tier]]
kind = \"flash\"
path = \"/var/a\"
[[buffer.tier]]
kind = \"flash\"
path = \"/var/a\"
size = 0
[[buffer.tier]]
path = \"cache\"
";
    assert_eq!(
        messages(&format!("{tiers}{SMALLEST}")),
        [
            "5:8: buffer.tier[1].kind: the kind of tier \"flash\" is already used by buffer.tier[0].kind (line 2)",
            "6:8: buffer.tier[1].path: the path \"/var/a\" is already used by buffer.tier[0].path (line 3)",
            "7:8: buffer.tier[1].size: expected a size of at least 1, found 0",
            "8:1: buffer.tier[2].kind: missing; add kind = \"flash\" or kind = \"disk\"",
            "9:8: buffer.tier[2].path: expected an absolute path, found \"cache\"",
        ]
    );
}

#[test]
fn a_tier_without_a_path_takes_its_kind_s_and_may_collide_with_it() {
    let tiers =
        "[[buffer.tier]]\nkind = \"flash\"\n[[buffer.tier]]\nkind = \"disk\"\npath = \"/var/cache/cmim/flash\"\n";
    assert_eq!(
        messages(&format!("{tiers}{SMALLEST}")),
        [
            "5:8: buffer.tier[1].path: the path \"/var/cache/cmim/flash\" is already used by buffer.tier[0].kind (line 2)"
        ]
    );
}

#[test]
fn nothing_configured_says_what_to_add() {
    let listener =
        "1:1: listener: missing; add a section [[listener]] with an address, such as address = \"0.0.0.0:80\"";
    let upstream = "1:1: upstream: missing; add a section [[upstream]] with its servers, \
                    such as servers = [{ address = \"127.0.0.1:9001\" }]";
    assert_eq!(messages(""), [listener, upstream]);
    assert_eq!(messages("listener = []\nupstream = []\n"), [listener, upstream]);
    let text = format!("# comment\n{}", SMALLEST.split("[[upstream]]").next().unwrap());
    assert_eq!(messages(&text), [upstream], "a name is not dangling where there is nothing to name");
    assert_eq!(
        messages("[[listener]]\n  [[upstream]]\n"),
        [
            "1:1: listener[0].address: missing; add where to listen, such as address = \"0.0.0.0:80\"",
            "2:3: upstream[0].servers: missing; add at least one server, such as servers = [{ address = \"127.0.0.1:9001\" }]",
        ]
    );
}

#[test]
fn single_brackets_where_a_list_is_meant_are_named() {
    let text = SMALLEST.replace("[[listener]]", "[listener]");
    assert_eq!(messages(&text), ["1:1: listener: expected a list of tables: [[listener]], found a table"]);
    let text = format!("[[daemon]]\nuser = \"cmim\"\n{SMALLEST}");
    assert_eq!(messages(&text), ["1:1: daemon: expected a table: [daemon], found a list"]);
}

#[test]
fn listen_addresses_are_checked_over_all_listeners() {
    let text = "\
daemon.metrics_address = \"127.0.0.1:9900\"
[[listener]]
address = [\"127.0.0.1:80\", \"*:80\", \"127.0.0.1:9900\", \"127.0.0.1:0\", \"127.0.0.1:0\"]
[[listener]]
address = \"127.0.0.1:80\"
[[listener]]
address = []
[[listener]]
address = 80
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
";
    assert_eq!(
        messages(text),
        [
            "3:28: listener[0].address[1]: expected an IP address and a port such as \"0.0.0.0:80\" or \"[::]:80\", \
             found \"*:80\"; did you mean \"0.0.0.0:80\"?",
            "3:36: listener[0].address[2]: the address \"127.0.0.1:9900\" is already used by daemon.metrics_address (line 1)",
            "5:11: listener[1].address: the address \"127.0.0.1:80\" is already used by listener[0].address[0] (line 3)",
            "7:11: listener[2].address: expected at least one address such as \"0.0.0.0:80\", found an empty list",
            "9:11: listener[3].address: expected an address such as \"0.0.0.0:80\", or a list of them, found 80",
        ]
    );
}

#[test]
fn servers_are_checked_one_by_one() {
    let address = "expected an address such as \"10.0.0.11:8080\", \"[2001:db8::11]:8080\" or \"unix:/run/app.sock\"";
    check_servers(&[
        (
            "[]",
            "11: upstream[0].servers: expected at least one server such as { address = \"10.0.0.11:8080\" }, found an empty list",
        ),
        (
            "\"10.0.0.1:80\"",
            "11: upstream[0].servers: expected a list of servers such as [{ address = \"10.0.0.11:8080\" }], found \"10.0.0.1:80\"",
        ),
        (
            "[\"10.0.0.1:80\"]",
            "12: upstream[0].servers[0]: expected a server such as { address = \"10.0.0.11:8080\" }, found \"10.0.0.1:80\"",
        ),
        (
            "[{ weight = 1 }]",
            "12: upstream[0].servers[0].address: missing; add the server's address, such as address = \"127.0.0.1:9001\"",
        ),
        (
            "[{ address = \"10.0.0.1\" }]",
            &format!(
                "24: upstream[0].servers[0].address: {address}, found \"10.0.0.1\"; did you mean \"10.0.0.1:8080\"?"
            ),
        ),
        (
            "[{ address = \"unix:app.sock\" }]",
            "24: upstream[0].servers[0].address: expected unix: with an absolute path, found \"unix:app.sock\"",
        ),
        (
            "[{ address = \"10.0.0.1:80\" }, { address = \"10.0.0.1:80\" }]",
            "53: upstream[0].servers[1].address: the address \"10.0.0.1:80\" is already used by \
             upstream[0].servers[0].address (line 4)",
        ),
        (
            "[{ address = \"10.0.0.1:80\", weight = 257 }]",
            "48: upstream[0].servers[0].weight: expected a whole number from 1 to 256, found 257",
        ),
        (
            "[{ address = \"10.0.0.1:80\", weight = 0 }]",
            "48: upstream[0].servers[0].weight: expected a whole number from 1 to 256, found 0",
        ),
        (
            "[{ address = \"10.0.0.1:80\", max_requests = -1 }]",
            "54: upstream[0].servers[0].max_requests: expected a whole number from 0 to 1000000000, found -1",
        ),
    ]);
}

#[test]
fn a_host_name_that_nothing_resolves_is_refused() {
    // RFC 6761 6.4: "invalid" never resolves.
    let text = SMALLEST.replace("127.0.0.1:9001", "app.invalid:80");
    let refused = messages(&text).concat();
    assert!(
        refused.starts_with(
            "4:24: upstream[0].servers[0].address: expected an address, or a host name that this host can resolve ("
        ),
        "{refused}"
    );
    assert!(refused.ends_with("), such as \"10.0.0.11:80\", found \"app.invalid:80\""), "{refused}");
}

#[test]
fn names_that_dangle_or_stand_twice_are_named() {
    let text = "\
[[listener]]
name = \"web\"
address = \"127.0.0.1:1\"
upstream = \"ap\"
routes = [{ path = \"/s/\", upstream = \"media\" }, { path = \"/t/\" }, { path = \"/s/\", upstream = \"app\" }, { path = \"/s/\", upstream = \"app\" }]
[[listener]]
name = \"web\"
address = \"127.0.0.1:2\"
[[upstream]]
name = \"app\"
servers = [{ address = \"127.0.0.1:9001\" }]
[[upstream]]
name = \"static\"
servers = [{ address = \"127.0.0.1:9001\" }]
[[upstream]]
name = \"app\"
servers = [{ address = \"127.0.0.1:9001\" }]
";
    assert_eq!(
        messages(text),
        [
            "4:12: listener[0].upstream: no upstream is named \"ap\"; did you mean \"app\"?",
            "5:38: listener[0].routes[0].upstream: no upstream is named \"media\"; known: \"app\", \"static\", \"app\"",
            "5:49: listener[0].routes[1].upstream: missing; add the name of the upstream that the route leads to",
            "5:103: listener[0].routes[3]: the route \"/s/\" is already used by listener[0].routes[2] (line 5)",
            "6:1: listener[1].upstream: missing; there are several upstreams; add upstream = one of \"app\", \"static\", \"app\"",
            "7:8: listener[1].name: the listener name \"web\" is already used by listener[0].name (line 2)",
            "16:8: upstream[2].name: the upstream name \"app\" is already used by upstream[0].name (line 10)",
        ]
    );
}

#[test]
fn wrong_routes_and_networks_name_the_right_ones() {
    check_listener(
        "routes",
        &[
            (
                "[{ host = \"a.b:80\", upstream = \"app\" }]",
                "20: listener[0].routes[0].host: expected a host name without port, such as \"img.example.org\", \
             found \"a.b:80\"; did you mean \"a.b\"?",
            ),
            (
                "[{ path = \"s\", upstream = \"app\" }]",
                "20: listener[0].routes[0].path: expected a path that begins with \"/\", such as \"/static/\", \
             found \"s\"; did you mean \"/s\"?",
            ),
            (
                "{}",
                "10: listener[0].routes: expected a list of routes such as [{ path = \"/static/\", upstream = \"static\" }], \
             found a table",
            ),
        ],
    );
    check_listener(
        "trusted_proxies",
        &[
            (
                "[\"10.1.0.0/8\"]",
                "20: listener[0].trusted_proxies[0]: expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", \
             found \"10.1.0.0/8\"; did you mean \"10.0.0.0/8\"?",
            ),
            (
                "[5]",
                "20: listener[0].trusted_proxies[0]: expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", found 5",
            ),
        ],
    );
}

#[test]
fn columns_count_characters_not_bytes() {
    let text = SMALLEST.replace("[{ address", "[{ \"größe\" = 1, address");
    assert_eq!(
        messages(&text),
        [
            "4:14: upstream[0].servers[0].größe: unknown key; known: \"address\", \"weight\", \"max_requests\", \"backup\""
        ]
    );
    let text = format!("limits = {{ \"ä\" = 1, request_heads = 1 }}\n{SMALLEST}");
    assert_eq!(messages(&text)[1], "1:21: limits.request_heads: unknown key; did you mean \"request_head\"?");
}

#[test]
fn all_errors_of_a_file_come_in_its_order() {
    let text = "\
[limits]
request_heads = 5
request_target = \"8K\"

[[listener]]
upstream = \"ap\"

[[upstream]]
servers = []
retries = -1

[daemon]
workers = 0
";
    let places: Vec<String> =
        messages(text).iter().map(|message| message.splitn(4, ':').take(3).collect::<Vec<&str>>().join(":")).collect();
    assert_eq!(
        places,
        [
            "2:1: limits.request_heads",
            "3:18: limits.request_target",
            "5:1: listener[0].address",
            "6:12: listener[0].upstream",
            "9:11: upstream[0].servers",
            "10:11: upstream[0].retries",
            "13:11: daemon.workers",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_refused_with_every_line_that_is_wrong() {
    let text = "[daemon]\nworkers = auto\nshutdown_grace = 10s\n[daemon]\n[x\n";
    assert_eq!(
        messages(text),
        [
            "2:11: not TOML: a text stands in quotes, such as \"auto\"",
            "3:18: not TOML: a value with a unit stands in quotes, such as \"64KiB\" or \"10s\"",
            "4:2: not TOML: duplicate key",
            "5:3: not TOML: unclosed table, expected `]`",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_way_out() {
    let errors = load(Path::new("/nonexistent/cmim.toml")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "/nonexistent/cmim.toml: cannot be read: No such file or directory (os error 2); \
         check its path and rights, or run without a file: cmim run --listen ADDRESS --server ADDRESS"
    );
    let errors = load(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(errors.to_string(), "/dev/zero: is larger than 16777216 bytes; is it a configuration file?");
}

#[test]
fn a_file_that_is_no_utf_8_is_refused_where_it_stops_to_be() {
    let path = std::env::temp_dir().join(format!("cmim-config-{}.toml", std::process::id()));
    std::fs::write(&path, b"# \xc3\xa4\n# \xc3\xa4 \xff\n").unwrap();
    let errors = load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        errors.to_string(),
        format!("{}:2:5: not TOML: this byte is no UTF-8; save the file as UTF-8", path.display())
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_change_of_a_file_panics_or_is_refused_without_a_word(
        at in 0..EXAMPLE.len(),
        length in 0..40_usize,
        put in "[a-z0-9\"=\\[\\]{}.,\n -]{0,12}",
        cut in any::<bool>(),
    ) {
        // With Unix sockets only, no change makes a host name that would be looked up.
        let file = EXAMPLE.replace("10.0.0.11:8080", "unix:/run/one").replace("[2001:db8::12]:80", "unix:/run/two");
        let at = at.min(file.len());
        let end = if cut { file.len() } else { (at + length).min(file.len()) };
        let (start, rest) = (file.get(..at), file.get(end..));
        if let (Some(start), Some(rest)) = (start, rest) {
            let text = format!("{start}{put}{rest}");
            if let Err(errors) = read(&text) {
                assert!(!errors.errors().is_empty());
                assert_eq!(errors.to_string().lines().count(), errors.errors().len());
            }
        }
    }
}
