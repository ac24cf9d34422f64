//! One tier's file: an unlinked file cut into extents, and the system calls on it. Nothing else in the device touches it.
//!
//! The file has no name, so that nothing of it is left when the process ends, however it ends. An extent is allocated
//! before it is first written to, so that a full file system shows before a byte is written, and is punched out of the
//! file when it is free again. Every call here but [`Spool::is_cached`] may block and is made by the tier's own threads.

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::extents::Extents;
#[cfg(test)]
use super::faults::{Call, Faults};

/// Files with such a name exist only for the moment between being made and being unlinked, where the file system knows
/// no O_TMPFILE.
pub(super) const NAME_PREFIX: &str = ".cmim-tier-";
/// Slices of one pwritev(2).
const SLICES: usize = 64;
/// The system call's number on every architecture that has eBPF JITs worth the name; libc lacks it on some.
const SYS_CACHESTAT: libc::c_long = 451;

/// How the file is cut.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Bytes of an extent.
    pub extent: u64,
    pub count: u32,
    #[cfg(test)]
    pub faults: Faults,
}

/// One file.
#[derive(Debug)]
pub(super) struct Spool {
    file: OwnedFd,
    pub extents: Mutex<Extents>,
    shape: Shape,
    /// fallocate(2) is supported; it is asked once.
    allocates: AtomicBool,
    /// The kernel tells what is in the page cache (cachestat(2), Linux 6.5).
    tells_cached: AtomicBool,
    /// Another file has taken its place.
    retired: AtomicBool,
    /// How often the kernel has said that bytes it had taken did not reach the device.
    losses: AtomicU32,
}

impl Spool {
    /// Makes a file without a name in `directory`.
    pub(super) fn open(directory: BorrowedFd<'_>, shape: Shape) -> Result<Self, Errno> {
        #[cfg(test)]
        shape.faults.check(Call::Open)?;
        let file = nameless(directory)?;
        // The kernel's own read-ahead would bring in pages that nobody waits for, so that sendfile would have to; and
        // pages read one by one lie in no folio that reaches into the next extent.
        // A file system that takes no advice still works.
        let _: Result<(), Errno> = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Ok(Self {
            file,
            extents: Mutex::new(Extents::new(shape.count)),
            shape,
            allocates: AtomicBool::new(true),
            tells_cached: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            losses: AtomicU32::new(0),
        })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Takes it out of use for all but reading; says how many extents would have had to be cleared.
    pub(super) fn retire(&self) -> u32 {
        self.retired.store(true, Ordering::SeqCst);
        self.extents.lock().retire()
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    pub(super) fn offset_of(&self, extent: u32) -> u64 {
        u64::from(extent) * self.shape.extent
    }

    /// How often bytes that were written have been lost; parts that were written before the last time are doubtful.
    pub(super) fn losses(&self) -> u32 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Allocates an extent's space on the file system.
    pub(super) fn allocate(&self, extent: u32) -> Result<(), Errno> {
        #[cfg(test)]
        self.shape.faults.check(Call::Allocate)?;
        if !self.allocates.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (offset, len) = (self.offset_of(extent), self.shape.extent);
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len)) {
            // Without it a full file system shows only when it is written to, which costs a second write elsewhere.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.allocates.store(false, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the space of a run of extents back, and takes their pages out of the page cache.
    pub(super) fn clear(&self, run: &Range<u32>) -> Result<(), Errno> {
        #[cfg(test)]
        self.shape.faults.check(Call::Clear)?;
        let offset = self.offset_of(run.start);
        let len = self.offset_of(run.end) - offset;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry_on_intr(|| rustix::fs::fallocate(&self.file, mode, offset, len))
    }

    /// Writes all of `pieces` at `offset`.
    pub(super) fn write(&self, pieces: &[Bytes], mut offset: u64) -> Result<(), Errno> {
        let mut pieces = pieces;
        let mut skip = 0;
        while let Some(first) = pieces.first() {
            if skip >= first.len() {
                skip -= first.len();
                pieces = pieces.split_first().map_or(&[], |(_, rest)| rest);
                continue;
            }
            #[cfg(test)]
            self.shape.faults.check(Call::Write)?;
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut filled = 0;
            for (slot, piece) in slices.iter_mut().zip(pieces) {
                *slot = IoSlice::new(piece.get(if filled == 0 { skip } else { 0 }..).unwrap_or_default());
                filled += 1;
            }
            let slices = slices.get(..filled).unwrap_or_default();
            let count = retry_on_intr(|| rustix::io::pwritev(&self.file, slices, offset))?;
            if count == 0 {
                return Err(Errno::IO);
            }
            offset += count as u64;
            skip += count;
        }
        Ok(())
    }

    /// Makes sure that the device itself takes bytes; only for a file that is not in use yet.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::fdatasync(&self.file))
    }

    /// Brings `range` into the page cache; `scratch` is room for reading.
    pub(super) fn fetch(&self, range: &Range<u64>, scratch: &mut [u8]) -> Result<(), Errno> {
        #[cfg(test)]
        self.shape.faults.check(Call::Read)?;
        if let Some(len) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
            // One large request to the device instead of one a page. What it does not bring in, the reads below do.
            let _: Result<(), Errno> = rustix::fs::fadvise(&self.file, range.start, Some(len), Advice::WillNeed);
        }
        let mut offset = range.start;
        while offset < range.end {
            let most = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(scratch.len());
            let room = scratch.get_mut(..most).unwrap_or_default();
            let count = retry_on_intr(|| rustix::io::preadv(&self.file, &mut [IoSliceMut::new(room)], offset))?;
            if count == 0 {
                return Err(Errno::IO);
            }
            offset += count as u64;
        }
        self.check_losses(range)
    }

    /// Whether the kernel has lost bytes since it was asked last. A page whose write-back failed can have been dropped,
    /// and what is read in its place is not what was written.
    fn check_losses(&self, range: &Range<u64>) -> Result<(), Errno> {
        let checked = wait_for_write_back(self.file.as_fd(), range);
        #[cfg(test)]
        let checked = checked.and_then(|()| self.shape.faults.check(Call::WriteBack));
        match checked {
            Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => {
                self.losses.fetch_add(1, Ordering::SeqCst);
                Err(errno)
            }
            // Anything else says that this file system cannot tell.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether reading `range` needs no device; false where the kernel cannot tell. Never blocks.
    pub(super) fn is_cached(&self, range: &Range<u64>) -> bool {
        if !self.tells_cached() {
            return false;
        }
        match cached_pages(self.file.as_fd(), range) {
            Ok(pages) => {
                let page = rustix::param::page_size() as u64;
                pages >= range.end.div_ceil(page) - range.start / page
            }
            Err(_) => {
                self.tells_cached.store(false, Ordering::Relaxed);
                false
            }
        }
    }

    pub(super) fn tells_cached(&self) -> bool {
        self.tells_cached.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn forget_cached(&self) {
        self.tells_cached.store(false, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn drop_cached(&self) {
        self.sync().unwrap();
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// The block in which a file of `size` bytes in `directory` is best used; fails with EOPNOTSUPP where parts of one cannot be
/// given back.
pub(super) fn block_size(directory: BorrowedFd<'_>, size: u64) -> Result<u64, Errno> {
    let file = nameless(directory)?;
    // tmpfs with huge=within_size uses huge pages, and says so, only once the file is large. This takes no space, and a
    // file system that refuses the length has its block all the same.
    let _: Result<(), Errno> = rustix::fs::ftruncate(&file, size);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry_on_intr(|| rustix::fs::fallocate(&file, mode, 0, 4096))?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(u64::try_from(stat.st_blksize).unwrap_or(0))
}

/// A file in `directory` that no name leads to.
fn nameless(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        other => return other,
    }
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{NAME_PREFIX}{}-{number}", std::process::id());
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, name.as_str(), flags, mode)?;
    rustix::fs::unlinkat(directory, name.as_str(), AtFlags::empty())?;
    Ok(file)
}

/// Waits for what of `range` is on its way to the device, and tells of losses, each once per file.
fn wait_for_write_back(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<(), Errno> {
    let offset = i64::try_from(range.start).map_err(|_| Errno::INVAL)?;
    let len = i64::try_from(range.end.saturating_sub(range.start)).map_err(|_| Errno::INVAL)?;
    #[expect(unsafe_code, reason = "rustix has no sync_file_range")]
    // SAFETY: takes numbers and a descriptor that is open for as long as `file` is borrowed.
    let code = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WAIT_BEFORE) };
    if code == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Pages of `range` in the page cache.
fn cached_pages(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<u64, Errno> {
    let asked = [range.start, range.end.saturating_sub(range.start)];
    // cached, dirty, under write-back, evicted, recently evicted (struct cachestat).
    let mut told = [0_u64; 5];
    #[expect(unsafe_code, reason = "neither rustix nor libc has cachestat")]
    // SAFETY: the kernel reads `asked` (struct cachestat_range, two 64-bit numbers) and writes `told` (struct cachestat,
    // five of them); both outlive the call.
    let code = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), asked.as_ptr(), told.as_mut_ptr(), 0) };
    if code == 0 { Ok(told[0]) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
