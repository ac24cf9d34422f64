//! How the verdict's news reach the splices that wait for them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use cmim_common::names;
use cmim_common::splice::MOST_EVENTS;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::maps::take;

/// One splice's ear.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether there were news since the last question; the next ones wake `cx`.
    pub(super) fn poll(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.rung.swap(false, Ordering::Acquire)
    }
}

/// All splices' ears, by their generation.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<HashMap<u64, Arc<Bell>>>);

impl Bells {
    pub(super) fn hang(&self, generation: u64) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        self.0.lock().insert(generation, Arc::clone(&bell));
        bell
    }

    pub(super) fn take_down(&self, generation: u64) {
        self.0.lock().remove(&generation);
    }

    /// News of a splice that is gone are nobody's.
    fn ring(&self, generation: u64) {
        // The lock is not held while somebody is woken.
        let bell = self.0.lock().get(&generation).cloned();
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    fn ring_all(&self) {
        let all: Vec<_> = self.0.lock().values().cloned().collect();
        all.iter().for_each(|bell| bell.ring());
    }
}

/// The verdict's ring, on its way to the bells. Hand it to one task: [`SpliceEvents::forward`].
pub struct SpliceEvents {
    ring: RingBuf<MapData>,
    bells: Arc<Bells>,
}

impl fmt::Debug for SpliceEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpliceEvents").finish_non_exhaustive()
    }
}

impl SpliceEvents {
    pub(super) fn take(ebpf: &mut Ebpf, bells: Arc<Bells>) -> Result<Self, KernelError> {
        Ok(Self { ring: take(ebpf, names::EVENTS)?, bells })
    }

    /// Rings the bells of what is in the ring.
    pub(super) fn flush(&mut self) {
        let mut count = 0;
        while let Some(item) = self.ring.next() {
            if let Some(generation) = item.first_chunk() {
                self.bells.ring(u64::from_ne_bytes(*generation));
            }
            count += 1;
        }
        // Events are lost only where the ring is full: whoever finds it so lets everybody look for himself.
        if count >= MOST_EVENTS {
            self.bells.ring_all();
        }
    }

    /// Forwards news as they come; sleeps in between. Returns only when the ring cannot be watched.
    ///
    /// # Errors
    ///
    /// When the runtime refuses the ring's descriptor.
    pub async fn forward(self) -> io::Result<()> {
        let mut events = watch(self)?;
        loop {
            let mut readable = events.readable_mut().await?;
            readable.clear_ready();
            readable.get_inner_mut().flush();
        }
    }
}

impl AsFd for SpliceEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for SpliceEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]
fn watch(events: SpliceEvents) -> io::Result<AsyncFd<SpliceEvents>> {
    // SAFETY: the ring owns its descriptor, never changes it, and closes it when it is dropped, which the AsyncFd does
    // after it has deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::Bells;

    #[test]
    fn a_bell_hears_its_own_generation_and_none_that_is_gone() {
        let bells = Bells::default();
        let cx = Context::from_waker(Waker::noop());
        let (one, other) = (bells.hang(1), bells.hang(2));
        bells.ring(1);
        assert!(one.poll(&cx) && !one.poll(&cx) && !other.poll(&cx));
        bells.take_down(1);
        bells.ring(1);
        assert!(!one.poll(&cx));
        bells.ring_all();
        assert!(other.poll(&cx));
    }
}
