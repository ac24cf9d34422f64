//! One file tier: its account, its file, its condition, and the queues of its two threads.
//!
//! Taking an extent is a matter of numbers and never blocks; allocating its space on the file system, writing and
//! clearing are the thread's in [`super::writer`], reading ahead is the one's in [`super::reader`]. A call that fails
//! marks the tier as degraded: nothing new goes there until a try of the thread's own succeeds.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::condition::{Condition, Fault};
use super::directory;
use super::error::BufferError;
use super::extent::{Extent, Presence};
use super::extents::Freed;
use super::figures::{Counts, Figures};
use super::ram::Budget;
use super::reader::Fetches;
use super::spool::{Shape, Spool};
use super::wear::Wear;
use super::writer::Work;
use crate::config::model::{self, TierKind};

/// What a try writes to see whether a file takes bytes.
const PROBE: [u8; 4096] = [0; 4096];

const GOOD: u8 = 0;
const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// What asking for room came to.
#[derive(Debug)]
pub(super) enum Room {
    Taken(Arc<Extent>),
    /// None now, but extents are being cleared.
    Soon,
    None,
}

/// One tier, shared by contents and threads.
#[derive(Debug)]
pub(super) struct Tier {
    /// Its number in the configuration.
    pub index: usize,
    pub kind: TierKind,
    pub path: PathBuf,
    shape: Shape,
    size: Budget,
    pub figures: Counts,
    wear: Mutex<Wear>,
    spool: Mutex<Arc<Spool>>,
    /// Files that were replaced and whose contents are not sent yet: closed by the thread, because freeing a large
    /// file takes its time.
    retired: Mutex<Vec<Arc<Spool>>>,
    condition: Mutex<Condition>,
    /// What `condition` says, for a glance.
    glance: AtomicU8,
    pub work: Work,
    pub fetches: Fetches,
    /// Keeps the lock; `None`: it was given up.
    directory: Mutex<Option<OwnedFd>>,
}

impl Tier {
    pub(super) fn new(index: usize, model: &model::Tier, shape: Shape, directory: OwnedFd, spool: Spool) -> Arc<Self> {
        Arc::new(Self {
            index,
            kind: model.kind,
            path: model.path.clone(),
            shape,
            size: Budget::new(model.size),
            figures: Counts::default(),
            wear: Mutex::new(Wear::new(Instant::now())),
            spool: Mutex::new(Arc::new(spool)),
            retired: Mutex::default(),
            condition: Mutex::default(),
            glance: AtomicU8::new(GOOD),
            work: Work::default(),
            fetches: Fetches::default(),
            directory: Mutex::new(Some(directory)),
        })
    }

    pub(super) fn extent_size(&self) -> u64 {
        self.shape.extent
    }

    pub(super) fn report(&self) -> Figures {
        let (written_total, written_per_day) = {
            let mut wear = self.wear.lock();
            (wear.total(), wear.last_day(Instant::now()))
        };
        Figures {
            used: self.size.used(),
            size: self.size.size(),
            contents: self.figures.contents(),
            spilled_total: self.figures.spilled_total(),
            refused_total: self.figures.refused_total(),
            written_total,
            written_per_day,
            degraded: self.condition.lock().reason().map(str::to_owned),
        }
    }

    /// Takes an extent for a content, behind `after` where that can be.
    pub(super) fn take(self: &Arc<Self>, after: Option<&Extent>, presence: &Arc<Presence>) -> Room {
        if self.glance.load(Ordering::SeqCst) != GOOD {
            return Room::None;
        }
        let spool = Arc::clone(&self.spool.lock());
        let taken = self.size.take(self.shape.extent).then(|| {
            let after = after.filter(|after| Arc::ptr_eq(&after.spool, &spool)).map(|after| after.number);
            let number = spool.extents.lock().take(after);
            if number.is_none() {
                self.size.give_back(self.shape.extent);
            }
            number
        });
        match taken.flatten() {
            Some(number) => Room::Taken(Extent::new(Arc::clone(self), spool, number, Arc::clone(presence))),
            None if spool.extents.lock().to_be_cleared() => Room::Soon,
            None => Room::None,
        }
    }

    /// Whether more bytes can go to an extent that was taken earlier.
    pub(super) fn takes_writes(&self, extent: &Extent) -> bool {
        match self.glance.load(Ordering::SeqCst) {
            GOOD => true,
            FULL => extent.is_allocated(),
            _ => false,
        }
    }

    pub(super) fn extent_dropped(&self, spool: &Spool, number: u32) {
        let freed = spool.extents.lock().give_back(number);
        if freed == Freed::AtOnce {
            self.size.give_back(self.shape.extent);
        }
        self.work.look();
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.wear.lock().wrote(bytes, Instant::now());
    }

    /// A call on the file failed: nothing new goes to this tier until it recovers.
    pub(super) fn fail(&self, errno: Errno) {
        let fault = Fault::of(errno);
        let mut condition = self.condition.lock();
        let is_news = condition.fail(fault, errno.to_string(), Instant::now());
        self.look_at(&condition);
        drop(condition);
        if is_news {
            tracing::warn!("{self}: {errno}; contents go to the next tier until it recovers");
            self.work.look();
        }
    }

    fn look_at(&self, condition: &Condition) {
        let glance = match condition.fault() {
            None => GOOD,
            Some(Fault::Full) => FULL,
            Some(Fault::Broken) => BROKEN,
        };
        self.glance.store(glance, Ordering::SeqCst);
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        if self.glance.load(Ordering::SeqCst) == GOOD { None } else { self.condition.lock().retry_at() }
    }

    /// Extents of the present file that are to be cleared, at most `most` of them.
    pub(super) fn begin_clearing(&self, most: u32) -> Option<(Arc<Spool>, Range<u32>)> {
        let spool = Arc::clone(&self.spool.lock());
        let run = spool.extents.lock().begin_clearing(most)?;
        Some((spool, run))
    }

    /// Says how many bytes there is room for now that there was not.
    pub(super) fn cleared(&self, spool: &Spool, run: Range<u32>) -> u64 {
        let bytes = u64::from(run.end - run.start) * self.shape.extent;
        spool.extents.lock().cleared(run);
        self.size.give_back(bytes);
        self.condition.lock().hurry();
        bytes
    }

    /// Whether no extent can be taken before some are cleared.
    pub(super) fn is_out_of_extents(&self) -> bool {
        self.size.size() - self.size.used() < self.shape.extent
    }

    /// Tries whether the tier can be used again. True: it can.
    pub(super) fn retry(self: &Arc<Self>) -> bool {
        let fault = self.condition.lock().fault();
        let tried = match fault {
            None => return true,
            Some(Fault::Full) => self.try_for_room(),
            Some(Fault::Broken) => self.try_new_file(),
        };
        let now = Instant::now();
        let mut condition = self.condition.lock();
        let lasted = match tried {
            Ok(()) => condition.recover(now),
            Err(errno) => {
                condition.failed_again(Fault::of(errno), errno.to_string(), now);
                None
            }
        };
        self.look_at(&condition);
        drop(condition);
        if let Some(lasted) = lasted {
            tracing::info!("{self}: in use again after {:.1} s", lasted.as_secs_f64());
        }
        tried.is_ok()
    }

    fn try_for_room(self: &Arc<Self>) -> Result<(), Errno> {
        let spool = Arc::clone(&self.spool.lock());
        if !self.size.take(self.shape.extent) {
            // The tier's own size is the limit now: nothing speaks against the file system.
            return Ok(());
        }
        let Some(number) = spool.extents.lock().take(None) else {
            self.size.give_back(self.shape.extent);
            return Ok(());
        };
        let tried = spool
            .allocate(number)
            .and_then(|()| spool.write(&[bytes::Bytes::from_static(&PROBE)], spool.offset_of(number)));
        self.extent_dropped(&spool, number);
        tried
    }

    /// After a fault of the device the old file is not trusted with anything new: what the device says it has written
    /// there may be lost already. The path may also lead to a new file system by now.
    fn try_new_file(&self) -> Result<(), Errno> {
        let mut held = self.directory.lock();
        if held.as_ref().is_none_or(|held| !directory::is_at(held, &self.path)) {
            *held = Some(directory::open(self.index, &self.path).map_err(|_| Errno::NOENT)?);
        }
        let Some(directory) = held.as_ref() else { return Err(Errno::NOENT) };
        let fresh = Spool::open(directory.as_fd(), self.shape.clone())?;
        fresh.allocate(0)?;
        fresh.write(&[bytes::Bytes::from_static(&PROBE)], 0)?;
        fresh.sync()?;
        fresh.clear(&(0..1))?;
        drop(held);
        let old = std::mem::replace(&mut *self.spool.lock(), Arc::new(fresh));
        let uncleared = old.retire();
        self.size.give_back(u64::from(uncleared) * self.shape.extent);
        self.retired.lock().push(old);
        Ok(())
    }

    /// Closes replaced files that no content needs any more.
    pub(super) fn close_retired(&self) {
        let done: Vec<Arc<Spool>> = {
            let mut retired = self.retired.lock();
            retired.extract_if(.., |spool| Arc::strong_count(spool) == 1).collect()
        };
        drop(done);
    }

    /// From now on the page cache is taken to be unknown.
    #[cfg(test)]
    pub(super) fn forget_cached(&self) {
        self.spool.lock().forget_cached();
    }

    /// Writes everything to the device and drops it from the page cache.
    #[cfg(test)]
    pub(super) fn drop_cached(&self) {
        self.spool.lock().drop_cached();
    }

    /// Lets another process have the directory.
    pub(super) fn unlock(&self) {
        // A failed unlock is undone by closing the descriptor.
        *self.directory.lock() = None;
    }

    /// Takes the directory again after [`Self::unlock`].
    pub(super) fn lock(&self) -> Result<(), BufferError> {
        let opened = directory::open(self.index, &self.path)?;
        *self.directory.lock() = Some(opened);
        Ok(())
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "buffer.tier[{}] ({})", self.index, self.path.display())
    }
}
