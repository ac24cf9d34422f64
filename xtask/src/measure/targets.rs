//! What cmim is to reach, and whether the saved results say that it does.

use super::contender::Contender;
use super::kind::Kind;
use super::saved::Saved;
use super::statistics::{Summary, figure};
use super::{idle, load, many, meter, scale, slow, stacked};

/// One line of the report's table.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    who: Contender,
    work: &'static str,
    what: &'static str,
    metric: String,
    /// What the measured value is divided by to be what the target is about.
    unit: f64,
    against: Against,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    /// Whichever of the peers did better.
    BetterPeer,
    One(Contender),
    /// The value itself.
    Itself,
}

impl Against {
    fn name(self) -> &'static str {
        match self {
            Self::BetterPeer => "the better peer",
            Self::One(contender) => contender.name(),
            Self::Itself => "-",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// How a target stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Measured { found: Summary, against: Option<Contender>, reached: bool },
    Missing { why: String },
}

/// Every target, in the order of the report.
pub(crate) fn all() -> Vec<Target> {
    use Against::{BetterPeer, Itself, One};
    use Bound::{AtLeast, AtMost};
    let row = |kind, work, what, metric: &str, against, bound| Target {
        kind,
        who: Contender::Cmim,
        work,
        what,
        metric: metric.to_owned(),
        unit: 1.0,
        against,
        bound,
    };
    let pipelined = |row| Target { who: Contender::CmimPipelined, ..row };
    let small = "1 KB, 64 connections kept, 1 worker";
    let piped = "the same, with `server_pipeline = 16` (off by default)";
    let local = "1 KB, servers on the same host";
    let dynamic = "8 KB without a length, the server closes each time";
    let idle = "10,000 idle connections";
    let slow = "32 fast clients beside 500 slow readers of 1 MB";
    let many = "10,000 clients that ask seldom, 2 workers";
    let page = stacked::metric(stacked::SHORT_MS);
    let page_time = f64::from(u32::try_from(stacked::SHORT_MS).unwrap_or(1));
    vec![
        row(Kind::Small, small, "total CPU per request", meter::MACHINE, BetterPeer, AtMost(0.88)),
        row(Kind::Small, small, "rate", load::RATE, BetterPeer, AtLeast(1.12)),
        row(Kind::Small, small, "p99", load::P99, BetterPeer, AtMost(0.9)),
        pipelined(row(Kind::Small, piped, "total CPU per request", meter::MACHINE, BetterPeer, AtMost(0.88))),
        pipelined(row(Kind::Small, piped, "rate", load::RATE, BetterPeer, AtLeast(1.12))),
        pipelined(row(Kind::Small, piped, "p99", load::P99, BetterPeer, AtMost(0.9))),
        row(Kind::Local, local, "total CPU per request", meter::MACHINE, BetterPeer, AtMost(0.80)),
        row(Kind::Medium, "100 KB", "total CPU per request", meter::MACHINE, BetterPeer, AtMost(0.75)),
        row(Kind::Medium, "100 KB", "rate", load::RATE, BetterPeer, AtLeast(1.3)),
        row(Kind::Bulk, "10 MB", "total CPU per request", meter::MACHINE, BetterPeer, AtMost(0.70)),
        row(Kind::Bulk, "10 MB", "total CPU per request", meter::MACHINE, One(Contender::Direct), AtMost(1.10)),
        row(Kind::Dynamic, dynamic, "rate", load::RATE, BetterPeer, AtLeast(1.2)),
        row(Kind::Dynamic, dynamic, "connections of each client", load::CONNECTIONS, Itself, AtMost(1.0)),
        Target {
            unit: page_time,
            ..row(Kind::Stacked, "16 stacked pages of 20 ms, 4 servers", "page times", &page, Itself, AtMost(1.5))
        },
        row(Kind::Slow, slow, "p99, by its value without them", slow::GROWTH, Itself, AtMost(1.2)),
        row(Kind::Connect, "a new connection for each request", "rate", load::RATE, BetterPeer, AtLeast(1.1)),
        row(Kind::Idle, idle, "memory of each, KiB", idle::EACH, Itself, AtMost(3.0)),
        row(Kind::Idle, idle, "memory of each", idle::EACH, One(Contender::Haproxy), AtMost(0.5)),
        row(Kind::Many, many, "server connections", many::HELD, Itself, AtMost(64.0)),
        row(Kind::Many, many, "p99", many::P99, BetterPeer, AtMost(0.9)),
        row(Kind::Scale, "from 1 to 2 workers", "requests per CPU second", scale::BY_WORKERS, Itself, AtLeast(0.9)),
        row(
            Kind::Scale,
            "from 64 to 10,000 connections",
            "requests per CPU second",
            scale::BY_CLIENTS,
            Itself,
            AtLeast(0.9),
        ),
    ]
}

impl Target {
    pub(crate) fn judge(&self, saved: &Saved) -> Verdict {
        if let Some(reason) = saved.failure(self.who) {
            return Verdict::Missing { why: format!("{} failed: {reason}", self.who) };
        }
        let (peer, found) = match self.against {
            Against::Itself => (None, self.own(saved)),
            Against::One(peer) => (Some(peer), self.ratio(saved, peer)),
            Against::BetterPeer => {
                let peer = self.better_peer(saved);
                (peer, peer.and_then(|peer| self.ratio(saved, peer)))
            }
        };
        let Some(found) = found else {
            let why = peer.and_then(|peer| saved.failure(peer).map(|reason| format!("{peer} failed: {reason}")));
            return Verdict::Missing { why: why.unwrap_or_else(|| "nothing to compare with".to_owned()) };
        };
        let reached = match self.bound {
            Bound::AtMost(bound) => found.median <= bound,
            Bound::AtLeast(bound) => found.median >= bound,
        };
        Verdict::Measured { found, against: peer, reached }
    }

    fn own(&self, saved: &Saved) -> Option<Summary> {
        let found = saved.summary(self.who, &self.metric)?;
        let by = |value: f64| value / self.unit;
        Some(Summary { median: by(found.median), least: by(found.least), most: by(found.most) })
    }

    /// The ratio of the medians; its spread is that of the rounds, each by the peer's round next to it.
    fn ratio(&self, saved: &Saved, peer: Contender) -> Option<Summary> {
        let (ours, theirs) = (saved.summary(self.who, &self.metric)?, saved.summary(peer, &self.metric)?);
        let rounds = saved.rounds(self.who, &self.metric).into_iter().zip(saved.rounds(peer, &self.metric));
        let spread = Summary::of(rounds.filter_map(|(ours, theirs)| Some(ours? / theirs?)))?;
        Some(Summary { median: ours.median / theirs.median, ..spread })
    }

    fn better_peer(&self, saved: &Saved) -> Option<Contender> {
        let median = |peer: &Contender| saved.summary(*peer, &self.metric).map(|summary| summary.median);
        let measured = Contender::PEERS.into_iter().filter(|peer| median(peer).is_some());
        let order = |one: &Contender, other: &Contender| {
            let by = median(one).unwrap_or_default().total_cmp(&median(other).unwrap_or_default());
            if matches!(self.bound, Bound::AtLeast(_)) { by.reverse() } else { by }
        };
        measured.min_by(order)
    }

    /// A row of the report's table.
    pub(crate) fn line(&self, verdict: &Verdict) -> String {
        let bound = match self.bound {
            Bound::AtMost(bound) => format!("≤ {bound}"),
            Bound::AtLeast(bound) => format!("≥ {bound}"),
        };
        let (found, spread, against, reached) = match verdict {
            Verdict::Measured { found, against, reached } => (
                format!("**{}**", figure(found.median)),
                format!("{} to {}", figure(found.least), figure(found.most)),
                against.map_or("-", Contender::name),
                if *reached { "yes" } else { "**NO**" }.to_owned(),
            ),
            Verdict::Missing { why } => ("-".to_owned(), "-".to_owned(), self.against.name(), why.clone()),
        };
        let Self { kind, work, what, .. } = self;
        let name = kind.name();
        format!("| [{name}]({name}.md) | {work} | {what} | {bound} | {found} | {spread} | {against} | {reached} |\n")
    }
}

/// The first two lines of the table.
pub(crate) const HEAD: &str = "| kind | work | what | target | measured | rounds | against | reached |\n\
    | --- | --- | --- | --- | --- | --- | --- | --- |\n";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(against: Against, bound: Bound) -> Target {
        Target {
            kind: Kind::Small,
            who: Contender::Cmim,
            work: "w",
            what: "x",
            metric: "m".to_owned(),
            unit: 1.0,
            against,
            bound,
        }
    }

    fn saved() -> Saved {
        let rounds = |values: &[f64]| json!({ "rounds": values.iter().map(|v| json!({ "m": v })).collect::<Vec<_>>() });
        Saved::of(json!({ "contenders": {
            "cmim": rounds(&[8.0, 9.0, 10.0]), "HAProxy": rounds(&[10.0, 10.0, 20.0]), "nginx": rounds(&[30.0, 30.0, 30.0]),
        }}))
    }

    #[test]
    fn the_better_peer_is_the_one_to_beat_in_either_direction() {
        let lower = target(Against::BetterPeer, Bound::AtMost(0.9)).judge(&saved());
        let found = Summary { median: 0.9, least: 0.5, most: 0.9 };
        assert_eq!(lower, Verdict::Measured { found, against: Some(Contender::Haproxy), reached: true });
        let higher = target(Against::BetterPeer, Bound::AtLeast(1.1)).judge(&saved());
        assert!(
            matches!(higher, Verdict::Measured { against: Some(Contender::Nginx), reached: false, .. }),
            "{higher:?}"
        );
    }

    #[test]
    fn what_is_missing_is_never_reached() {
        let nothing = Saved::of(json!({ "contenders": { "cmim": { "rounds": [] , "failed": "it fell" } } }));
        let verdict = target(Against::Itself, Bound::AtMost(1.0)).judge(&nothing);
        assert_eq!(verdict, Verdict::Missing { why: "cmim failed: it fell".to_owned() });
        assert!(target(Against::Itself, Bound::AtMost(1.0)).line(&verdict).ends_with("| cmim failed: it fell |\n"));
    }

    #[test]
    fn every_target_is_of_a_kind_in_the_report() {
        assert!(all().iter().all(|target| Kind::EACH.contains(&target.kind)));
    }
}
