//! Keys that nobody knows, and values that a key cannot have.

use super::super::{SMALLEST, messages};
use super::{check_device, check_listener, check_upstream};

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
    let long = format!("/{}", "a".repeat(103));
    let text = format!("daemon.control_socket = \"{long}\"\n{SMALLEST}");
    let shown = format!("/{}", "a".repeat(79));
    assert_eq!(
        messages(&text),
        [format!(
            "1:25: daemon.control_socket: expected a socket's path of at most 103 bytes (an upgrade's has 4 more), \
             found \"{shown}\"…"
        )]
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
