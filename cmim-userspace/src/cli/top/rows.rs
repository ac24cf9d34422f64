//! What the screen's tables hold, in any order.

use crate::control::figures;
use crate::control::message::{BufferTier, Connection, Job, Lane, Server, Status};

/// Everything of one look at the daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub status: Status,
    pub connections: Vec<Connection>,
    pub jobs: Vec<Job>,
}

/// A cell: what is shown, and what it is sorted by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub text: String,
    /// `None`: by its text.
    pub number: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row(pub Vec<Cell>);

/// The tables, in the order of their keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Servers,
    Connections,
    Jobs,
    Lanes,
    Tiers,
}

impl Tab {
    pub(super) const ALL: [Self; 5] = [Self::Servers, Self::Connections, Self::Jobs, Self::Lanes, Self::Tiers];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Connections => "connections",
            Self::Jobs => "jobs",
            Self::Lanes => "lanes",
            Self::Tiers => "tiers",
        }
    }

    pub(super) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Servers => &["UPSTREAM", "SERVER", "STATE", "WEIGHT", "IN FLIGHT", "IDLE", "REQUESTS", "FAILURES"],
            Self::Connections => &["ID", "LISTENER", "CLIENT", "STATE", "AGE", "REQUESTS", "STACKED", "IN", "OUT"],
            Self::Jobs => &["ID", "CLIENT", "METHOD", "STATE", "SERVER", "AGE", "BYTES", "TIER", "TARGET"],
            Self::Lanes => &["LANE", "ACTIVE", "CARRIED", "BYTES"],
            Self::Tiers => &["TIER", "USED", "SIZE", "CONTENTS", "SPILLED", "REFUSED", "STATE"],
        }
    }

    pub(super) fn rows(self, look: &Look) -> Vec<Row> {
        match self {
            Self::Servers => look.status.servers.iter().map(server).collect(),
            Self::Connections => look.connections.iter().map(connection).collect(),
            Self::Jobs => look.jobs.iter().map(job).collect(),
            Self::Lanes => {
                let lanes = &look.status.lanes;
                let all =
                    [("copy", lanes.copy), ("pipe", lanes.pipe), ("sockmap", lanes.sockmap), ("local", lanes.local)];
                all.iter().map(|(name, figures)| lane(name, figures)).collect()
            }
            Self::Tiers => {
                let buffers = &look.status.buffers;
                let file = [("flash", &buffers.flash), ("disk", &buffers.disk)];
                let file = file.into_iter().filter_map(|(name, figures)| Some((name, figures.as_ref()?)));
                let all = std::iter::once(("memory", &buffers.memory)).chain(file);
                all.map(|(name, figures)| tier(name, figures)).collect()
            }
        }
    }
}

fn text(text: &str) -> Cell {
    // A request's target may hold anything; a terminal is not to be told by it.
    Cell { text: text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(), number: None }
}

#[expect(clippy::cast_precision_loss, reason = "only compared")]
fn number(shown: String, value: u64) -> Cell {
    Cell { text: shown, number: Some(value as f64) }
}

fn count(value: u64) -> Cell {
    number(figures::count(value), value)
}

fn bytes(value: u64) -> Cell {
    number(figures::bytes(value), value)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an age in whole seconds")]
fn age(seconds: f64) -> Cell {
    Cell { text: figures::span(seconds.max(0.0) as u64), number: Some(seconds) }
}

fn server(server: &Server) -> Row {
    Row(vec![
        text(&server.upstream),
        text(&server.address),
        text(&server.state),
        count(u64::from(server.weight)),
        count(server.in_flight),
        count(server.idle),
        count(server.requests_total),
        count(server.failures_total),
    ])
}

fn connection(connection: &Connection) -> Row {
    Row(vec![
        number(connection.id.to_string(), connection.id),
        text(&connection.listener),
        text(&connection.address),
        text(&connection.state),
        age(connection.age_seconds),
        count(connection.requests),
        count(connection.stacked),
        bytes(connection.bytes_in),
        bytes(connection.bytes_out),
    ])
}

fn job(job: &Job) -> Row {
    Row(vec![
        text(&job.id),
        text(&job.client),
        text(&job.method),
        text(&job.state),
        text(&job.server),
        age(job.age_seconds),
        bytes(job.bytes),
        text(&job.tier),
        text(&job.target),
    ])
}

fn lane(name: &str, lane: &Lane) -> Row {
    Row(vec![text(name), count(lane.active), count(lane.splices_total), bytes(lane.bytes_total)])
}

fn tier(name: &str, tier: &BufferTier) -> Row {
    Row(vec![
        text(name),
        bytes(tier.used),
        bytes(tier.size),
        count(tier.replies),
        count(tier.spilled_total),
        count(tier.refused_total),
        text(tier.degraded.as_deref().unwrap_or("ok")),
    ])
}
