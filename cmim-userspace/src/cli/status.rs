//! `cmim status`: the running device on one screen.

use super::ask::Daemon;
use super::screen::{Form, Look, Paint};
use super::{CliError, Screen, servers};
use crate::control::figures::{bytes, count, fraction, percent, span};
use crate::control::message::{BufferTier, Lane, Status};

const EXAMPLES: &str = "\
Examples:
  cmim status
  watch -n1 cmim status
  cmim status --json | jq .server_connections";

/// Cells of a tier's bar.
const BAR: usize = 12;

/// One screen of the running device: connections, requests, jobs, buffers, lanes, kernel programs, servers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    form: Form,
}

pub(super) fn execute(args: &Args, daemon: &Daemon, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.show(&daemon.status()?, args.form, page)
}

fn page(status: &Status, look: Look) -> String {
    let mut page = Page { text: String::new(), look };
    title(&mut page, status);
    connections(&mut page, status);
    requests(&mut page, status);
    jobs(&mut page, status);
    buffers(&mut page, status);
    lanes(&mut page, status);
    kernel(&mut page, status);
    let heading = look.paint(Paint::Heading, "SERVERS");
    page.text.push_str(&format!("\n{heading}\n"));
    page.text.push_str(&servers::listing(&status.servers, look, "  "));
    page.text
}

fn title(page: &mut Page, status: &Status) {
    let (state, paint) = if status.draining { ("draining", Paint::Warning) } else { ("running", Paint::Good) };
    let name = page.look.paint(Paint::Heading, &format!("cmim {}", status.version));
    let state = page.look.paint(paint, state);
    let workers = if status.workers == 1 { "worker" } else { "workers" };
    let line = format!(
        "{name}  {state}  up {}  pid {}  {} {workers}\n",
        span(status.uptime_seconds),
        status.pid,
        status.workers
    );
    page.text.push_str(&line);
}

fn connections(page: &mut Page, status: &Status) {
    let client = status.client_connections;
    let server = status.server_connections;
    let sent = server.reused_total.saturating_add(server.opened_total);
    page.section("CONNECTIONS", &["open", "idle", "total"]);
    page.row("clients", &[count(client.open), String::new(), count(client.accepted_total)], "");
    let mut reuse = format!("{} of requests reused one", percent(server.reused_total, sent));
    if server.pipelined_total > 0 {
        reuse.push_str(&format!(", {} behind another request", percent(server.pipelined_total, sent)));
    }
    page.row("servers", &[count(server.open), count(server.idle), count(server.opened_total)], &reuse);
}

fn requests(page: &mut Page, status: &Status) {
    let replies = status.replies;
    page.section("REQUESTS", &[&count(status.requests_total)]);
    for (name, figure, meaning) in [
        ("rewritten", replies.rewritten_total, "sent with a length that the server did not give"),
        ("streamed", replies.streamed_total, "sent on as they came"),
        ("local", replies.local_total, "the device's own: refusals and errors"),
        ("spilled", replies.spilled_total, "left the RAM tier while held"),
    ] {
        page.row(name, &[count(figure)], meaning);
    }
}

fn jobs(page: &mut Page, status: &Status) {
    let (jobs, stacked) = (status.jobs, status.stacked);
    page.section("JOBS", &["active", "queued", "total"]);
    page.row("requests", &[count(jobs.active), count(jobs.queued), count(jobs.done_total)], "");
    page.row(
        "stacked",
        &[count(stacked.in_flight), String::new(), count(stacked.noticed_total)],
        &format!("{} of them distributed", count(stacked.distributed_total)),
    );
}

fn buffers(page: &mut Page, status: &Status) {
    page.section("BUFFERS", &["used", "size", "replies", "spilled", "refused"]);
    let buffers = &status.buffers;
    tier(page, "memory", Some(&buffers.memory));
    tier(page, "flash", buffers.flash.as_ref());
    tier(page, "disk", buffers.disk.as_ref());
}

fn tier(page: &mut Page, name: &str, tier: Option<&BufferTier>) {
    let Some(tier) = tier else { return };
    let full = fraction(tier.used, tier.size).unwrap_or(0.0);
    page.row(
        name,
        &[
            bytes(tier.used),
            bytes(tier.size),
            count(tier.replies),
            count(tier.spilled_total),
            count(tier.refused_total),
        ],
        &tier.degraded.as_ref().map_or_else(|| bar(full, page.look), |reason| format!("degraded: {reason}")),
    );
}

/// How full a tier is. A little in it shows as one cell, so that an empty bar means empty.
fn bar(full: f64, look: Look) -> String {
    let filled = (1..=BAR).filter(|cell| *cell == 1 && full > 0.0 || full >= share(*cell)).count();
    let paint = match full {
        0.9.. => Paint::Bad,
        0.7.. => Paint::Warning,
        _ => Paint::Good,
    };
    format!("{}{}", look.paint(paint, &"█".repeat(filled)), look.paint(Paint::Aside, &"░".repeat(BAR - filled)))
}

/// The part of the bar up to the end of this cell.
fn share(cell: usize) -> f64 {
    let cells = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    cells(cell) / cells(BAR)
}

fn lanes(page: &mut Page, status: &Status) {
    page.section("LANES", &["active", "carried", "bytes"]);
    let lanes = &status.lanes;
    for (name, lane) in [("copy", lanes.copy), ("pipe", lanes.pipe), ("sockmap", lanes.sockmap), ("local", lanes.local)]
    {
        let Lane { active, splices_total, bytes_total } = lane;
        page.row(name, &[count(active), count(splices_total), bytes(bytes_total)], "");
    }
}

fn kernel(page: &mut Page, status: &Status) {
    let kernel = &status.kernel;
    let paint = match kernel.mode.as_str() {
        "on" => Paint::Good,
        "partial" => Paint::Warning,
        _ => Paint::Plain,
    };
    page.heading("KERNEL");
    let mode = page.look.paint(paint, &kernel.mode);
    page.text.push_str(&mode);
    if !kernel.maps.is_empty() {
        page.text.push_str(&format!(", {} maps in {}", kernel.maps.len(), kernel.pin_dir));
    }
    page.text.push('\n');
    for program in &kernel.programs {
        let attached = if program.attached_to.is_empty() { "-".to_owned() } else { program.attached_to.join(", ") };
        page.text.push_str(&format!("  {:24}{:14}{attached}\n", program.name, program.kind));
    }
    for missing in &kernel.missing {
        let line = page.look.paint(Paint::Warning, &format!("missing: {missing}"));
        page.text.push_str(&format!("  {line}\n"));
    }
}

/// Width of the first column, its indent included.
const LABEL: usize = 13;
/// Widths of the columns of figures; the widest row, with its bar behind it, fits 80 columns.
const FIGURES: [usize; 5] = [10, 11, 11, 9, 9];

/// The screen while it is laid out: sections of a heading and rows under the same columns.
struct Page {
    text: String,
    look: Look,
}

impl Page {
    /// An empty line, then the name, padded to the first column of figures.
    fn heading(&mut self, name: &str) {
        let heading = self.look.paint(Paint::Heading, name);
        let space = " ".repeat(LABEL.saturating_sub(name.len()));
        self.text.push_str(&format!("\n{heading}{space}"));
    }

    fn section(&mut self, name: &str, columns: &[&str]) {
        self.heading(name);
        for (column, width) in columns.iter().zip(FIGURES) {
            self.text.push_str(&format!("{column:>width$}"));
        }
        self.text.push('\n');
    }

    fn row(&mut self, name: &str, figures: &[String], aside: &str) {
        let mut line = format!("{:LABEL$}", format!("  {name}"));
        for (figure, width) in figures.iter().zip(FIGURES) {
            line.push_str(&format!("{figure:>width$}"));
        }
        if !aside.is_empty() {
            line.push_str("   ");
            line.push_str(aside);
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{
        Buffers, ClientConnections, Jobs, Kernel, Program, Replies, ServerConnections, Stacked,
    };
    use crate::control::message::{Lanes, Server};

    const SERVER_CONNECTIONS: ServerConnections =
        ServerConnections { open: 10, idle: 6, opened_total: 512, reused_total: 23_900, pipelined_total: 0 };

    fn busy() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            uptime_seconds: 11_520,
            workers: 2,
            draining: false,
            client_connections: ClientConnections { open: 128, accepted_total: 12_345 },
            server_connections: SERVER_CONNECTIONS,
            requests_total: 24_412,
            replies: Replies {
                rewritten_total: 8_000,
                streamed_total: 16_370,
                spilled_total: 12,
                local_total: 33,
                trailers_dropped_total: 0,
            },
            stacked: Stacked { noticed_total: 40, distributed_total: 38, in_flight: 2 },
            jobs: Jobs { active: 3, queued: 0, done_total: 24_409, failed_total: 0, cancelled_total: 0 },
            buffers: Buffers {
                memory: BufferTier {
                    used: 84_000_000,
                    size: 256 << 20,
                    replies: 12,
                    spilled_total: 12,
                    refused_total: 0,
                    ..BufferTier::default()
                },
                flash: Some(BufferTier { used: 1, size: 4 << 30, ..BufferTier::default() }),
                disk: None,
            },
            lanes: Lanes {
                copy: Lane { active: 1, splices_total: 12_000, bytes_total: 1_300_000_000 },
                sockmap: Lane { active: 2, splices_total: 300, bytes_total: 13_000_000_000 },
                ..Lanes::default()
            },
            kernel: Kernel {
                mode: "partial".to_owned(),
                programs: vec![
                    Program {
                        name: "cmim_guard".to_owned(),
                        kind: "xdp".to_owned(),
                        attached_to: vec!["eth0".to_owned()],
                    },
                    Program { name: "cmim_verdict".to_owned(), kind: "sk_skb".to_owned(), attached_to: vec![] },
                ],
                maps: vec!["CMIM_COUNTERS".to_owned(), "CMIM_SOCKETS".to_owned()],
                pin_dir: "/sys/fs/bpf/cmim".to_owned(),
                missing: vec!["native XDP on eth0 (the driver has none)".to_owned()],
            },
            servers: vec![Server {
                upstream: "app".to_owned(),
                address: "10.0.0.11:8080".to_owned(),
                state: "up".to_owned(),
                weight: 1,
                in_flight: 3,
                idle: 6,
                requests_total: 24_379,
                failures_total: 0,
            }],
        }
    }

    const SCREEN: &str = "\
cmim 0.1.0  running  up 3h 12m  pid 4711  2 workers

CONNECTIONS        open       idle      total
  clients           128                12,345
  servers            10          6        512   97.9% of requests reused one

REQUESTS         24,412
  rewritten       8,000   sent with a length that the server did not give
  streamed       16,370   sent on as they came
  local              33   the device's own: refusals and errors
  spilled            12   left the RAM tier while held

JOBS             active     queued      total
  requests            3          0     24,409
  stacked             2                    40   38 of them distributed

BUFFERS            used       size    replies  spilled  refused
  memory       80.1 MiB  256.0 MiB         12       12        0   ███░░░░░░░░░
  flash             1 B    4.0 GiB          0        0        0   █░░░░░░░░░░░

LANES            active    carried      bytes
  copy                1     12,000    1.2 GiB
  pipe                0          0        0 B
  sockmap             2        300   12.1 GiB
  local               0          0        0 B

KERNEL       partial, 2 maps in /sys/fs/bpf/cmim
  cmim_guard              xdp           eth0
  cmim_verdict            sk_skb        -
  missing: native XDP on eth0 (the driver has none)

SERVERS
  UPSTREAM  SERVER          STATE  WEIGHT  IN FLIGHT  IDLE  REQUESTS  FAILURES
  app       10.0.0.11:8080  up          1          3     6    24,379         0
";

    #[test]
    fn the_screen_is_laid_out_as_it_should_be() {
        assert_eq!(page(&busy(), Look::default()), SCREEN);
    }

    #[test]
    fn no_line_is_wider_than_eighty_columns() {
        let mut wide = busy();
        wide.client_connections.accepted_total = u64::MAX;
        wide.requests_total = 9_999_999;
        wide.replies.rewritten_total = 9_999_999;
        wide.buffers.disk = Some(BufferTier {
            used: 1023 << 30,
            size: 1023 << 40,
            replies: 9_999_999,
            spilled_total: 9_999_999,
            refused_total: 9_999_999,
            ..BufferTier::default()
        });
        for line in page(&wide, Look { colour: false, width: Some(80) }).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn colour_changes_no_word_and_no_column() {
        let coloured = page(&busy(), Look { colour: true, width: None });
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, code)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = code.split_once('m').expect("a whole sequence").1;
        }
        plain.push_str(rest);
        assert_eq!(plain, page(&busy(), Look::default()));
    }

    #[test]
    fn a_bar_is_empty_only_when_nothing_is_in_it() {
        let cells = |full| bar(full, Look::default()).chars().filter(|cell| *cell == '█').count();
        assert_eq!((cells(0.0), cells(0.000_1), cells(0.5), cells(0.99), cells(1.0)), (0, 1, 6, 11, 12));
    }
}
