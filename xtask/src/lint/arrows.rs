//! The arrows of dependency inside cmim-userspace, and what its pure modules must not name.
//!
//! The two tables here are the rule; ARCHITECTURE.md tells it in prose. A new arrow is a decision: it comes with its
//! reason in the table.

use super::Place;
use super::finding::Finding;
use super::lexer::{Source, Token};
use super::paths::{Named, named};

/// Each module and the modules that it may use. A submodule has a line of its own where it may be used by more, or may
/// use less, than the module around it.
const MAY_USE: [(&str, &[&str]); 20] = [
    // The binary: reads arguments, starts what they name, turns errors into an exit code.
    ("main", &["cli", "worker"]),
    // `run` starts the workers, `doctor` asks the kernel part what it may; all else goes over the control socket.
    ("cli", &["control", "config", "worker", "kernel"]),
    // Puts the device together, so it sees every part; it probes servers' health over HTTP itself.
    (
        "worker",
        &[
            "client", "exchange", "lane", "net", "kernel", "control", "observe", "config", "upstream", "buffer", "job",
            "h1", "stack",
        ],
    ),
    ("client", &["exchange", "stack", "job", "reply", "h1", "buffer", "net", "observe", "config::model"]),
    // From stack only the number of a request in its client's order.
    ("exchange", &["lane", "upstream", "buffer", "h1", "reply", "job", "net", "observe", "stack", "config::model"]),
    // From the model only servers' addresses.
    ("lane", &["kernel", "net", "buffer", "config::model"]),
    // Knows no HTTP; fills in its own part of the status.
    ("kernel", &["config::model", "control::message"]),
    ("net", &["config::model"]),
    // Pages and metrics are made from the same typed status as the control socket's answers.
    // Names what requests are by the words of the pure modules.
    ("observe", &["control", "job", "h1", "stack", "config::model"]),
    ("observe::counters", &["control::message", "job"]),
    ("control", &["observe::counters"]),
    // Plain data: the shapes of the answers.
    ("control::message", &[]),
    ("config", &[]),
    // Plain data: the valid configuration, for all that act on it.
    ("config::model", &[]),
    // Sends what a file tier holds straight to a socket, without a copy through userspace.
    ("buffer", &["net", "config::model"]),
    // Pure from here on: bytes, events and `now` in, decisions out.
    ("h1", &[]),
    ("reply", &["h1", "config::model"]),
    ("stack", &[]),
    ("job", &[]),
    // A server's queue is job's fair queue.
    ("upstream", &["job", "config::model"]),
];

/// Whole modules, and single files of others, that hold decisions only.
const PURE: [&str; 14] = [
    "h1/",
    "reply/",
    "stack/",
    "job/",
    "upstream/",
    "buffer/ram.rs",
    "buffer/extents.rs",
    "buffer/wear.rs",
    "lane/choose.rs",
    "lane/phase.rs",
    "exchange/again.rs",
    "exchange/pace.rs",
    "exchange/content.rs",
    "exchange/input.rs",
];

/// Paths by their beginning, and why a pure module does not name them.
const NOT_PURE: [(&str, &str); 17] = [
    ("tokio", "it waits and does I/O"),
    ("futures_util", "it waits"),
    ("aya", "it talks to the kernel"),
    ("socket2", "it opens sockets"),
    ("rustix", "it makes system calls"),
    ("libc", "it makes system calls"),
    ("axum", "it serves"),
    ("tracing", "it writes a log; return what is worth telling"),
    ("std::fs", "it reads and writes files"),
    ("std::os", "it is about descriptors"),
    ("std::process", "it starts and ends processes"),
    ("std::thread", "it runs and waits"),
    ("std::env", "it reads the environment"),
    ("std::net::TcpStream", "it is a socket"),
    ("std::net::TcpListener", "it is a socket"),
    ("std::net::UdpSocket", "it is a socket"),
    ("std::net::ToSocketAddrs", "it asks the resolver"),
];

/// Paths by their end.
const CLOCKS: [&str; 2] = ["Instant::now", "SystemTime::now"];
const PURE_RULE: &str = "a pure module gets bytes, events and `now`, and returns decisions";

pub(crate) fn check(place: &Place, source: &Source) -> Vec<Finding> {
    // Tests may look at anything and have clocks.
    if place.is_test() {
        return Vec::new();
    }
    let paths = named(&source.tokens, &place.inside);
    let own = owner(place);
    let mut findings: Vec<Finding> = Vec::new();
    for path in &paths {
        let finding = arrow(place, &own, path);
        // One line may import ten names from the same place.
        findings.extend(
            finding.filter(|new| findings.last().is_none_or(|last| last.why != new.why || last.line != new.line)),
        );
    }
    if is_pure(place) {
        findings.extend(paths.iter().filter_map(|path| impure(place, path)));
        findings.extend(source.tokens.windows(3).filter_map(|three| elapsed(place, three)));
    }
    findings
}

fn arrow(place: &Place, own: &[String], path: &Named) -> Option<Finding> {
    // lib.rs lists the modules and uses none.
    let (from, may) = node(own)?;
    let (to, _) = node(target(path)?)?;
    if top(from) == top(to) || may.iter().any(|allowed| *allowed == to || *allowed == top(to)) {
        return None;
    }
    let list = if may.is_empty() { "no other module".to_owned() } else { may.join(", ") };
    let why = format!("{from} may use {list}: mend the design, or say why in xtask/src/lint/arrows.rs");
    Some(place.finding(path.line, format!("`{}`: {from} -> {to}", path.text()), why))
}

fn impure(place: &Place, path: &Named) -> Option<Finding> {
    let clock = CLOCKS.iter().find(|clock| path.ends_with(clock)).map(|_| "it reads the clock");
    let why = clock.or_else(|| NOT_PURE.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, why)| *why))?;
    Some(place.finding(path.line, format!("`{}` in a pure module: {why}", path.text()), PURE_RULE))
}

/// `.elapsed()` reads the clock as `now` does.
fn elapsed(place: &Place, three: &[Token]) -> Option<Finding> {
    let [dot, name, open] = three else { return None };
    (dot.is('.') && name.is_word("elapsed") && open.is('('))
        .then(|| place.finding(name.line, "`.elapsed()` in a pure module: it reads the clock", PURE_RULE))
}

/// The module that a file is.
fn owner(place: &Place) -> Vec<String> {
    place.inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// The modules that a path leads through. main.rs names the library by the crate's name.
fn target(path: &Named) -> Option<&[String]> {
    path.inside_crate().or_else(|| match path.segments.split_first() {
        Some((first, rest)) if first == "cmim" => Some(rest),
        _ => None,
    })
}

/// The table's line for a module: a submodule's own, else that of the module around it.
fn node(module: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let line = |name: &str| MAY_USE.iter().find(|(own, _)| *own == name).copied();
    let first = module.first()?;
    let submodule = module.get(1).and_then(|second| line(&format!("{first}::{second}")));
    submodule.or_else(|| line(first))
}

fn top(node: &str) -> &str {
    node.split("::").next().unwrap_or(node)
}

fn is_pure(place: &Place) -> bool {
    let inside = place.inside.to_string_lossy();
    PURE.iter().any(|pure| if pure.ends_with('/') { inside.starts_with(pure) } else { inside == *pure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(code: &str, inside: &str) -> Vec<String> {
        let place = Place { shown: inside.to_owned(), inside: inside.into() };
        check(&place, &Source::read(code)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn an_arrow_that_the_table_has_not_is_refused() {
        assert_eq!(whats("use crate::{client::Life, h1};", "h1/fields.rs"), ["`crate::client::Life`: h1 -> client"]);
        assert_eq!(
            whats("fn a() { super::super::worker::start() }", "lane/copy.rs"),
            ["`crate::worker::start`: lane -> worker"]
        );
        assert!(whats("use crate::h1::Head; use super::plan::Plan;", "reply/hold.rs").is_empty());
        assert_eq!(whats("use cmim::h1::Head;", "main.rs"), ["`cmim::h1::Head`: main -> h1"]);
    }

    #[test]
    fn a_submodule_may_be_open_where_its_module_is_not() {
        assert!(whats("use crate::config::model::Kernel;", "kernel/part.rs").is_empty());
        assert_eq!(whats("use crate::config::file;", "kernel/part.rs"), ["`crate::config::file`: kernel -> config"]);
        assert_eq!(
            whats("use crate::observe::page;", "control/device.rs"),
            ["`crate::observe::page`: control -> observe"]
        );
        assert_eq!(
            whats("use crate::observe;", "control/message.rs"),
            ["`crate::observe`: control::message -> observe"]
        );
    }

    #[test]
    fn the_arrows_have_no_circle() {
        // Takes away, again and again, what uses nothing that is left; a circle cannot be taken away.
        let mut left: Vec<(&str, Vec<&str>)> = MAY_USE.iter().map(|(name, may)| (*name, may.to_vec())).collect();
        loop {
            let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
            let before = left.len();
            left.retain(|(_, may)| may.iter().any(|used| names.contains(used)));
            if left.len() == before {
                break;
            }
        }
        assert!(left.is_empty(), "these use each other: {left:?}");
    }

    #[test]
    fn tests_are_free() {
        assert!(whats("use crate::client::Life; fn a() { Instant::now(); }", "h1/tests/split.rs").is_empty());
    }

    #[test]
    fn a_pure_module_has_no_clock_and_no_io() {
        assert_eq!(
            whats("use std::time::Instant;\nfn a() { Instant::now(); }", "job/life.rs"),
            ["`Instant::now` in a pure module: it reads the clock"]
        );
        assert_eq!(whats("use std::{fs, net::{IpAddr, TcpStream}};", "h1/x.rs").len(), 2);
        assert_eq!(whats("fn a(since: Instant) { since.elapsed(); }", "stack/order.rs").len(), 1);
        assert_eq!(whats("use tokio::time;", "exchange/pace.rs").len(), 1);
        assert!(whats("use tokio::time;", "lane/copy.rs").is_empty());
        assert!(
            whats("use std::net::{IpAddr, SocketAddr}; use std::time::{Duration, Instant};", "upstream/health.rs")
                .is_empty()
        );
    }
}
