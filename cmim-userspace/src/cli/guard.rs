//! `cmim guard`: where the guard is, what it lets through, and what it counted.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::ask::Daemon;
use super::screen::{Form, Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::control::figures::{bytes, count, per_second};
use crate::control::message::{Guard, GuardCounters, GuardedListener};

const EXAMPLES: &str = "\
Examples:
  cmim guard
  cmim guard --watch
  cmim guard --json | jq .counters.dropped_rate";

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Cursor to the first column of the first line, and nothing behind it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show the guard of the network interfaces: counters by reason and by listener, SYN limits, SYN cookies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// As JSON; with --watch one line a look
    #[arg(long)]
    json: bool,

    /// Look again every second, with rates, until it is interrupted
    #[arg(long)]
    watch: bool,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if args.watch {
        return watch(args, daemon, screen);
    }
    screen.show(&daemon.guard()?, Form { json: args.json }, |guard, look| page(guard, None, look))
}

/// Ends with the daemon, or with whoever reads.
fn watch(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let mut before: Option<(GuardCounters, Instant)> = None;
    loop {
        let (guard, now) = (daemon.guard()?, Instant::now());
        if args.json {
            screen.write(&format!("{}\n", serde_json::to_string(&guard)?))?;
        } else {
            let look = screen.look();
            let earlier = before.map(|(counters, then)| Earlier { counters, ago: now.duration_since(then) });
            let text = page(&guard, earlier.as_ref(), look);
            // A terminal shows the last look only; a file keeps all of them.
            let clear = if look.width.is_some() { CLEAR } else { "" };
            screen.write(&format!("{clear}{text}\n"))?;
        }
        before = Some((guard.counters, now));
        sleep(WATCH_EVERY);
    }
}

/// What was counted at an earlier look.
struct Earlier {
    counters: GuardCounters,
    ago: Duration,
}

fn page(guard: &Guard, earlier: Option<&Earlier>, look: Look) -> String {
    let mut text = String::new();
    let mut line = |name: &str, words: &str| text.push_str(&format!("{name:12}  {words}\n"));
    for interface in &guard.interfaces {
        match &interface.why_not {
            None => line("interface", &format!("{} ({})", interface.name, interface.place)),
            Some(why) => line("interface", &look.paint(Paint::Warning, &format!("{}: {why}", interface.name))),
        }
    }
    if guard.interfaces.is_empty() {
        line("interface", "none; kernel.interfaces names those to guard");
    }
    line("denied", &format!("{} (`cmim deny list`)", networks(guard.denied)));
    line("per source", &limit(guard.syn_rate_per_source, "more are dropped"));
    line("per listener", &limit(guard.syn_rate_per_listener, &over_limit(guard)));
    text.push('\n');
    text.push_str(&reasons(&guard.counters, earlier, look));
    if !guard.listeners.is_empty() {
        text.push('\n');
        text.push_str(&listeners(&guard.listeners, look));
    }
    text
}

fn networks(number: u64) -> String {
    match number {
        1 => "1 network".to_owned(),
        _ => format!("{} networks", count(number)),
    }
}

fn limit(rate: u64, above: &str) -> String {
    match rate {
        0 => "no SYN limit".to_owned(),
        _ => format!("{} SYN/s; {above}", count(rate)),
    }
}

fn over_limit(guard: &Guard) -> String {
    match &guard.why_no_cookies {
        _ if guard.cookies => "more are answered with cookies when the listener's queue is full".to_owned(),
        Some(why) => format!("more are dropped ({why})"),
        None => "more are dropped".to_owned(),
    }
}

type Figure = fn(&GuardCounters) -> u64;

/// One row a reason; rates where there was an earlier look.
fn reasons(counters: &GuardCounters, earlier: Option<&Earlier>, look: Look) -> String {
    let of: [(&str, Figure, &str, Paint); 11] = [
        ("packets", |counters| counters.packets, "", Paint::Plain),
        ("passed", |counters| counters.passed, "", Paint::Plain),
        ("denied", |counters| counters.dropped_denied, "dropped: the source is in the deny list", Paint::Warning),
        ("flags", |counters| counters.dropped_flags, "dropped: TCP flags that no connection sends", Paint::Warning),
        ("rate", |counters| counters.dropped_rate, "dropped: SYNs over a limit", Paint::Warning),
        (
            "wrapped",
            |counters| counters.dropped_wrapped,
            "dropped: source or TCP header cannot be read",
            Paint::Warning,
        ),
        ("cookies", |counters| counters.cookies_sent, "SYNs over a limit answered with a cookie", Paint::Warning),
        (
            "returned",
            |counters| counters.cookies_returned,
            "cookies that came back and began a connection",
            Paint::Plain,
        ),
        ("syn", |counters| counters.tcp_syn, "SYNs to any address", Paint::Plain),
        ("to listener", |counters| counters.to_listener, "TCP packets to a listener that passed", Paint::Plain),
        (
            "unread",
            |counters| counters.not_ip.saturating_add(counters.truncated),
            "not IP or cut short; passed",
            Paint::Plain,
        ),
    ];
    let mut table =
        Table::new([("REASON", Align::Left), ("TOTAL", Align::Right), ("PER SECOND", Align::Right), ("", Align::Left)]);
    for (name, figure, meaning, paint) in of {
        let total = figure(counters);
        let rate = earlier.map_or_else(
            || "-".to_owned(),
            |earlier| per_second(total.saturating_sub(figure(&earlier.counters)), earlier.ago),
        );
        let meaning = if name == "packets" { bytes(counters.bytes) } else { meaning.to_owned() };
        let paint = if total > 0 { paint } else { Paint::Plain };
        table.row([
            name.into(),
            Cell::painted(&count(total), paint),
            rate.into(),
            Cell::painted(&meaning, Paint::Aside),
        ]);
    }
    table.text(look)
}

fn listeners(listeners: &[GuardedListener], look: Look) -> String {
    let mut table = Table::new([
        ("LISTENER", Align::Left),
        ("ADDRESS", Align::Left),
        ("SYNS", Align::Right),
        ("FLAGS", Align::Right),
        ("RATE", Align::Right),
        ("COOKIES", Align::Right),
        ("RETURNED", Align::Right),
    ]);
    for listener in listeners {
        table.row([
            listener.listener.as_str().into(),
            listener.address.as_str().into(),
            count(listener.syns_passed).into(),
            count(listener.dropped_flags).into(),
            count(listener.dropped_rate).into(),
            count(listener.cookies_sent).into(),
            count(listener.cookies_returned).into(),
        ]);
    }
    table.text(look)
}

#[cfg(test)]
mod tests {
    use super::{Earlier, Guard, GuardCounters, GuardedListener, page};
    use crate::cli::screen::Look;
    use crate::control::message::GuardedInterface;
    use std::time::Duration;

    fn guard() -> Guard {
        Guard {
            interfaces: vec![
                GuardedInterface { name: "eth0".to_owned(), place: "native".to_owned(), why_not: None },
                GuardedInterface {
                    name: "eth9".to_owned(),
                    place: String::new(),
                    why_not: Some("there is no interface eth9".to_owned()),
                },
            ],
            denied: 1,
            syn_rate_per_source: 0,
            syn_rate_per_listener: 10_000,
            cookies: true,
            why_no_cookies: None,
            counters: GuardCounters {
                packets: 1_500,
                bytes: 90_000,
                passed: 400,
                dropped_rate: 100,
                cookies_sent: 1_000,
                cookies_returned: 3,
                tcp_syn: 1_450,
                to_listener: 300,
                not_ip: 2,
                ..GuardCounters::default()
            },
            listeners: vec![GuardedListener {
                listener: "web".to_owned(),
                address: "0.0.0.0:80".to_owned(),
                syns_passed: 350,
                dropped_rate: 100,
                cookies_sent: 1_000,
                cookies_returned: 3,
                ..GuardedListener::default()
            }],
        }
    }

    #[test]
    fn interfaces_limits_reasons_and_listeners_stand_on_one_page() {
        assert_eq!(
            page(&guard(), None, Look::default()),
            "\
interface     eth0 (native)
interface     eth9: there is no interface eth9
denied        1 network (`cmim deny list`)
per source    no SYN limit
per listener  10,000 SYN/s; more are answered with cookies when the listener's queue is full

REASON       TOTAL  PER SECOND
packets      1,500           -  87.9 KiB
passed         400           -
denied           0           -  dropped: the source is in the deny list
flags            0           -  dropped: TCP flags that no connection sends
rate           100           -  dropped: SYNs over a limit
wrapped          0           -  dropped: source or TCP header cannot be read
cookies      1,000           -  SYNs over a limit answered with a cookie
returned         3           -  cookies that came back and began a connection
syn          1,450           -  SYNs to any address
to listener    300           -  TCP packets to a listener that passed
unread           2           -  not IP or cut short; passed

LISTENER  ADDRESS     SYNS  FLAGS  RATE  COOKIES  RETURNED
web       0.0.0.0:80   350      0   100    1,000         3
"
        );
    }

    #[test]
    fn a_second_look_has_rates() {
        let counters = GuardCounters { packets: 500, cookies_sent: 1_000, ..guard().counters };
        let earlier = Earlier { counters, ago: Duration::from_millis(500) };
        let text = page(&guard(), Some(&earlier), Look::default());
        assert!(text.contains("packets      1,500       2,000  "), "{text}");
        assert!(text.contains("cookies      1,000           0  "), "{text}");
    }

    #[test]
    fn without_cookies_it_says_why() {
        let why = Some("net.ipv4.tcp_syncookies is 0".to_owned());
        let guard = Guard { cookies: false, why_no_cookies: why, ..guard() };
        let text = page(&guard, None, Look::default());
        assert!(text.contains("10,000 SYN/s; more are dropped (net.ipv4.tcp_syncookies is 0)\n"), "{text}");
    }
}
