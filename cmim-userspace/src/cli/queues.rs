//! `cmim queues`: the requests that wait for a server with room, by upstream.

use super::ask::Daemon;
use super::screen::{Form, Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::Queue;

const EXAMPLES: &str = "\
Examples:
  cmim queues
  cmim queues --json | jq '.[] | select(.waiting > 0)'";

/// List the queues by upstream: how many wait, the oldest, the limit, how many were refused.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.show(daemon.queues()?.as_slice(), args.form, listing)
}

fn listing(queues: &[Queue], look: Look) -> String {
    let mut table = Table::new([
        ("UPSTREAM", Align::Left),
        ("WAITING", Align::Right),
        ("OLDEST", Align::Right),
        ("LIMIT", Align::Right),
        ("REFUSED", Align::Right),
    ]);
    for queue in queues {
        let oldest = if queue.waiting > 0 { format!("{:.1} s", queue.oldest_seconds) } else { "-".to_owned() };
        let refused = if queue.refused_total > 0 { Paint::Warning } else { Paint::Plain };
        table.row([
            queue.upstream.as_str().into(),
            figures::count(queue.waiting).into(),
            oldest.into(),
            figures::count(queue.limit).into(),
            Cell::painted(&figures::count(queue.refused_total), refused),
        ]);
    }
    table.text(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_has_no_oldest() {
        let busy =
            Queue { upstream: "app".to_owned(), waiting: 12, oldest_seconds: 0.84, limit: 1024, refused_total: 3 };
        let idle = Queue { upstream: "static".to_owned(), limit: 1024, ..Queue::default() };
        assert_eq!(
            listing(&[busy, idle], Look { colour: false, width: Some(80) }),
            "\
UPSTREAM  WAITING  OLDEST  LIMIT  REFUSED
app            12   0.8 s  1,024        3
static          0       -  1,024        0
"
        );
    }
}
