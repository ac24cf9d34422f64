//! Sections that are missing, whose parts contradict each other, or which name what is not there.

use super::super::{SMALLEST, messages, read};
use super::{check_listener, check_servers};

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
address = [\"127.0.0.1:80\", \"*:80\", \"127.0.0.1:9900\"]
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
fn a_free_port_is_asked_for_once_for_each_ip() {
    let text = "\
daemon.metrics_address = \"127.0.0.1:0\"
[[listener]]
address = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"]
[[listener]]
address = \"127.0.0.1:0\"
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
";
    assert_eq!(
        messages(text),
        ["5:11: listener[1].address: the address \"127.0.0.1:0\" (one port of the kernel's choice for each IP; give \
             this one its number) is already used by listener[0].address[0] (line 3)"]
    );
    assert!(read(&text.replace("\"127.0.0.1:0\"\n[[upstream]]", "\"127.0.0.3:0\"\n[[upstream]]")).is_ok());
}

#[test]
fn networks_and_ranges_of_ports_are_refused_without_the_kernel_part() {
    let text = |mode: &str| {
        let many = "[\"203.0.113.0/24:80-89\", \"127.0.0.1:80\", \"203.0.113.7:90-91\"]";
        format!("kernel.mode = \"{mode}\"\n{}", SMALLEST.replacen("\"127.0.0.1:8080\"", many, 1))
    };
    let expected = "expected one address and one port, since networks and ranges of ports need the kernel part and \
                    kernel.mode is \"off\", found";
    assert_eq!(
        messages(&text("off")),
        [
            format!("3:12: listener[0].address[0]: {expected} \"203.0.113.0/24:80-89\""),
            format!("3:52: listener[0].address[2]: {expected} \"203.0.113.7:90-91\""),
        ]
    );
    for mode in ["auto", "required"] {
        assert!(read(&text(mode)).is_ok(), "kernel.mode = {mode}");
    }
}

#[test]
fn networks_with_the_same_connections_or_sockets_are_refused_and_others_may_overlap() {
    let text = "\
[[listener]]
address = [\"203.0.113.0/24:80-89\", \"203.0.113.0/25:80\", \"203.0.113.0:80\", \"203.0.113.0/24:90\", \"198.51.100.64:80\"]
[[listener]]
address = [\"203.0.113.0/24:85-95\", \"203.0.113.128:80\", \"[2001:db8::/32]:80\", \"[2001:db8::/48]:80\", \"198.51.100.0/25:80\"]
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
";
    assert_eq!(
        messages(text),
        [
            "4:12: listener[1].address[0]: the network with some of the ports \"203.0.113.0/24:85-95\" is already used by \
             listener[0].address[0] (line 2)",
            "4:36: listener[1].address[1]: the socket address 203.0.113.128:80 is already used by \
             listener[0].address[0] (line 2)",
            "4:100: listener[1].address[4]: the socket address 198.51.100.64:80, of \"198.51.100.0/25:80\", is already used by \
             listener[0].address[4] (line 2)",
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
