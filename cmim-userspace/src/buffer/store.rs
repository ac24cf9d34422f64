//! The device's store for contents: opened once, used by all workers, told of by the main thread.
//!
//! Owns the tiers' threads and the choice of sizes. It gets its keys from the valid configuration, and what can be wrong
//! with them on this host it says at the start, by the key's name.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::process::{Resource, getrlimit};

use super::directory;
use super::error::{BufferError, Fault};
#[cfg(test)]
use super::faults::Faults;
use super::figures::{Figures, Report};
use super::ram::Ram;
use super::space::Space;
use super::spool::{self, Shape, Spool};
use super::tier::Tier;
use super::{reader, writer};
use crate::config::model::{self, TierKind};

/// One write takes at most this many bytes: enough that a system call and a turn of the thread cost little beside it.
/// The kernel gathers the writes of one extent before they reach the device.
const BLOCK: u64 = 256 * 1024;
/// An extent of a flash tier: whole erase pages of common drives, so that freeing one leaves no half-used page behind.
const FLASH_EXTENT: u64 = 256 * 1024;
/// An extent of a disk tier: reading it takes a spinning disk about as long as finding it.
const DISK_EXTENT: u64 = 1 << 20;
/// A tier has at least this many extents, whatever that makes of their size: several contents are to find room.
const LEAST_EXTENTS: u64 = 64;
/// A tier has at most this many extents, so that the book-keeping stays small.
const MOST_EXTENTS: u64 = 1 << 20;
/// No extent is smaller than a page, the unit of the page cache.
const LEAST_EXTENT: u64 = 4096;

/// RAM and the file tiers of one device.
#[derive(Debug)]
pub struct Store {
    pub(super) space: Arc<Space>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the tiers that `buffer` names. To be called as the user that the daemon runs as.
    pub fn open(buffer: &model::Buffer) -> Result<Arc<Self>, BufferError> {
        Self::open_with(
            buffer,
            #[cfg(test)]
            &[],
        )
    }

    /// The same; each tier's file fails as its entry of `faults` says.
    pub(super) fn open_with(buffer: &model::Buffer, #[cfg(test)] faults: &[Faults]) -> Result<Arc<Self>, BufferError> {
        let mut directories = Vec::with_capacity(buffer.tiers.len());
        for (index, model) in buffer.tiers.iter().enumerate() {
            directories.push(open_directory(index, model, &directories)?);
        }
        let mut tiers = Vec::with_capacity(directories.len());
        for ((index, model), directory) in buffer.tiers.iter().enumerate().zip(directories) {
            let unfit = |fault| BufferError::Directory { tier: index, path: model.path.clone(), fault };
            let block = spool::block_size(directory.as_fd(), model.size).map_err(|errno| unfit(no_file(errno)))?;
            let extent = extent_size(model, block);
            let least = extent;
            let count = model.size / extent;
            let too_small = || BufferError::TooSmall { tier: index, path: model.path.clone(), size: model.size, least };
            let count = u32::try_from(count).ok().filter(|&count| count > 0).ok_or_else(too_small)?;
            let shape = Shape {
                extent,
                count,
                #[cfg(test)]
                faults: faults.get(index).cloned().unwrap_or_default(),
            };
            let spool = Spool::open(directory.as_fd(), shape.clone()).map_err(|errno| unfit(no_file(errno)))?;
            tiers.push(Tier::new(index, model, shape, directory, spool));
        }
        Self::start(buffer, tiers)
    }

    fn start(buffer: &model::Buffer, tiers: Vec<Arc<Tier>>) -> Result<Arc<Self>, BufferError> {
        let ram = Ram::new(buffer.memory, !tiers.is_empty());
        let block = tiers.iter().map(|tier| tier.extent_size()).fold(BLOCK, u64::min);
        let space = Space::new(ram, tiers, buffer.memory_per_reply, block);
        // From here on dropping the store ends the threads that were started.
        let mut store = Self { space: Arc::clone(&space), threads: Vec::with_capacity(2 * space.tiers.len()) };
        for tier in &space.tiers {
            let failed = |source| BufferError::Thread { tier: tier.index, source };
            tier.fetches.begin();
            let name = format!("{}{}", kind_name(tier.kind), tier.index);
            let (writes, writer_tier) = (Arc::clone(&space), Arc::clone(tier));
            let writer = thread::Builder::new().name(format!("{name}-write"));
            store.threads.push(writer.spawn(move || writer::run(&writes, &writer_tier)).map_err(failed)?);
            let reader_tier = Arc::clone(tier);
            let reader = thread::Builder::new().name(format!("{name}-read"));
            store.threads.push(reader.spawn(move || reader::run(&reader_tier)).map_err(failed)?);
        }
        Ok(Arc::new(store))
    }

    /// Every tier's figures, from any thread.
    #[must_use]
    pub fn report(&self) -> Report {
        let ram = &self.space.ram;
        let memory = Figures {
            used: ram.used(),
            size: ram.size(),
            contents: ram.contents(),
            spilled_total: ram.spilled_total(),
            refused_total: ram.refused_total(),
            ..Figures::default()
        };
        let tiers = self.space.tiers.iter().map(|tier| (tier.kind, tier.path.clone(), tier.report()));
        Report { memory, tiers: tiers.collect() }
    }

    /// Whether there is room for what could as well wait elsewhere: without file tiers, replies that wait for their length
    /// need the rest of RAM more.
    #[must_use]
    pub fn has_room_to_spare(&self) -> bool {
        !self.space.tiers.is_empty() || self.space.ram.used() < self.space.ram.size() / 2
    }

    /// Lets another process open the same directories while this one finishes: for a hand-over to a new binary.
    pub fn unlock_directories(&self) {
        for tier in &self.space.tiers {
            tier.unlock();
        }
    }

    /// Takes the directories again after [`Self::unlock_directories`]: the other process did not come to be.
    pub fn lock_directories(&self) {
        for tier in &self.space.tiers {
            if let Err(error) = tier.lock() {
                tracing::warn!("{error}");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for tier in &self.space.tiers {
            tier.work.end();
            tier.fetches.end();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _: thread::Result<()> = thread.join();
        }
    }
}

/// What a tier of this kind is called in figures.
#[must_use]
pub fn kind_name(kind: TierKind) -> &'static str {
    match kind {
        TierKind::Flash => "flash",
        TierKind::Disk => "disk",
    }
}

fn open_directory(
    index: usize,
    model: &model::Tier,
    others: &[std::os::fd::OwnedFd],
) -> Result<std::os::fd::OwnedFd, BufferError> {
    let directory = directory::open(index, &model.path).map_err(|error| {
        // A lock that this very start has taken would be told as somebody else's.
        let other = others.iter().position(|other| directory::is_at(other, &model.path));
        other.map_or(error, |other| BufferError::Same { tier: index, other, path: model.path.clone() })
    })?;
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|&limit| limit < model.size) {
        return Err(BufferError::FileLimit { tier: index, size: model.size, limit });
    }
    if let Ok(stat) = rustix::fs::fstatvfs(&directory) {
        let all = stat.f_blocks.saturating_mul(stat.f_frsize);
        if all < model.size {
            tracing::warn!(
                "buffer.tier[{index}].size: {} bytes, but the file system at {} has only {all}; \
                 what does not fit goes to the next tier",
                model.size,
                model.path.display()
            );
        }
    }
    Ok(directory)
}

fn no_file(errno: rustix::io::Errno) -> Fault {
    match errno {
        rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS => Fault::NoHoles,
        rustix::io::Errno::ROFS => Fault::ReadOnly,
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
            Fault::NotWritable { user: rustix::process::geteuid().as_raw() }
        }
        other => Fault::Other(other.into()),
    }
}

/// Bytes of an extent: a power of two. `block`: the file's preferred block. An extent is never a part of one: where the
/// page cache holds a file in large folios (tmpfs with huge pages), clearing a part of a folio would write zeros into
/// pages that a socket may still be sending from.
fn extent_size(model: &model::Tier, block: u64) -> u64 {
    let usual = match model.kind {
        TierKind::Flash => FLASH_EXTENT,
        TierKind::Disk => DISK_EXTENT,
    };
    let largest = (model.size / LEAST_EXTENTS).checked_ilog2().map_or(0, |bits| 1 << bits);
    let least = model.size.div_ceil(MOST_EXTENTS).checked_next_power_of_two().unwrap_or(1 << 63);
    let block = block.clamp(LEAST_EXTENT, 1 << 30).next_power_of_two();
    usual.min(largest).max(least).max(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(kind: TierKind, size: u64) -> model::Tier {
        model::Tier { kind, path: "/".into(), size }
    }

    #[test]
    fn extents_fit_the_kind_the_size_and_the_file_systems_block() {
        assert_eq!(extent_size(&tier(TierKind::Flash, 4 << 30), 4096), 256 << 10);
        assert_eq!(extent_size(&tier(TierKind::Disk, 64 << 30), 4096), 1 << 20);
        assert_eq!(extent_size(&tier(TierKind::Disk, 128 << 20), 4096), 1 << 20);
        assert_eq!(extent_size(&tier(TierKind::Disk, 32 << 20), 4096), 512 << 10);
        assert_eq!(extent_size(&tier(TierKind::Flash, 10_000), 512), 4096);
        assert_eq!(extent_size(&tier(TierKind::Flash, 1 << 50), 4096), 1 << 30);
        assert_eq!(extent_size(&tier(TierKind::Flash, 4 << 30), 2 << 20), 2 << 20, "tmpfs with huge pages");
    }
}
