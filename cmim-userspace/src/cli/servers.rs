//! `cmim servers`: the servers and their pools.

use clap::Subcommand;

use super::ask::Daemon;
use super::screen::{Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::Server;

const EXAMPLES: &str = "\
Examples:
  cmim servers
  cmim servers --json | jq '.[] | select(.state != \"up\")'
  cmim servers drain app 10.0.0.11:8080
  cmim servers enable app 10.0.0.11:8080";

/// List the servers and their pools: state, requests in flight, idle connections, failures; or drain one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a server no new requests; its present ones go on, its idle connections are closed
    Drain(Named),
    /// Send a drained server requests again
    Enable(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The upstream's name
    upstream: String,
    /// The server's address, as `cmim servers` shows it
    address: String,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let change = match &args.action {
        Some(Action::Drain(named)) => Some((named, true)),
        Some(Action::Enable(named)) => Some((named, false)),
        None => None,
    };
    if let Some((named, draining)) = change {
        let done = daemon.set_draining(&named.upstream, &named.address, draining)?;
        return screen.write(&format!("{done}\n"));
    }
    let servers = daemon.servers()?;
    if args.json {
        return screen.write_json(&servers);
    }
    let text = listing(&servers, screen.look(), "");
    screen.write(&text)
}

/// Also the last part of `cmim status`.
pub(super) fn listing(servers: &[Server], look: Look, indent: &'static str) -> String {
    let mut table = Table::new([
        ("UPSTREAM", Align::Left),
        ("SERVER", Align::Left),
        ("STATE", Align::Left),
        ("WEIGHT", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("IDLE", Align::Right),
        ("REQUESTS", Align::Right),
        ("FAILURES", Align::Right),
    ])
    .indented(indent);
    for server in servers {
        let failures = if server.failures_total > 0 { Paint::Warning } else { Paint::Plain };
        table.row([
            server.upstream.as_str().into(),
            server.address.as_str().into(),
            Cell::painted(&server.state, Paint::of_state(&server.state)),
            server.weight.to_string().into(),
            figures::count(server.in_flight).into(),
            figures::count(server.idle).into(),
            figures::count(server.requests_total).into(),
            Cell::painted(&figures::count(server.failures_total), failures),
        ]);
    }
    table.text(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_socket_path_fits_eighty_columns() {
        let servers = [Server {
            upstream: "app".to_owned(),
            address: "unix:/var/lib/applications/the-shop/run/worker-17.sock".to_owned(),
            state: "up".to_owned(),
            weight: 1,
            in_flight: 2,
            idle: 6,
            requests_total: 12_001,
            failures_total: 0,
        }];
        assert_eq!(
            listing(&servers, Look { colour: false, width: Some(80) }, ""),
            "\
UPSTREAM  SERVER              STATE  WEIGHT  IN FLIGHT  IDLE  REQUESTS  FAILURES
app       unix:/var…-17.sock  up          1          2     6    12,001         0
"
        );
    }
}
