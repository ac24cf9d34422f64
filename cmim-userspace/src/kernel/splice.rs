//! Two sockets of the device with the kernel between them, for as long as this side wants it.
//!
//! Owns the entries of `CMIM_CONNECTIONS`, `CMIM_SOCKETS`, `CMIM_TARGETS` and `CMIM_TAKEN`, from their making to their
//! removal by Drop. It must not know HTTP, nor read or write the sockets. How a splice is driven, which bytes go round it
//! and when, is [`crate::lane`]'s to say.
//!
//! A socket is in `CMIM_SOCKETS` while bytes that arrive on it go through the verdict, and in `CMIM_TARGETS` while bytes
//! are handed to it. Two maps, because what a verdict leaves to userspace waits in a queue that goes when the socket
//! leaves its map (`sk_psock_destroy`): a client's next request, on a connection that only takes a reply, must not wait
//! there.

mod table;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use aya::Ebpf;
use aya::maps::MapError;
use aya::maps::sock::SockMapFd;
use cmim_common::connection::{Connection, ConnectionKey, ENDLESS, MAX_CONNECTIONS, State};
use cmim_common::names;
use parking_lot::Mutex;

use self::table::{Side, Slots, Table, entry};
use super::bell::{Bell, Bells, SpliceEvents};
use super::error::KernelError;
use super::maps::map_failed;
use super::shared::SharedArray;
use super::tcp;

/// Makes splices; one for the device, shared by its workers.
#[derive(Debug, Clone)]
pub struct Splicer(Arc<Workshop>);

#[derive(Debug)]
struct Workshop {
    maps: Mutex<Table>,
    taken: SharedArray<AtomicU64>,
    slots: Mutex<Slots>,
    generation: AtomicU64,
    bells: Arc<Bells>,
    /// Most bytes in flight between the two sockets of one direction; of directions that are installed from now on.
    window: AtomicU64,
}

/// Why two sockets are not spliced. Nothing is left of the attempt; the bytes are userspace's to carry.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    #[error("these are not two TCP connections of one network namespace")]
    NotTcp,
    #[error("the socket cannot be asked: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// One of a splice's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the first socket to the second.
    Forth,
    Back,
}

impl Way {
    const fn source(self) -> usize {
        match self {
            Self::Forth => 0,
            Self::Back => 1,
        }
    }

    const fn target(self) -> usize {
        1 - self.source()
    }
}

/// How far one direction has come, in bytes since it was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Handed over by the kernel.
    pub spliced: u64,
    /// Left to userspace.
    pub passed: u64,
    /// Of the content's bytes, still to come; `None`: it has no end.
    pub remaining: Option<u64>,
    /// The kernel lost a burst of it; nothing follows.
    pub is_broken: bool,
}

/// A direction that is out of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    pub progress: Progress,
    /// Userspace has passed on all that was left to it.
    pub lossless: bool,
}

/// One direction of a living splice, for the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub source: ConnectionKey,
    pub connection: Connection,
    /// Bytes that wait for userspace to pass them on.
    pub backlog: u64,
}

impl Splicer {
    /// Takes the maps out of a loaded object, and the ring of their news. Pin them before: the object forgets them.
    ///
    /// # Errors
    ///
    /// When the object and this binary do not belong together, or the kernel does not share its memory.
    pub(super) fn take(ebpf: &mut Ebpf, window: u64) -> Result<(Self, SpliceEvents), KernelError> {
        let bells = Arc::new(Bells::default());
        let events = SpliceEvents::take(ebpf, Arc::clone(&bells))?;
        let workshop = Workshop {
            maps: Mutex::new(Table::take(ebpf)?),
            taken: SharedArray::take(ebpf, names::TAKEN, MAX_CONNECTIONS)?,
            slots: Mutex::default(),
            generation: AtomicU64::new(0),
            bells,
            window: AtomicU64::new(window),
        };
        Ok((Self(Arc::new(workshop)), events))
    }

    /// What the verdict is attached to.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub(super) fn verdict_map(&self) -> Result<SockMapFd, KernelError> {
        let maps = self.0.maps.lock();
        maps.sockets.fd().try_clone().map_err(|source| KernelError::Memory { name: names::SOCKETS, source })
    }

    /// Bounds what is installed from now on.
    pub(super) fn set_window(&self, window: u64) {
        self.0.window.store(window, Ordering::Relaxed);
    }

    /// Begins a splice of two sockets, with nothing in the kernel yet.
    ///
    /// # Errors
    ///
    /// When one of them is not of TCP, or not connected.
    pub fn begin<'a>(&self, first: &'a impl AsFd, second: &'a impl AsFd) -> Result<Splice<'a>, SpliceError> {
        let (first, second) = (first.as_fd(), second.as_fd());
        let (Some(one), Some(other)) = (tcp::key(first), tcp::key(second)) else {
            return Err(SpliceError::NotTcp);
        };
        if !tcp::share_a_namespace(first, second) {
            return Err(SpliceError::NotTcp);
        }
        let generation = self.0.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Splice {
            bell: self.0.bells.hang(generation),
            workshop: Arc::clone(&self.0),
            generation,
            sides: [Side { socket: first, key: one }, Side { socket: second, key: other }],
            ways: [None, None],
        })
    }

    /// Every direction that the kernel carries now, in the map's order.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, KernelError> {
        let maps = self.0.maps.lock();
        let entries: Result<Vec<_>, _> = maps.connections.iter().collect();
        let entries = entries.map_err(|source| map_failed(names::CONNECTIONS, source))?;
        let listed = entries.into_iter().map(|(source, connection)| {
            let taken = self.0.taken(connection.slot).map_or(0, |taken| taken.load(Ordering::Acquire));
            Listed { source, connection, backlog: connection.passed.saturating_sub(taken) }
        });
        Ok(listed.collect())
    }
}

impl Workshop {
    fn taken(&self, slot: u32) -> Option<&AtomicU64> {
        self.taken.entries().get(slot as usize)
    }
}

/// Two sockets, of which each direction may be in the kernel. Dropping it takes both out; what the kernel still had is
/// lost then, so that whoever wants it waits for [`Splice::is_drained`] before.
#[derive(Debug)]
pub struct Splice<'a> {
    workshop: Arc<Workshop>,
    generation: u64,
    bell: Arc<Bell>,
    sides: [Side<'a>; 2],
    ways: [Option<Installed>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Installed {
    slot: u32,
    /// What the target had been written before.
    written_before: u64,
    /// What userspace has passed on since.
    taken: u64,
}

impl Splice<'_> {
    /// Lets the kernel carry one direction from now on, to the end of `content` bytes, or for good. Everything that came
    /// from the source before must be written to the target, and the source's receive queue must have been empty: what
    /// came since is carried at once.
    ///
    /// # Errors
    ///
    /// When a map is full or refuses a socket (one whose peer has ended its side, for one). Nothing is changed then.
    pub fn install(&mut self, way: Way, content: Option<u64>) -> Result<(), SpliceError> {
        let [source, target] = [self.sides[way.source()], self.sides[way.target()]];
        let slot = self.workshop.slots.lock().take().ok_or(KernelError::Full { name: names::CONNECTIONS })?;
        let installed = tcp::written(target.socket).map_err(SpliceError::from).and_then(|written_before| {
            let window = self.workshop.window.load(Ordering::Relaxed);
            let entry = entry(target.key, self.generation, slot, window, content);
            if let Some(taken) = self.workshop.taken(slot) {
                taken.store(0, Ordering::Release);
            }
            self.workshop.maps.lock().put(source, target, entry)?;
            tcp::stir(source.socket);
            Ok(Installed { slot, written_before, taken: 0 })
        });
        match installed {
            Ok(installed) => {
                self.ways[way.source()] = Some(installed);
                Ok(())
            }
            Err(error) => {
                self.workshop.slots.lock().free.push(slot);
                Err(error)
            }
        }
    }

    /// Whether the kernel carries this direction.
    #[must_use]
    pub const fn is_installed(&self, way: Way) -> bool {
        self.ways[way.source()].is_some()
    }

    /// Whether the verdict had news of either direction since the last question; the next ones wake `cx`.
    pub fn poll_news(&self, cx: &Context<'_>) -> bool {
        self.bell.poll(cx)
    }

    /// Userspace has read this many more bytes and written them to the target. As soon as that is all that was left to
    /// it, the kernel goes on by itself.
    pub fn pass_on(&mut self, way: Way, bytes: u64) {
        if let Some(installed) = &mut self.ways[way.source()] {
            installed.taken += bytes;
            if let Some(taken) = self.workshop.taken(installed.slot) {
                taken.store(installed.taken, Ordering::Release);
            }
        }
    }

    /// How far a direction has come. While the kernel carries it, this is old when it is returned; it stands still while
    /// userspace is behind, and from the source's end on.
    ///
    /// # Errors
    ///
    /// When the direction is not installed or the map cannot be read.
    pub fn progress(&self, way: Way) -> Result<Progress, KernelError> {
        let name = names::CONNECTIONS;
        let found = self.workshop.maps.lock().connections.get(&self.sides[way.source()].key, 0);
        match found {
            Ok(entry) if entry.generation == self.generation => Ok(Progress {
                spliced: entry.spliced,
                passed: entry.passed,
                remaining: (entry.remaining != ENDLESS).then_some(entry.remaining),
                is_broken: entry.state == State::Broken as u8,
            }),
            Ok(_) | Err(MapError::KeyNotFound) => Err(KernelError::Absent { name }),
            Err(source) => Err(map_failed(name, source)),
        }
    }

    /// Whether userspace has passed on all that was left to it.
    #[must_use]
    pub fn is_level(&self, way: Way, progress: &Progress) -> bool {
        self.ways[way.source()].is_some_and(|installed| installed.taken == progress.passed)
    }

    /// Whether more was left to userspace than it has passed on and these `held` bytes that it has read.
    #[must_use]
    pub fn is_behind(&self, way: Way, progress: &Progress, held: u64) -> bool {
        self.ways[way.source()].is_some_and(|installed| installed.taken + held < progress.passed)
    }

    /// Whether the target's TCP has taken over all that the kernel handed over, so that userspace may write to it. Ask it
    /// of a progress that stands still.
    ///
    /// # Errors
    ///
    /// When the target cannot be asked.
    pub fn is_drained(&self, way: Way, progress: &Progress) -> io::Result<bool> {
        let Some(installed) = self.ways[way.source()] else { return Ok(true) };
        let written = tcp::written(self.sides[way.target()].socket)?;
        Ok(written.wrapping_sub(installed.written_before) == progress.spliced + installed.taken)
    }

    /// Takes a direction out of the kernel once it is drained; says how far it came, and whether nothing was lost: bytes
    /// that were left to userspace and not passed on by then are.
    ///
    /// # Errors
    ///
    /// When it is not installed or the map cannot be read; it is out all the same.
    pub fn remove(&mut self, way: Way) -> Result<Removed, KernelError> {
        let source = self.sides[way.source()];
        self.workshop.maps.lock().stop(source);
        tcp::settle(source.socket);
        let progress = self.progress(way);
        let lossless = progress.as_ref().is_ok_and(|progress| self.is_level(way, progress));
        if let Some(installed) = self.ways[way.source()].take() {
            let mut maps = self.workshop.maps.lock();
            maps.forget(source, self.sides[way.target()]);
            self.workshop.slots.lock().free.push(installed.slot);
        }
        progress.map(|progress| Removed { progress, lossless })
    }
}

impl Drop for Splice<'_> {
    fn drop(&mut self) {
        for way in [Way::Forth, Way::Back] {
            if self.is_installed(way) {
                // Its figures are of no use any more.
                let _: Result<Removed, KernelError> = self.remove(way);
            }
        }
        self.workshop.bells.take_down(self.generation);
    }
}

#[cfg(test)]
impl Splicer {
    /// Puts this many entries into the map that belong to no socket.
    pub(super) fn fill(&self, count: usize) {
        let mut maps = self.0.maps.lock();
        let address = |number: usize| {
            let [a, b, c, d] = u32::try_from(number).expect("few").to_be_bytes();
            std::net::SocketAddr::from(([a, b, c, d], 1))
        };
        for number in 0..count {
            let key = ConnectionKey::new(address(number), address(number));
            maps.connections.insert(key, entry(key, 0, 0, 0, None), table::IF_ABSENT).expect("room");
        }
    }

    /// Takes every target out of its map.
    pub(super) fn lose_targets(&self) {
        for listed in self.list().expect("readable") {
            self.0.maps.lock().targets.remove(&listed.connection.target).expect("it is there");
        }
    }

    /// Takes all entries out again.
    pub(super) fn clear(&self) {
        for listed in self.list().expect("readable") {
            self.0.maps.lock().connections.remove(&listed.source).expect("it is there");
        }
    }
}
