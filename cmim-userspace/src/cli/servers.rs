//! `cmim servers`: the servers and their pools.

use clap::Subcommand;

use super::ask::Daemon;
use super::save::Edited;
use super::screen::{Form, Look, Paint};
use super::table::{Align, Cell, Table};
use super::{CliError, Screen};
use crate::config::{self, NewServer};
use crate::control::figures;
use crate::control::message::{self, Server};

const EXAMPLES: &str = "\
Examples:
  cmim servers
  cmim servers --json | jq '.[] | select(.state != \"up\")'
  cmim servers drain app 10.0.0.11:8080
  cmim servers enable app 10.0.0.11:8080
  cmim servers add app 10.0.0.12:8080 --weight 2 --save
  cmim servers remove app 10.0.0.12:8080

Without --save, what was added or removed holds until the file is read again.";

/// List the servers and their pools: state, requests in flight, idle connections, failures; or change them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a server no new requests; its present ones go on, its idle connections are closed
    Drain(Named),
    /// Send a drained server requests again
    Enable(Named),
    /// Add a server to an upstream; it gets requests at once
    Add(Add),
    /// Remove a server: no new requests, its present ones are finished, then it is forgotten
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    named: Named,

    /// Its share beside the others, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    weight: u32,

    /// Most requests in flight at once; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_requests: u64,

    /// Only used while no other server is up
    #[arg(long)]
    backup: bool,

    /// Also write it into the daemon's configuration file
    #[arg(long)]
    save: bool,
}

#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    named: Named,

    /// Also take it out of the daemon's configuration file
    #[arg(long)]
    save: bool,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The upstream's name
    upstream: String,
    /// The server's address, as `cmim servers` shows it or as the file has it
    address: String,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if let Some(action) = &args.action {
        args.form.refuse_json()?;
        let done = change(action, daemon)?;
        return screen.write(&format!("{done}\n"));
    }
    screen.show(daemon.servers()?.as_slice(), args.form, |servers, look| listing(servers, look, ""))
}

fn change(action: &Action, daemon: &Daemon) -> Result<String, CliError> {
    match action {
        Action::Drain(named) => daemon.set_draining(&named.upstream, &named.address, true),
        Action::Enable(named) => daemon.set_draining(&named.upstream, &named.address, false),
        Action::Add(Add { named, weight, max_requests, backup, save }) => {
            let new = NewServer {
                address: named.address.clone(),
                weight: *weight,
                max_requests: *max_requests,
                backup: *backup,
            };
            let edited = save
                .then(|| Edited::prepare(daemon, |text, file| config::add_to_text(text, file, &named.upstream, &new)));
            let edited = edited.transpose()?;
            let NewServer { address, weight, max_requests, backup } = new;
            let server = message::NewServer { address, weight, max_requests, backup };
            saved(daemon.add_server(&named.upstream, server)?, edited)
        }
        Action::Remove(Remove { named, save }) => {
            let (upstream, address) = (&named.upstream, &named.address);
            let edited = save
                .then(|| Edited::prepare(daemon, |text, file| config::remove_from_text(text, file, upstream, address)));
            let edited = edited.transpose()?;
            saved(daemon.remove_server(upstream, address)?, edited)
        }
    }
}

/// Puts the edited file in its place once the daemon has made the change.
fn saved(done: String, edited: Option<Edited>) -> Result<String, CliError> {
    match edited {
        Some(edited) => Ok(format!("{done}; saved to {}", edited.commit()?.display())),
        None => Ok(done),
    }
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
