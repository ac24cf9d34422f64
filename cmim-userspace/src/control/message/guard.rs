//! What `cmim guard` shows.

use serde::{Deserialize, Serialize};

/// The guard in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    pub interfaces: Vec<GuardedInterface>,
    /// Networks in the deny list.
    pub denied: u64,
    /// SYNs a second; 0: no limit.
    pub syn_rate_per_source: u64,
    /// SYNs a second, from where on cookies answer; 0: they never do.
    pub syn_rate_per_listener: u64,
    /// Whether SYNs over a listener's rate are answered with cookies; else they are dropped.
    pub cookies: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_no_cookies: Option<String>,
    pub counters: GuardCounters,
    pub listeners: Vec<GuardedListener>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedInterface {
    pub name: String,
    /// "native", "generic", or "" while it is not guarded.
    pub place: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Packets since the guard was loaded, on all interfaces. `packets` = `passed` + those dropped + `cookies_sent`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardCounters {
    pub packets: u64,
    /// Of `packets`, link headers included.
    pub bytes: u64,
    pub passed: u64,
    pub dropped_denied: u64,
    pub dropped_flags: u64,
    pub dropped_rate: u64,
    /// Wrapped so that source or TCP header cannot be read.
    #[serde(default)]
    pub dropped_wrapped: u64,
    pub cookies_sent: u64,
    pub cookies_returned: u64,
    pub not_ip: u64,
    pub truncated: u64,
    /// To any address.
    pub tcp_syn: u64,
    /// TCP packets to a listener that passed.
    pub to_listener: u64,
}

/// What the guard counted for one address of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedListener {
    pub listener: String,
    pub address: String,
    pub syns_passed: u64,
    pub dropped_flags: u64,
    pub dropped_rate: u64,
    pub cookies_sent: u64,
    /// Of them, those that came back and began a connection.
    pub cookies_returned: u64,
}
