//! A file as a whole: places in it, all errors at once, and texts that are no configuration.

use std::path::Path;

use proptest::prelude::{any, proptest};

use super::super::example::EXAMPLE;
use super::super::{SMALLEST, messages, read};
use crate::config::load;

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
fn a_key_that_is_there_twice_is_called_that_whatever_its_value() {
    let text = "[[listener]]\naccept_proxy_protocol = true\naccept_proxy_protocol = false\n\
                [limits]\nrequest_headers = 10\nrequest_headers = 10s\n";
    assert_eq!(
        messages(text),
        [
            "3:1: not TOML: duplicate key",
            "6:19: not TOML: a value with a unit stands in quotes, such as \"64KiB\" or \"10s\"",
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
