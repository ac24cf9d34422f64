//! A finished request's line in the access log, and its last counts.

use std::time::{Instant, SystemTime};

use crate::config::model::Listener;
use crate::exchange::{Link, Site, Trail};
use crate::h1::{Known, RequestHead, Version};
use crate::observe::access_log::Entry;

/// Counts a request that ended at `at` and logs it. `head`: `None` where it could not be parsed.
pub(super) fn finished(
    site: &Site,
    link: &Link,
    listener: &Listener,
    head: Option<(&RequestHead, &str)>,
    trail: &Trail,
    at: Instant,
) {
    let duration = at - trail.began;
    site.counters.request_duration.observe(duration);
    if !site.log.enabled() {
        return;
    }
    let version = match head.map(|(head, _)| head.version) {
        Some(Version::Http11) => "HTTP/1.1",
        Some(Version::Http10) => "HTTP/1.0",
        None => "",
    };
    site.log.log(&Entry {
        time: SystemTime::now() - duration,
        listener: &listener.name,
        client: link.peer,
        method: head.map_or(&[], |(head, _)| head.method.as_bytes()),
        target: head.map_or(&[], |(head, _)| &head.target),
        version,
        status: trail.status,
        bytes_in: trail.bytes_in,
        bytes_out: trail.bytes_out,
        upstream: head.map_or("", |(_, upstream)| upstream),
        server: trail.server.as_ref().map(|server| &*server.name),
        duration,
        queue_wait: trail.queue_wait,
        connect: trail.connect,
        first_byte: trail.first_byte,
        reused: trail.reused,
        retries: trail.retries,
        stacked: trail.stacked,
        turn_wait: trail.turn_wait,
        handling: trail.handling.name(),
        reason: trail.reason.as_deref(),
        referer: head.and_then(|(head, _)| head.fields.get(Known::Referer)),
        user_agent: head.and_then(|(head, _)| head.fields.get(Known::UserAgent)),
    });
}
