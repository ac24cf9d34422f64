//! A map's memory that this process shares with the kernel (`BPF_F_MMAPABLE`): read and written without a system call.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::error::KernelError;

/// What such a map may hold: entries that both sides write through atomics only, so that all-zero memory is a value and
/// any interleaving is allowed.
///
/// # Safety
///
/// The type is `#[repr(C)]`, consists of [`AtomicU64`]s, and has the size of the map's value.
#[expect(unsafe_code, reason = "memory that the kernel shares")]
pub(super) unsafe trait Word: Sync + Send {}

// SAFETY: it is one itself.
#[expect(unsafe_code, reason = "memory that the kernel shares")]
unsafe impl Word for AtomicU64 {}

/// The memory, as long as anybody holds it.
pub(super) struct SharedArray<T: Word> {
    start: NonNull<T>,
    length: usize,
    #[expect(dead_code, reason = "held: the program that reads the map is loaded with its descriptor")]
    map: MapData,
    of: PhantomData<T>,
}

// SAFETY: the memory is written through atomics only, by either side, and belongs to no thread.
#[expect(unsafe_code, reason = "a pointer is neither Send nor Sync by itself")]
unsafe impl<T: Word> Send for SharedArray<T> {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer is neither Send nor Sync by itself")]
unsafe impl<T: Word> Sync for SharedArray<T> {}

impl<T: Word> fmt::Debug for SharedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArray").field("length", &self.length).finish_non_exhaustive()
    }
}

impl<T: Word> SharedArray<T> {
    /// Takes an array of `length` entries out of a loaded object. Pin it before: the object forgets it.
    ///
    /// # Errors
    ///
    /// When the kernel does not share the map's memory.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str, length: usize) -> Result<Self, KernelError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(KernelError::Absent { name });
        };
        Self::of(map, length).map_err(|source| KernelError::Memory { name, source })
    }

    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    fn of(map: MapData, length: usize) -> io::Result<Self> {
        let descriptor = map.fd().as_fd().as_raw_fd();
        let size = length * size_of::<T>();
        // SAFETY: a new mapping at a place of the kernel's choice. One that is longer than the map is refused.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, descriptor, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, length, map, of: PhantomData })
    }

    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    pub(super) fn entries(&self) -> &[T] {
        // SAFETY: the mapping is as long as all entries, page-aligned, zeroed by the kernel, and lives as long as self.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Word> Drop for SharedArray<T> {
    #[expect(unsafe_code, reason = "memory that the kernel shares")]
    fn drop(&mut self) {
        // SAFETY: the very mapping that `of` made; no entry is borrowed any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
