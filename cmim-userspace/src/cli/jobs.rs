//! `cmim jobs`: the requests that are in the device, and stopping one.

use clap::Subcommand;

use super::ask::Daemon;
use super::screen::{Form, Look};
use super::table::{Align, Table};
use super::{CliError, Screen};
use crate::control::figures;
use crate::control::message::Job;

const EXAMPLES: &str = "\
Examples:
  cmim jobs
  cmim jobs --json | jq '.[] | select(.state == \"queued\")'
  cmim jobs cancel 17.3";

/// List the requests in the device, oldest first, or stop one.
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
    /// Stop a request: its client gets 503, or a reset where its reply has begun
    Cancel {
        /// As `cmim jobs` shows it, such as 17.3
        id: String,
    },
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if let Some(Action::Cancel { id }) = &args.action {
        args.form.refuse_json()?;
        let done = daemon.cancel_job(id)?;
        return screen.write(&format!("{done}\n"));
    }
    screen.show(daemon.jobs()?.as_slice(), args.form, listing)
}

fn listing(jobs: &[Job], look: Look) -> String {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("CLIENT", Align::Left),
        ("METHOD", Align::Left),
        ("STATE", Align::Left),
        ("SERVER", Align::Left),
        ("AGE", Align::Right),
        ("BYTES", Align::Right),
        ("TIER", Align::Left),
        ("TARGET", Align::Left),
    ]);
    for job in jobs {
        table.row([
            job.id.as_str().into(),
            job.client.as_str().into(),
            job.method.as_str().into(),
            job.state.as_str().into(),
            job.server.as_str().into(),
            format!("{:.1} s", job.age_seconds).into(),
            figures::bytes(job.bytes).into(),
            job.tier.as_str().into(),
            job.target.as_str().into(),
        ]);
    }
    table.text(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_line_with_its_target_last() {
        let job = Job {
            id: "17.3".to_owned(),
            client: "10.0.0.9:40112".to_owned(),
            method: "GET".to_owned(),
            target: "/report?year=2026".to_owned(),
            state: "dispatched".to_owned(),
            server: "10.0.0.11:80".to_owned(),
            age_seconds: 1.25,
            bytes: 4096,
            tier: "memory".to_owned(),
        };
        let text = listing(&[job], Look { colour: false, width: None });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].starts_with("17.3") && lines[1].ends_with("/report?year=2026"), "{text}");
        assert!(lines[1].contains("4.0 KiB"), "{text}");
    }
}
