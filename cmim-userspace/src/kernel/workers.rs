//! The workers' open connections, in memory that they share with the sk_reuseport program.
//!
//! Owns the mapping of `CMIM_WORKERS`. A worker writes its own entry only, with no system call; the program reads all of
//! them for each new connection.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use cmim_common::names;
use cmim_common::spread::{MAX_WORKERS, Worker};

use super::error::KernelError;

const LENGTH: usize = MAX_WORKERS * size_of::<Worker>();

/// The entries of all workers.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    mapping: Arc<Mapping>,
}

/// What one worker tells of itself. Without a kernel part, or for a worker beyond those that it knows, nothing.
#[derive(Debug, Clone, Default)]
pub struct WorkerLoad {
    entry: Option<(Arc<Mapping>, usize)>,
}

impl Workers {
    /// Takes the map out of a loaded object. Pin it before: the object forgets it.
    ///
    /// # Errors
    ///
    /// When the kernel does not share the map's memory.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let name = names::WORKERS;
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(KernelError::Absent { name });
        };
        let mapping = Mapping::of(map).map_err(|source| KernelError::Memory { name, source })?;
        Ok(Self { mapping: Arc::new(mapping) })
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
struct Entry {
    open: AtomicU64,
    chosen: AtomicU64,
    reserved: [AtomicU64; 6],
}

const _: () = assert!(size_of::<Entry>() == size_of::<Worker>());

impl Entry {
    fn settle(&self, change: impl Fn(u64) -> u64) {
        self.chosen.update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

/// The map's memory in this process, as long as anybody holds it.
struct Mapping {
    start: NonNull<Entry>,
    #[expect(dead_code, reason = "held: the program that reads the map is loaded with its descriptor")]
    map: MapData,
}

// SAFETY: the memory is written through atomics only, by either side, and belongs to no thread.
#[expect(unsafe_code, reason = "a pointer is neither Send nor Sync by itself")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer is neither Send nor Sync by itself")]
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").finish_non_exhaustive()
    }
}

impl Mapping {
    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    fn of(map: MapData) -> io::Result<Self> {
        let descriptor = map.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), LENGTH, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, descriptor, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, map }).ok_or_else(|| io::Error::other("mapped at 0"))
    }

    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    fn entries(&self) -> &[Entry] {
        // SAFETY: the mapping is as long as all entries, page-aligned, zeroed by the kernel, and lives as long as self.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), MAX_WORKERS) }
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    fn drop(&mut self) {
        // SAFETY: the very mapping that `of` made; no entry is borrowed any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), LENGTH) };
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
