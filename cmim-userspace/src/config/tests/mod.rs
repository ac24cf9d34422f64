//! What a configuration may say, what it means, and every message that refuses one.

mod errors;
mod example;
mod quick;
mod round_trip;

use super::choice::Choice;
use super::error::nearest;
use super::model::{
    AccessLogFormat, Balance, KernelMode, LengthRewrite, LocalBypass, RequestBuffering, SendProxyProtocol, SpliceMode,
    TierKind, XdpMode,
};
use super::{Config, ConfigErrors, describe, parse};

/// The smallest file that is whole.
const SMALLEST: &str = "\
[[listener]]
address = \"127.0.0.1:8080\"
[[upstream]]
servers = [{ address = \"127.0.0.1:9001\" }]
";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, "cmim.toml")
}

/// The messages that refuse `text`, without the file's name.
fn messages(text: &str) -> Vec<String> {
    let errors = read(text).expect_err("a configuration that is refused");
    let lines = errors.to_string();
    lines.lines().map(|line| line.trim_start_matches("cmim.toml:").to_owned()).collect()
}

#[test]
fn the_nearest_name_is_found_through_slips_case_dashes_and_missing_ends() {
    let names = ["balance", "hash_on", "hold_time", "hold_size", "max_idle", "queue_limit", "queue_timeout"];
    for (name, expected) in [
        ("balence", Some("balance")),
        ("Balance", Some("balance")),
        ("hash-on", Some("hash_on")),
        ("hold_tiem", Some("hold_time")),
        ("queue_time", Some("queue_timeout")),
        ("maxidle", Some("max_idle")),
        ("weight", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(nearest(name, names), expected, "{name}");
    }
    assert_eq!(nearest("ap", ["app", "static"]), Some("app"));
    assert_eq!(nearest("a", []), None);
}

#[test]
fn every_choice_has_its_name() {
    fn check<T: Choice + std::fmt::Debug>(values: &[T]) {
        assert_eq!(values.len(), T::NAMES.len());
        for value in values {
            assert_eq!(T::parse(value.name()), Ok(*value));
        }
    }
    check(&[KernelMode::Auto, KernelMode::Required, KernelMode::Off]);
    check(&[XdpMode::Auto, XdpMode::Native, XdpMode::Generic]);
    check(&[SpliceMode::Auto, SpliceMode::Sockmap, SpliceMode::Pipe, SpliceMode::Off]);
    check(&[LocalBypass::Auto, LocalBypass::On, LocalBypass::Off]);
    check(&[TierKind::Flash, TierKind::Disk]);
    check(&[AccessLogFormat::Json, AccessLogFormat::Combined]);
    check(&[Balance::LeastRequests, Balance::RoundRobin, Balance::RandomTwo, Balance::Hash]);
    check(&[LengthRewrite::Auto, LengthRewrite::Always, LengthRewrite::Never]);
    check(&[RequestBuffering::Auto, RequestBuffering::Always, RequestBuffering::Never]);
    check(&[SendProxyProtocol::Off, SendProxyProtocol::V1, SendProxyProtocol::V2]);
}

#[test]
fn the_description_names_who_listens_where_and_leads_to_whom() {
    let config = read(example::EXAMPLE).unwrap();
    let text = describe(&config);
    for line in [
        "listener   web: 0.0.0.0:80, [::]:80 -> app",
        "           img.example.org/static/ -> static",
        "upstream   app: least-requests over 2 servers: 10.0.0.11:8080, unix:/run/app.sock",
        "           health check of /healthz every 2s",
        "buffer     256MiB of RAM (1MiB per reply), then 4GiB of flash in /var/cache/cmim/flash, \
         then 64GiB of disk in /var/cache/cmim/disk",
        "log        json to /var/log/cmim/access.log",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} is not in:\n{text}");
    }
    assert!(text.lines().count() < 20, "{text}");
}
