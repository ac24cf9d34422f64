//! `cmim splices`: what the kernel carries between two sockets by itself.

use super::ask::Daemon;
use super::screen::{Form, Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::Splice;

const EXAMPLES: &str = "\
Examples:
  cmim splices
  cmim splices --json | jq 'map(.bytes) | add'
  bpftool map dump pinned /sys/fs/bpf/cmim/CMIM_CONNECTIONS

One line for each direction; a tunnel has two with the same ID. BYTES is what the
kernel handed over, RELAYED what the daemon had to pass on itself, BACKLOG what
waits for it to do so.";

/// List the directions that the kernel carries: both ends, lane, bytes, remaining, backlog.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.show(daemon.splices()?.as_slice(), args.form, listing)
}

fn listing(splices: &[Splice], look: Look) -> String {
    let mut table = Table::new([
        ("ID", Align::Right),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("LANE", Align::Left),
        ("STATE", Align::Left),
        ("BYTES", Align::Right),
        ("RELAYED", Align::Right),
        ("REMAINING", Align::Right),
        ("BACKLOG", Align::Right),
    ]);
    for splice in splices {
        let backlog = if splice.backlog > 0 { Paint::Warning } else { Paint::Plain };
        table.row([
            splice.id.to_string().into(),
            splice.from.as_str().into(),
            splice.to.as_str().into(),
            splice.lane.as_str().into(),
            splice.state.as_str().into(),
            figures::bytes(splice.bytes).into(),
            figures::bytes(splice.relayed).into(),
            splice.remaining.map_or_else(|| "-".to_owned(), figures::bytes).into(),
            Cell::painted(&figures::bytes(splice.backlog), backlog),
        ]);
    }
    table.text(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_has_nothing_remaining_and_a_content_has() {
        let tunnel = Splice {
            id: 7,
            from: "198.51.100.1:50000".to_owned(),
            to: "127.0.0.1:9001".to_owned(),
            lane: "sockmap".to_owned(),
            state: "splicing".to_owned(),
            bytes: 2048,
            ..Splice::default()
        };
        let content =
            Splice { id: 8, state: "paused".to_owned(), remaining: Some(1 << 20), backlog: 65_536, ..tunnel.clone() };
        let text = listing(&[tunnel, content], Look { colour: false, width: Some(120) });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("2.0 KiB") && lines[1].contains(" - "), "{text}");
        assert!(lines[2].contains("1.0 MiB") && lines[2].ends_with("64.0 KiB"), "{text}");
    }
}
