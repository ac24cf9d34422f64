//! The names of the values that a key chooses from, for reading, printing and messages.

use super::error::{Unfit, nearest};
use super::model::{
    AccessLogFormat, Balance, KernelMode, LengthRewrite, LocalBypass, RequestBuffering, SendProxyProtocol, SpliceMode,
    TierKind, XdpMode,
};

/// An enum of the model whose variants have names in the file.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Every variant with its name, in the order in which they are listed to people.
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        // Every variant is in NAMES: `tests::every_choice_has_its_name` names them all.
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }

    fn parse(text: &str) -> Result<Self, Unfit> {
        let chosen = Self::NAMES.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let names = Self::NAMES.iter().map(|(name, _)| *name);
            Unfit::new(expected::<Self>()).instead(nearest(text, names).map(str::to_owned))
        })
    }
}

/// `"a", "b" or "c"`.
pub(super) fn expected<T: Choice>() -> String {
    let quoted: Vec<String> = T::NAMES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// `a | b | c`.
pub(super) fn listed<T: Choice>() -> String {
    let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
    names.join(" | ")
}

impl Choice for KernelMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("required", Self::Required), ("off", Self::Off)];
}

impl Choice for XdpMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic)];
}

impl Choice for SpliceMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("sockmap", Self::Sockmap), ("pipe", Self::Pipe), ("off", Self::Off)];
}

impl Choice for LocalBypass {
    const NAMES: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}

impl Choice for TierKind {
    const NAMES: &'static [(&'static str, Self)] = &[("flash", Self::Flash), ("disk", Self::Disk)];
}

impl Choice for AccessLogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("json", Self::Json), ("combined", Self::Combined)];
}

impl Choice for Balance {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("least-requests", Self::LeastRequests),
        ("round-robin", Self::RoundRobin),
        ("random-two", Self::RandomTwo),
        ("hash", Self::Hash),
    ];
}

impl Choice for LengthRewrite {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

impl Choice for RequestBuffering {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

impl Choice for SendProxyProtocol {
    const NAMES: &'static [(&'static str, Self)] = &[("off", Self::Off), ("v1", Self::V1), ("v2", Self::V2)];
}
