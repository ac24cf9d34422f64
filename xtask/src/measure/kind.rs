//! The kinds of work, in the order of the report, and how long each is expected to take.

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::results::Results;
use super::{Run, guard, idle, lanes, load, many, scale, slow, stacked, tunnel};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Every one of them
    All,
    /// Pages of 1 KB
    Small,
    /// Pages of 1 KB from a server on the same host
    Local,
    /// Pages of 100 KB
    Medium,
    /// Pages of 10 MB
    Bulk,
    /// Pages of 8 KB without a length, of a server that closes after each
    Dynamic,
    /// A new client connection for each request
    Connect,
    /// Stacked requests for slow pages
    Stacked,
    /// Slow readers beside fast ones
    Slow,
    /// Memory of connections on which nothing is asked
    Idle,
    /// 10,000 clients that ask seldom
    Many,
    /// One worker and two, few connections and many
    Scale,
    /// Upgraded connections with a message now and then
    Tunnel,
    /// Each lane for each size over each path
    Lanes,
    /// Packets that are dropped, beside an nftables rule
    Guard,
}

impl Kind {
    /// In the order of the report.
    pub(crate) const EACH: [Self; 14] = [
        Self::Small,
        Self::Local,
        Self::Medium,
        Self::Bulk,
        Self::Dynamic,
        Self::Connect,
        Self::Stacked,
        Self::Slow,
        Self::Idle,
        Self::Many,
        Self::Scale,
        Self::Tunnel,
        Self::Lanes,
        Self::Guard,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Small => "small",
            Self::Local => "local",
            Self::Medium => "medium",
            Self::Bulk => "bulk",
            Self::Dynamic => "dynamic",
            Self::Connect => "connect",
            Self::Stacked => "stacked",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Many => "many",
            Self::Scale => "scale",
            Self::Tunnel => "tunnel",
            Self::Lanes => "lanes",
            Self::Guard => "guard",
        }
    }

    pub(crate) fn measure(self, run: &Run) -> Result<Results> {
        match self {
            Self::All => bail!("all is every benchmark, not one"),
            Self::Small => load::run(run, &load::SMALL),
            Self::Local => load::run(run, &load::LOCAL),
            Self::Medium => load::run(run, &load::MEDIUM),
            Self::Bulk => load::run(run, &load::BULK),
            Self::Dynamic => load::run(run, &load::DYNAMIC),
            Self::Connect => load::run(run, &load::CONNECT),
            Self::Stacked => stacked::run(run),
            Self::Slow => slow::run(run),
            Self::Idle => idle::run(run),
            Self::Many => many::run(run),
            Self::Scale => scale::run(run),
            Self::Tunnel => tunnel::run(run),
            Self::Lanes => lanes::run(run),
            Self::Guard => guard::run(run),
        }
    }

    /// Seconds, on a host that is not busy otherwise. Starts, warm-ups and what each round costs beside its measurement
    /// are in the constants.
    pub(crate) fn expected(self, run: &Run) -> f64 {
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let rounds = count(run.rounds);
        let seconds = count(usize::try_from(run.seconds).unwrap_or(1));
        match self {
            Self::All => Self::EACH.into_iter().map(|kind| kind.expected(run)).sum(),
            Self::Medium | Self::Bulk | Self::Dynamic | Self::Connect => 5.0 + rounds * 4.0 * (seconds + 0.1),
            Self::Small => 8.0 + rounds * 6.0 * (seconds + 0.1),
            Self::Local => 7.0 + rounds * 5.0 * (seconds + 0.1),
            Self::Stacked => 2.0 + rounds * 4.0,
            Self::Slow => 6.0 + rounds * 4.0 * (2.0 * seconds + 4.0),
            Self::Idle => count(idle::rounds(run)) * 3.0 * 9.5,
            Self::Many => 1.0 + rounds * 3.0 * (seconds + 4.0),
            Self::Scale => 4.0 + rounds * 9.0 * (seconds.min(2.0) + 1.7),
            Self::Tunnel => 2.0 + rounds * 5.0 * (seconds + if run.quick { 1.5 } else { 3.0 }),
            Self::Lanes => 6.0 + count(lanes::measurements(run)) * 1.1,
            Self::Guard => 2.0 + rounds * 3.0 * (seconds + 0.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_report_and_called_as_on_the_command_line() {
        assert_eq!(Kind::EACH.len() + 1, Kind::value_variants().len());
        for kind in Kind::value_variants() {
            assert_eq!(kind.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(kind.name()));
        }
    }
}
