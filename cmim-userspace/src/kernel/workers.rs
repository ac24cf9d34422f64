//! The workers' open connections, in memory that they share with the sk_reuseport program.
//!
//! Owns the mapping of `CMIM_WORKERS`. A worker writes its own entry only, with no system call; the program reads all of
//! them for each new connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use cmim_common::names;
use cmim_common::spread::{MAX_WORKERS, Worker};

use super::error::KernelError;
use super::shared::{SharedArray, Word};

/// The entries of all workers.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    mapping: Arc<SharedArray<Entry>>,
}

/// What one worker tells of itself. Without a kernel part, or for a worker beyond those that it knows, nothing.
#[derive(Debug, Clone, Default)]
pub struct WorkerLoad {
    entry: Option<(Arc<SharedArray<Entry>>, usize)>,
}

impl Workers {
    /// Takes the map out of a loaded object. Pin it before: the object forgets it.
    ///
    /// # Errors
    ///
    /// When the kernel does not share the map's memory.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { mapping: Arc::new(SharedArray::take(ebpf, names::WORKERS, MAX_WORKERS)?) })
    }

    /// The entry of one worker.
    pub(super) fn load_of(&self, worker: usize) -> WorkerLoad {
        WorkerLoad { entry: (worker < MAX_WORKERS).then(|| (Arc::clone(&self.mapping), worker)) }
    }
}

impl WorkerLoad {
    /// A connection was accepted.
    pub fn opened(&self) {
        let Some(entry) = self.entry() else { return };
        entry.open.fetch_add(1, Ordering::Relaxed);
        // It may have come without being chosen, by the kernel's hash.
        entry.settle(|chosen| chosen.saturating_sub(1));
    }

    /// A connection was closed.
    pub fn closed(&self) {
        if let Some(entry) = self.entry() {
            entry.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets half of those that were chosen and never came: a SYN does not always become a connection. Call it about
    /// once a second.
    pub fn forget(&self) {
        if let Some(entry) = self.entry() {
            entry.settle(|chosen| chosen / 2);
        }
    }

    fn entry(&self) -> Option<&Entry> {
        let (mapping, worker) = self.entry.as_ref()?;
        mapping.entries().get(*worker)
    }
}

/// A [`Worker`] that two sides write at the same time.
#[repr(C)]
#[derive(Debug)]
struct Entry {
    open: AtomicU64,
    chosen: AtomicU64,
    reserved: [AtomicU64; 6],
}

const _: () = assert!(size_of::<Entry>() == size_of::<Worker>());

// SAFETY: of atomics only, and as large as the map's value.
#[expect(unsafe_code, reason = "memory that the kernel shares")]
unsafe impl Word for Entry {}

impl Entry {
    fn settle(&self, change: impl Fn(u64) -> u64) {
        self.chosen.update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

#[cfg(test)]
mod tests {
    use super::WorkerLoad;

    #[test]
    fn without_a_kernel_part_there_is_nothing_to_tell() {
        let load = WorkerLoad::default();
        load.opened();
        load.closed();
        load.forget();
    }
}
