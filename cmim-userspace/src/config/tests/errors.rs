//! Every kind of error with its place and its words.

mod files;
mod sections;
mod values;

use super::{SMALLEST, messages};

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
