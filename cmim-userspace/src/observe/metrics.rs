//! The text of `/metrics`, in the Prometheus exposition format.
//!
//! Owns the metrics' names and help. Written by hand from a [`Status`], the [`Totals`] and the [`Guard`]'s answer: workers
//! and kernel keep the figures already, and a registry would hold each of them a second time.

mod guard;

use std::fmt::{self, Display, Write};

use super::counters::Totals;
use crate::control::message::{BufferTier, Guard, Lane, Server, Status};

/// What `/metrics` is served as.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the device; those of the guard only where there is one.
#[must_use]
pub(super) fn text(status: &Status, totals: &Totals, guard: Option<&Guard>) -> String {
    let mut out = Exposition::default();
    device(&mut out, status);
    connections(&mut out, totals, status);
    requests(&mut out, totals);
    jobs(&mut out, totals);
    buffers(&mut out, status);
    lanes(&mut out, status);
    servers(&mut out, &status.servers);
    if let Some(guard) = guard {
        guard::guard(&mut out, guard);
    }
    out.text
}

fn device(out: &mut Exposition, status: &Status) {
    out.family("cmim_info", "gauge", "The running version.");
    out.sample("cmim_info", &[("version", &status.version)], 1);
    out.single("cmim_uptime_seconds", "gauge", "Since the daemon started.", status.uptime_seconds);
    out.single("cmim_workers", "gauge", "Event loops.", status.workers);
    out.single("cmim_draining", "gauge", "1 while the device finishes and accepts no more.", u8::from(status.draining));
    out.family("cmim_kernel_program", "gauge", "BPF programs loaded by the daemon.");
    for program in &status.kernel.programs {
        let labels = [("name", program.name.as_str()), ("kind", program.kind.as_str())];
        out.sample("cmim_kernel_program", &labels, 1);
    }
}

fn connections(out: &mut Exposition, totals: &Totals, status: &Status) {
    out.single("cmim_client_connections", "gauge", "Open client connections.", totals.client_open);
    out.single(
        "cmim_client_connections_accepted_total",
        "counter",
        "Client connections accepted.",
        totals.client_accepted,
    );
    out.single("cmim_server_connections", "gauge", "Open server connections.", totals.server_open);
    out.single(
        "cmim_server_connections_idle",
        "gauge",
        "Server connections in the pools.",
        status.server_connections.idle,
    );
    out.single("cmim_server_connections_opened_total", "counter", "Server connections opened.", totals.server_opened);
    out.single(
        "cmim_server_connections_reused_total",
        "counter",
        "Requests sent on a server connection that had served another.",
        totals.server_reused,
    );
    out.single(
        "cmim_server_connections_pipelined_total",
        "counter",
        "Requests sent behind another one that its server had not answered yet.",
        totals.server_pipelined,
    );
}

fn requests(out: &mut Exposition, totals: &Totals) {
    out.single("cmim_requests_total", "counter", "Requests received.", totals.jobs.received);
    let name = "cmim_replies_total";
    out.family(name, "counter", "Replies sent, by what the device did to them.");
    for (handling, n) in [
        ("rewritten", totals.replies_rewritten),
        ("streamed", totals.replies_streamed),
        ("local", totals.replies_local),
    ] {
        out.sample(name, &[("handling", handling)], n);
    }
    out.single("cmim_replies_spilled_total", "counter", "Held replies that left the RAM tier.", totals.replies_spilled);
    out.single(
        "cmim_trailers_dropped_total",
        "counter",
        "Trailer fields dropped because their reply became length-delimited.",
        totals.trailers_dropped,
    );
    let name = "cmim_refusals_total";
    out.family(name, "counter", "Replies of the device's own making, by status.");
    for (status, n) in totals.refusals_by_status() {
        let status = if status == 0 { "other".to_owned() } else { status.to_string() };
        out.sample(name, &[("status", &status)], n);
    }
    let name = "cmim_retries_total";
    out.family(name, "counter", "Requests sent to a server again, by cause.");
    out.sample(name, &[("cause", "failed")], totals.retries);
    out.sample(name, &[("cause", "stale")], totals.stale_retries);
    out.sample(name, &[("cause", "pipelined")], totals.pipelined_again);
    durations(out, totals);
    out.single("cmim_access_log_dropped_total", "counter", "Access log lines lost.", totals.access_log_dropped);
}

fn durations(out: &mut Exposition, totals: &Totals) {
    let histogram = &totals.request_duration;
    out.family("cmim_request_duration_seconds", "histogram", "From a request's first byte to its reply's last.");
    for (bound, n) in histogram.cumulative() {
        let bound = bound.to_string();
        out.sample("cmim_request_duration_seconds_bucket", &[("le", &bound)], n);
    }
    out.sample("cmim_request_duration_seconds_bucket", &[("le", "+Inf")], histogram.count());
    out.sample("cmim_request_duration_seconds_sum", &[], histogram.sum_seconds());
    out.sample("cmim_request_duration_seconds_count", &[], histogram.count());
}

fn jobs(out: &mut Exposition, totals: &Totals) {
    let name = "cmim_jobs";
    out.family(name, "gauge", "Requests in the device, by state.");
    out.sample(name, &[("state", "active")], totals.jobs.active);
    out.sample(name, &[("state", "queued")], totals.jobs.queued);
    out.family("cmim_jobs_finished_total", "counter", "Requests finished, by how they ended.");
    for (end, count) in
        [("done", totals.jobs.done), ("failed", totals.jobs.failed), ("cancelled", totals.jobs.cancelled)]
    {
        out.sample("cmim_jobs_finished_total", &[("end", end)], count);
    }
    out.single(
        "cmim_stacked_noticed_total",
        "counter",
        "Requests received behind an unanswered one of their client connection.",
        totals.stacked_noticed,
    );
    out.single(
        "cmim_stacked_distributed_total",
        "counter",
        "Stacked requests sent to a server while an earlier one was unanswered.",
        totals.stacked_distributed,
    );
    out.single("cmim_stacked_in_flight", "gauge", "Stacked requests in the device.", totals.stacked_in_flight);
}

fn buffers(out: &mut Exposition, status: &Status) {
    let buffers = &status.buffers;
    let tiers: Vec<(&str, &BufferTier)> =
        [("memory", Some(&buffers.memory)), ("flash", buffers.flash.as_ref()), ("disk", buffers.disk.as_ref())]
            .into_iter()
            .filter_map(|(name, tier)| tier.map(|tier| (name, tier)))
            .collect();
    let families: [Family<BufferTier>; 8] = [
        ("cmim_buffer_used_bytes", "gauge", "Bytes held.", |tier| tier.used),
        ("cmim_buffer_size_bytes", "gauge", "Bytes that fit.", |tier| tier.size),
        ("cmim_buffer_replies", "gauge", "Replies held.", |tier| tier.replies),
        ("cmim_buffer_spilled_total", "counter", "Replies that moved on to the next tier.", |tier| tier.spilled_total),
        ("cmim_buffer_refused_total", "counter", "Replies that found no room.", |tier| tier.refused_total),
        ("cmim_buffer_written_bytes_total", "counter", "Bytes written to the tier.", |tier| tier.written_total),
        ("cmim_buffer_written_per_day_bytes", "gauge", "Bytes written to the tier in the last 24 hours.", |tier| {
            tier.written_per_day
        }),
        ("cmim_buffer_degraded", "gauge", "1 while nothing new goes to the tier.", |tier| {
            u64::from(tier.degraded.is_some())
        }),
    ];
    for (name, kind, help, figure) in families {
        out.family(name, kind, help);
        for (tier_name, tier) in &tiers {
            out.sample(name, &[("tier", tier_name)], figure(tier));
        }
    }
}

fn lanes(out: &mut Exposition, status: &Status) {
    let lanes = &status.lanes;
    let lanes = [("copy", lanes.copy), ("pipe", lanes.pipe), ("sockmap", lanes.sockmap), ("local", lanes.local)];
    let families: [Family<Lane>; 3] = [
        ("cmim_lane_active", "gauge", "Contents and tunnels on their way.", |lane| lane.active),
        ("cmim_lane_splices_total", "counter", "Contents and tunnels carried.", |lane| lane.splices_total),
        ("cmim_lane_bytes_total", "counter", "Content bytes carried.", |lane| lane.bytes_total),
    ];
    for (name, kind, help, figure) in families {
        out.family(name, kind, help);
        for (lane_name, lane) in &lanes {
            out.sample(name, &[("lane", lane_name)], figure(lane));
        }
    }
}

fn servers(out: &mut Exposition, servers: &[Server]) {
    let families: [Family<Server>; 5] = [
        ("cmim_server_up", "gauge", "1 while the server takes requests.", |server| u64::from(server.state == "up")),
        ("cmim_server_in_flight", "gauge", "Requests at the server.", |server| server.in_flight),
        ("cmim_server_idle", "gauge", "Idle connections in the server's pool.", |server| server.idle),
        ("cmim_server_requests_total", "counter", "Requests sent to the server.", |server| server.requests_total),
        ("cmim_server_failures_total", "counter", "Requests that failed at the server.", |server| {
            server.failures_total
        }),
    ];
    for (name, kind, help, figure) in families {
        out.family(name, kind, help);
        for server in servers {
            let labels = [("upstream", server.upstream.as_str()), ("server", server.address.as_str())];
            out.sample(name, &labels, figure(server));
        }
    }
}

/// Name, type and help of a family with one sample for each `T`, and where its figure stands.
type Family<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

/// The exposition format: a family's HELP and TYPE, then its samples.
#[derive(Debug, Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let before = if position == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{}\"", LabelText(text)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _: fmt::Result = self.text.write_fmt(text);
    }
}

/// A label's value: backslash, quote and line end are escaped.
struct LabelText<'a>(&'a str);

impl Display for LabelText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::control::message::{GuardCounters, GuardedListener};
    use crate::observe::counters::{Counters, sum};

    fn exposition() -> String {
        let counters = Arc::new(Counters::default());
        for _ in 0..12 {
            counters.jobs.lock().enter();
        }
        counters.refusals.count(502);
        counters.request_duration.observe(Duration::from_millis(3));
        counters.lanes.sockmap.bytes.add(1 << 30);
        let totals = sum(&[counters]);
        let mut status = Status { version: "0.1.0".to_owned(), ..Status::default() };
        totals.fill(&mut status);
        status.servers.push(Server {
            upstream: "app".to_owned(),
            address: "unix:/run/\"a\\b\".sock".to_owned(),
            state: "up".to_owned(),
            requests_total: 11,
            ..Server::default()
        });
        status.buffers.flash = Some(BufferTier { written_per_day: 3 << 30, ..BufferTier::default() });
        text(&status, &totals, Some(&guarded()))
    }

    fn guarded() -> Guard {
        let listener = GuardedListener {
            listener: "web".to_owned(),
            address: "203.0.113.0/24:80-89".to_owned(),
            syns_passed: 7,
            dropped_rate: 5,
            cookies_sent: 4,
            ..GuardedListener::default()
        };
        let counters = GuardCounters { packets: 30, passed: 19, dropped_denied: 2, ..GuardCounters::default() };
        Guard { counters, listeners: vec![listener], ..Guard::default() }
    }

    #[test]
    fn figures_stand_under_their_names_and_labels() {
        let text = exposition();
        for line in [
            "cmim_info{version=\"0.1.0\"} 1",
            "cmim_requests_total 12",
            "cmim_refusals_total{status=\"502\"} 1",
            "cmim_refusals_total{status=\"other\"} 0",
            "cmim_request_duration_seconds_bucket{le=\"0.0025\"} 0",
            "cmim_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "cmim_request_duration_seconds_bucket{le=\"+Inf\"} 1",
            "cmim_request_duration_seconds_sum 0.003",
            "cmim_lane_bytes_total{lane=\"sockmap\"} 1073741824",
            "cmim_buffer_written_per_day_bytes{tier=\"flash\"} 3221225472",
            "cmim_guard_packets_total 30",
            "cmim_guard_passed_total 19",
            "cmim_guard_dropped_total{reason=\"denied\"} 2",
            "cmim_guard_listener_syns_passed_total{listener=\"web\",address=\"203.0.113.0/24:80-89\"} 7",
            "cmim_guard_listener_dropped_total{listener=\"web\",address=\"203.0.113.0/24:80-89\",reason=\"rate\"} 5",
            "cmim_guard_listener_cookies_sent_total{listener=\"web\",address=\"203.0.113.0/24:80-89\"} 4",
            "cmim_server_requests_total{upstream=\"app\",server=\"unix:/run/\\\"a\\\\b\\\".sock\"} 11",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_sample_follows_its_family_and_no_family_comes_twice() {
        let text = exposition();
        let mut families = HashSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().expect("a name");
                assert!(families.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} under {family}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn tiers_that_are_not_configured_are_absent() {
        let text = exposition();
        assert!(text.contains("cmim_buffer_size_bytes{tier=\"memory\"}"));
        assert!(!text.contains("tier=\"disk\""));
    }

    #[test]
    fn without_a_guard_its_metrics_are_absent() {
        let totals = sum(&[]);
        assert!(!text(&Status::default(), &totals, None).contains("cmim_guard_"));
    }
}
