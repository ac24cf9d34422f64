//! Whether the host has memory for the local lane.
//!
//! With its TCP memory full (`net.ipv4.tcp_mem`) the kernel lets a socket without queued bytes send by TCP all the same,
//! but gives a message for the lane nothing (`sk_msg_alloc`), and wakes its sender never again. So who waits on the lane
//! without news asks here. A message on a connection that was made for it shows what holds for the others.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::LocalLane;
use super::trial::{Connection, pattern};

/// More than a socket keeps back for itself from what it had before (a page).
const MESSAGE: usize = 16 << 10;
/// What was found holds for so long: a host full of waiting requests is not asked for each of them.
const FRESH: Duration = Duration::from_millis(200);
/// The lane stays shut for so long after it was found full.
const SHUT: Duration = Duration::from_secs(1);
/// Between two lines in the log.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the room.
#[derive(Debug)]
pub(super) struct Room {
    began: Instant,
    /// In milliseconds since `began`; 0: the lane is open.
    shut_until: AtomicU64,
    found: Mutex<Found>,
}

/// What was found, and when.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Found {
    looked: Option<Instant>,
    full: Option<Instant>,
    said: Option<Instant>,
}

impl Found {
    fn is_fresh(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < FRESH)
    }

    /// Takes a look's result; whether it is to be said.
    fn note(&mut self, has_room: bool, now: Instant) -> bool {
        self.looked = Some(now);
        if has_room {
            return false;
        }
        self.full = Some(now);
        let is_due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAID_AGAIN);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }

    /// Whether the lane was full at some time since then.
    fn was_full_since(&self, since: Instant) -> bool {
        self.full.is_some_and(|full| full >= since)
    }
}

impl Room {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, shut_until: AtomicU64::new(0), found: Mutex::default() }
    }

    /// Whether connections may take the lane. Costs nothing while it was never found full.
    pub(super) fn is_open(&self, lane: &LocalLane) -> bool {
        let until = self.shut_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = Instant::now();
        self.millis(now) >= until && self.look(lane, now)
    }

    /// Whether what a connection sent at `since` or later may be stuck.
    pub(super) fn was_full_since(&self, lane: &LocalLane, since: Instant) -> bool {
        let now = Instant::now();
        self.look(lane, now);
        self.found.lock().was_full_since(since)
    }

    /// Whether there is room, as it was found not long ago, or now.
    fn look(&self, lane: &LocalLane, now: Instant) -> bool {
        let mut found = self.found.lock();
        if !found.is_fresh(now) {
            let has_room = matches!(try_message(lane), Ok(true));
            if found.note(has_room, now) {
                tracing::warn!(
                    "the host's TCP memory is full (net.ipv4.tcp_mem): servers on this host are reached without the \
                     local lane until there is room again"
                );
            }
            let until = if has_room { 0 } else { self.millis(now + SHUT) };
            self.shut_until.store(until, Ordering::Relaxed);
        }
        self.shut_until.load(Ordering::Relaxed) == 0
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Sends a message on a new connection of the lane; whether the kernel had memory for it.
fn try_message(lane: &LocalLane) -> io::Result<bool> {
    let connection = Connection::open(Some(lane))?;
    // No trace of it in the host's table of ended connections.
    for end in [&connection.daemon, &connection.server] {
        socket2::SockRef::from(end).set_linger(Some(Duration::ZERO))?;
    }
    connection.daemon.set_nonblocking(true)?;
    match (&connection.daemon).write(&pattern(0, MESSAGE)) {
        Ok(count) => Ok(count == MESSAGE),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{FRESH, Found, SAID_AGAIN};
    use std::time::{Duration, Instant};

    #[test]
    fn what_was_found_is_fresh_for_a_while_and_said_once_a_minute() {
        let now = Instant::now();
        let mut found = Found::default();
        assert!(!found.is_fresh(now));
        assert!(!found.note(true, now) && found.is_fresh(now) && !found.is_fresh(now + FRESH));
        assert!(found.note(false, now), "said at once");
        assert!(!found.note(false, now + Duration::from_secs(1)));
        assert!(found.note(false, now + SAID_AGAIN));
    }

    #[test]
    fn a_connection_is_suspected_of_what_came_after_it_only() {
        let now = Instant::now();
        let mut found = Found::default();
        assert!(!found.was_full_since(now));
        found.note(false, now);
        found.note(true, now + FRESH);
        assert!(found.was_full_since(now - FRESH) && found.was_full_since(now));
        assert!(!found.was_full_since(now + FRESH));
    }
}
