//! `cmim connections`: the client connections.

use super::ask::Daemon;
use super::screen::{Form, Look};
use super::table::{Align, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::Connection;

const EXAMPLES: &str = "\
Examples:
  cmim connections
  cmim connections --json | jq '.[] | select(.state == \"idle\") | .address'";

/// List the client connections: address, age, requests, stacked now, lane, bytes, state.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let mut connections = daemon.connections()?;
    connections.sort_by_key(|connection| connection.id);
    screen.show(connections.as_slice(), args.form, listing)
}

fn listing(connections: &[Connection], look: Look) -> String {
    if connections.is_empty() {
        return "no client is connected\n".to_owned();
    }
    let mut table = Table::new([
        ("ID", Align::Right),
        ("LISTENER", Align::Left),
        ("CLIENT", Align::Left),
        ("STATE", Align::Left),
        ("LANE", Align::Left),
        ("AGE", Align::Right),
        ("REQUESTS", Align::Right),
        ("STACKED", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
    ]);
    for connection in connections {
        let lane = if connection.lane.is_empty() { "-" } else { &connection.lane };
        table.row([
            connection.id.to_string().into(),
            connection.listener.as_str().into(),
            connection.address.as_str().into(),
            connection.state.as_str().into(),
            lane.into(),
            age(connection.age_seconds).into(),
            figures::count(connection.requests).into(),
            figures::count(connection.stacked).into(),
            figures::bytes(connection.bytes_in).into(),
            figures::bytes(connection.bytes_out).into(),
        ]);
    }
    table.text(look)
}

fn age(seconds: f64) -> String {
    // Whole seconds; a clock that ran backwards reads as none.
    std::time::Duration::try_from_secs_f64(seconds).map_or_else(|_| "-".to_owned(), |age| figures::span(age.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_connection() {
        let connections = [
            Connection {
                id: 1,
                listener: "web".to_owned(),
                address: "192.0.2.7:41234".to_owned(),
                age_seconds: 11_523.4,
                requests: 1_204,
                stacked: 3,
                lane: "sockmap".to_owned(),
                bytes_in: 90_000,
                bytes_out: 84_000_000,
                state: "replying".to_owned(),
            },
            Connection {
                id: 12,
                listener: "web".to_owned(),
                address: "[2001:db8::1]:443".to_owned(),
                state: "idle".to_owned(),
                ..Connection::default()
            },
        ];
        assert_eq!(
            listing(&connections, Look::default()),
            "\
ID  LISTENER  CLIENT             STATE     LANE        AGE  REQUESTS  STACKED        IN       OUT
 1  web       192.0.2.7:41234    replying  sockmap  3h 12m     1,204        3  87.9 KiB  80.1 MiB
12  web       [2001:db8::1]:443  idle      -            0s         0        0       0 B       0 B
"
        );
    }
}
