//! Hands connections to a listener's networks and ports to its sockets, and each to the worker with the fewest.
//!
//! Owns the sk_lookup program's attachment to the network namespace, the sk_reuseport program on the groups of
//! sockets, and the maps that both choose by. It knows the sockets only while they are put in; the kernel takes them out
//! of the map when they are closed.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, MapData, SockMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramError, SkLookup, SkReuseport};
use cmim_common::listener::ListenerKey;
use cmim_common::names;
use cmim_common::spread::{MAX_WORKERS, place};
use cmim_common::steer::{Destination, MAX_STEERED};

use super::error::KernelError;
use super::listening::{self, Listening};
use super::load;
use super::maps::{ANY, map_failed, take};

/// Where a thread's own network namespace is found.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Destinations, each with how many of its bits count, and the listener that each leads to.
type Destinations = HashMap<(Destination, u32), ListenerKey>;

/// The maps of both programs.
pub(super) struct Steering {
    destinations: LpmTrie<MapData, Destination, ListenerKey>,
    listening: SockMap<MapData>,
    /// What stands in `destinations`.
    known: Destinations,
    link: Option<Link>,
}

/// The steering program's attachment. It ends with this, or with its pin where that lives longer.
#[derive(Debug)]
enum Link {
    #[expect(dead_code, reason = "held for its Drop, which detaches the program")]
    Held(FdLink),
    #[expect(dead_code, reason = "held for its Drop; with the pin's end it detaches the program")]
    Pinned(PinnedLink),
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Steering {
    /// Takes the handles out of a loaded object. Pin the maps before: the object forgets them.
    ///
    /// # Errors
    ///
    /// When the object and this binary do not belong together.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            destinations: take(ebpf, names::STEERING)?,
            listening: take(ebpf, names::LISTENING)?,
            known: HashMap::new(),
            link: None,
        })
    }

    /// Makes the kernel know exactly the destinations of these listeners; none where no listener needs steering. What
    /// stays is not missing for an instant, and what changes is known all the while where there is room for both.
    ///
    /// # Errors
    ///
    /// [`KernelError::Full`] where they have more ports than the map has room for; those before are in place.
    pub(super) fn set_destinations(&mut self, listeners: &[Listening]) -> Result<(), KernelError> {
        let mut wanted = Destinations::new();
        if listeners.iter().any(|listener| listener.address.needs_steering()) {
            for listener in listeners {
                let key = listening::key(&listener.address);
                wanted.extend(
                    listening::destinations(&listener.address).into_iter().map(|destination| (destination, key)),
                );
            }
        }
        let new = wanted.keys().filter(|wanted| !self.known.contains_key(*wanted)).count();
        if self.known.len() + new > MAX_STEERED {
            self.remove_all_but(&wanted)?;
        }
        for (&(destination, bits), &listener) in &wanted {
            if self.known.get(&(destination, bits)) != Some(&listener) {
                let put = self.destinations.insert(&Key::new(bits, destination), listener, ANY);
                put.map_err(|source| map_failed(names::STEERING, source))?;
                self.known.insert((destination, bits), listener);
            }
        }
        self.remove_all_but(&wanted)
    }

    fn remove_all_but(&mut self, wanted: &Destinations) -> Result<(), KernelError> {
        let gone: Vec<_> = self.known.keys().filter(|known| !wanted.contains_key(*known)).copied().collect();
        for (destination, bits) in gone {
            let removed = self.destinations.remove(&Key::new(bits, destination));
            removed.map_err(|source| map_failed(names::STEERING, source))?;
            self.known.remove(&(destination, bits));
        }
        Ok(())
    }

    /// How many destinations the kernel knows.
    pub(super) fn destinations(&self) -> usize {
        self.known.len()
    }

    /// Whether the steering program is in force.
    pub(super) fn is_attached(&self) -> bool {
        self.link.is_some()
    }

    /// Puts the steering program in force in this thread's network namespace. With a pin it stays there over a crash of
    /// the daemon: as long as somebody else holds the sockets, such as systemd, connections still find them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the program or its attachment, or the pin is not to be had.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, pin: Option<&Path>) -> Result<(), KernelError> {
        let name = names::STEER;
        let program = ebpf.program_mut(name).ok_or(KernelError::Absent { name })?;
        let steer: &mut SkLookup = program.try_into().map_err(|source| load::refused(name, source))?;
        load::verified(name, || steer.load())?;
        let link = attach_here(steer).map_err(|source| KernelError::Attach {
            name,
            target: "the network namespace".to_owned(),
            source: Box::new(source),
        })?;
        self.link = Some(match pin {
            Some(pin) => {
                let name = names::STEER_LINK;
                Link::Pinned(link.pin(pin).map_err(|source| KernelError::Pin { name, source })?)
            }
            None => Link::Held(link),
        });
        Ok(())
    }

    /// The attachment is pinned again.
    pub(super) fn is_pinned(&mut self, link: PinnedLink) {
        self.link = Some(Link::Pinned(link));
    }

    /// Takes the steering program out of force, as far as no pin holds it.
    pub(super) fn detach(&mut self) {
        self.link = None;
    }

    /// Puts a listener's sockets into a row, one for each worker.
    ///
    /// # Errors
    ///
    /// When the map refuses one, which it does with sockets that do not listen yet.
    pub(super) fn put(&mut self, row: u32, sockets: &[BorrowedFd<'_>]) -> Result<(), KernelError> {
        for (worker, socket) in (0..).zip(sockets.iter().take(MAX_WORKERS)) {
            let put = self.listening.set(place(row, worker), socket, ANY);
            put.map_err(|source| map_failed(names::LISTENING, source))?;
        }
        Ok(())
    }
}

impl Drop for Steering {
    /// The kernel lets go of a link whose pin was removed some time later; until then it must steer nothing to sockets
    /// that nobody accepts from.
    fn drop(&mut self) {
        if let Err(error) = self.set_destinations(&[]) {
            tracing::warn!("{}", error.clause());
        }
    }
}

fn attach_here(steer: &mut SkLookup) -> Result<FdLink, ProgramError> {
    let namespace = File::open(OWN_NAMESPACE)?;
    let link = steer.attach(namespace)?;
    Ok(steer.take_link(link)?.into())
}

/// Loads the program that chooses among a listener's sockets; it is in force nowhere yet.
///
/// # Errors
///
/// When the kernel refuses it.
pub(super) fn load_spread(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let name = names::SPREAD;
    let program = ebpf.program_mut(name).ok_or(KernelError::Absent { name })?;
    let spread: &mut SkReuseport = program.try_into().map_err(|source| load::refused(name, source))?;
    load::verified(name, || spread.load())
}

/// Puts the loaded program in force on a group of sockets, given by one of them. It ends with the group.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn spread_over(ebpf: &Ebpf, socket: BorrowedFd<'_>, target: &str) -> Result<(), KernelError> {
    let name = names::SPREAD;
    let program = ebpf.program(name).ok_or(KernelError::Absent { name })?;
    let spread: &SkReuseport = program.try_into().map_err(|source| load::refused(name, source))?;
    spread.attach(socket).map_err(|source| KernelError::Attach {
        name,
        target: target.to_owned(),
        source: Box::new(source),
    })
}
