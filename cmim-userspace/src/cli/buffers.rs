//! `cmim buffers`: the tiers that hold contents.

use super::ask::Daemon;
use super::screen::{Form, Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::{BufferTier, Buffers};

const EXAMPLES: &str = "\
Examples:
  cmim buffers
  cmim buffers --json | jq .flash.used

USED of flash and disk is in whole extents, as df counts it; WEAR is what was
written in the last 24 hours.";

/// List the buffer tiers: used, size, contents, spilled, refused, wear.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.show(&daemon.buffers()?, args.form, listing)
}

fn listing(buffers: &Buffers, look: Look) -> String {
    let mut table = Table::new([
        ("TIER", Align::Left),
        ("USED", Align::Right),
        ("SIZE", Align::Right),
        ("CONTENTS", Align::Right),
        ("SPILLED", Align::Right),
        ("REFUSED", Align::Right),
        ("WEAR", Align::Right),
        ("STATE", Align::Left),
    ]);
    let tiers = [("memory", Some(&buffers.memory)), ("flash", buffers.flash.as_ref()), ("disk", buffers.disk.as_ref())];
    for (name, tier) in tiers {
        let Some(tier) = tier else { continue };
        let wear = if name == "memory" { "-".to_owned() } else { figures::bytes(tier.written_per_day) };
        table.row([
            name.into(),
            figures::bytes(tier.used).into(),
            figures::bytes(tier.size).into(),
            figures::count(tier.replies).into(),
            figures::count(tier.spilled_total).into(),
            figures::count(tier.refused_total).into(),
            wear.into(),
            state(tier),
        ]);
    }
    table.text(look)
}

fn state(tier: &BufferTier) -> Cell {
    match &tier.degraded {
        Some(reason) => Cell::painted(&format!("degraded: {reason}"), Paint::Warning),
        None => "ok".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_fails_says_why_and_one_that_is_absent_says_nothing() {
        let buffers = Buffers {
            memory: BufferTier { used: 4096, size: 1 << 28, replies: 1, ..BufferTier::default() },
            flash: Some(BufferTier {
                size: 1 << 32,
                written_per_day: 1 << 30,
                degraded: Some("no space left on device".to_owned()),
                ..BufferTier::default()
            }),
            disk: None,
        };
        let text = listing(&buffers, Look { colour: false, width: None });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("memory") && lines[1].ends_with("ok"), "{text}");
        assert!(lines[2].contains("1.0 GiB") && lines[2].ends_with("degraded: no space left on device"), "{text}");
    }
}
