//! The kernel part of one daemon, from start to end.

use cmim_common::counters::Counters;
use cmim_common::names;
use ipnet::IpNet;
use rustix::fs::Gid;

use super::bell::SpliceEvents;
use super::error::{KernelError, clauses};
use super::listening::{Listening, OpenSockets};
use super::loaded::Loaded;
use super::local::LocalLane;
use super::log::KernelLog;
use super::maps::Maps;
use super::piece::{Piece, Without};
use super::pin::PinDir;
use super::report;
use super::splice::Splicer;
use super::workers::WorkerLoad;
use crate::config::model::{Kernel, KernelMode};
use crate::control::message;

/// What of the kernel part is in the kernel. Dropping it detaches the programs and removes the pins.
#[derive(Debug)]
pub struct KernelPart {
    loaded: Option<Loaded>,
    mode: KernelMode,
    missing: Vec<KernelError>,
    pin_dir: String,
    rates: Rates,
}

/// The SYN rates of the configuration; 0: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub per_source: u64,
    pub per_listener: u64,
}

/// Brings up as much of the kernel part as the mode and this host allow, for a device with this many workers.
/// Interfaces are those of the calling thread's network namespace.
///
/// # Errors
///
/// Only with `mode = "required"`: everything that is missing, each with its way out.
pub fn start(kernel: &Kernel, listeners: &[Listening], workers: usize) -> Result<KernelPart, KernelError> {
    start_with(kernel, listeners, workers, &[], || {})
}

/// The same in the place of another daemon. `release` is called once, also without a kernel part: before interfaces and
/// pins are taken, and no sooner, so that the guard is missing as shortly as can be.
///
/// # Errors
///
/// As [`start`].
pub fn start_after(
    kernel: &Kernel,
    listeners: &[Listening],
    workers: usize,
    release: impl FnOnce(),
) -> Result<KernelPart, KernelError> {
    start_with(kernel, listeners, workers, &[], release)
}

/// The same on a kernel that has not all the pieces.
#[cfg(test)]
pub(super) fn start_without(
    kernel: &Kernel,
    listeners: &[Listening],
    workers: usize,
    pieces: &[Piece],
) -> Result<KernelPart, KernelError> {
    start_with(kernel, listeners, workers, pieces, || {})
}

fn start_with(
    kernel: &Kernel,
    listeners: &[Listening],
    workers: usize,
    pieces: &[Piece],
    release: impl FnOnce(),
) -> Result<KernelPart, KernelError> {
    let mut part = KernelPart { mode: kernel.mode, rates: Rates::of(kernel), ..KernelPart::off() };
    if kernel.mode == KernelMode::Off {
        release();
        return Ok(part);
    }
    let object = Loaded::prepare(kernel, Without(pieces), &mut part.missing);
    release();
    part.loaded = object
        .and_then(|object| Loaded::bring_up(object, kernel, listeners, workers, Without(pieces), &mut part.missing));
    if part.loaded.is_some() {
        part.pin_dir = kernel.pin_dir.display().to_string();
    }
    part.insist_on_all()?;
    let missing = part.missing();
    if !missing.is_empty() {
        let without = if part.loaded.is_some() { "without a part of the kernel part" } else { "in userspace only" };
        tracing::warn!("running {without}: {}", missing.join("; "));
    }
    Ok(part)
}

impl Rates {
    const fn of(kernel: &Kernel) -> Self {
        Self { per_source: kernel.syn_rate_per_source, per_listener: kernel.syn_rate_per_listener }
    }
}

impl KernelPart {
    /// Nothing in the kernel, and nothing amiss.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            loaded: None,
            mode: KernelMode::Off,
            missing: Vec::new(),
            pin_dir: String::new(),
            rates: Rates { per_source: 0, per_listener: 0 },
        }
    }

    /// What this host did not allow, one clause each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = clauses(&self.missing);
        if let Some(interfaces) = self.loaded.as_ref().and_then(Loaded::interfaces) {
            missing.extend(interfaces.unguarded().map(|(_, why)| why.clause()));
        }
        missing
    }

    /// What `cmim status` shows.
    #[must_use]
    pub fn report(&self) -> message::Kernel {
        let missing = self.missing();
        let mode = match &self.loaded {
            Some(_) if missing.is_empty() => "on",
            Some(_) => "partial",
            None => "off",
        };
        let pinned = self.pins().map_or(&[][..], PinDir::pinned);
        message::Kernel {
            mode: mode.to_owned(),
            programs: self.loaded.as_ref().map_or_else(Vec::new, report::programs),
            maps: pinned.iter().filter(|name| names::MAPS.contains(*name)).map(|name| (*name).to_owned()).collect(),
            pin_dir: self.pin_dir.clone(),
            missing,
        }
    }

    /// What `cmim guard` shows.
    ///
    /// # Errors
    ///
    /// Without a kernel part, or when a map cannot be read.
    pub fn guard(&self) -> Result<message::Guard, KernelError> {
        report::guard(self.loaded.as_ref().ok_or(KernelError::NotRunning)?, self.rates)
    }

    /// Lets the group of the user that the daemon is about to become remove the pins, as it is to do when it ends.
    ///
    /// # Errors
    ///
    /// When this process may not give files away.
    pub fn hand_to(&self, group: u32) -> Result<(), KernelError> {
        self.pins().map_or(Ok(()), |pins| pins.hand_to(Gid::from_raw(group)))
    }

    /// The programs' log, once; `None` after that and without a kernel part. Forward it on one task.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.loaded.as_mut()?.log.take()
    }

    /// What makes splices; `None`: the sockmap lane is not to be had here. [`KernelPart::missing`] says why, where it is
    /// wanted.
    #[must_use]
    pub fn splicer(&self) -> Option<Splicer> {
        self.loaded.as_ref()?.sockmap.clone()
    }

    /// What `cmim splices` shows; nothing without a kernel part.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn splices(&self) -> Result<Vec<message::Splice>, KernelError> {
        self.loaded.as_ref().map_or(Ok(Vec::new()), |loaded| report::splices(&loaded.splicer))
    }

    /// The news of the splices, once; `None` after that and without a kernel part. Forward them on one task.
    pub fn take_events(&mut self) -> Option<SpliceEvents> {
        self.loaded.as_mut()?.events.take()
    }

    /// Makes the kernel know exactly these listeners (reload); counts of those that stay are kept.
    ///
    /// # Errors
    ///
    /// Everything of it that failed; the rest is in force.
    pub fn set_listeners(&mut self, listeners: &[Listening]) -> Result<(), KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(()) };
        let mut failed = Vec::new();
        loaded.set_listeners(listeners, Without(&[]), &mut failed);
        if failed.is_empty() { Ok(()) } else { Err(KernelError::Several { failed }) }
    }

    /// Takes the SYN rates of a configuration over (reload), all at once, and the window of splices to come.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn set_limits(&mut self, kernel: &Kernel) -> Result<(), KernelError> {
        self.rates = Rates::of(kernel);
        self.loaded.as_mut().map_or(Ok(()), |loaded| loaded.set_limits(kernel))
    }

    /// Guards exactly these interfaces (reload), also those that refused the guard before; those that cannot be guarded are
    /// among what is missing.
    pub fn set_interfaces(&mut self, names: &[String]) {
        if let Some(loaded) = &mut self.loaded {
            loaded.set_interfaces(names);
        }
    }

    /// Tells the kernel of sockets that listen now, to steer and spread connections to them.
    ///
    /// # Errors
    ///
    /// [`KernelError::NotSteered`] where connections for an address cannot reach its sockets otherwise; with
    /// `mode = "required"` everything of this that failed. What was missing before, such as an interface that has gone, is
    /// no reason: it must not keep out the change that mends it.
    pub fn open(&mut self, all: &[OpenSockets<'_>], listeners: &[Listening]) -> Result<(), KernelError> {
        let known = self.missing.len();
        if let Some(loaded) = &mut self.loaded {
            loaded.open(all, &mut self.missing);
        }
        let is_lost = |listener: &&Listening| {
            let address = &listener.address;
            address.needs_steering() && !self.loaded.as_ref().is_some_and(|loaded| loaded.steers(address))
        };
        if let Some(listener) = listeners.iter().find(is_lost) {
            let why = (self.mode != KernelMode::Off).then(|| self.missing().join("; "));
            self.missing.truncate(known);
            return Err(KernelError::NotSteered { listener: listener.name.clone(), address: listener.address, why });
        }
        if self.mode == KernelMode::Required && self.missing.len() > known {
            return Err(KernelError::Incomplete { missing: self.missing.split_off(known) });
        }
        for error in self.missing.iter().skip(known) {
            tracing::warn!("{}", error.clause());
        }
        Ok(())
    }

    /// What a worker tells of its connections, so that new ones go to the least busy.
    #[must_use]
    pub fn load_of(&self, worker: usize) -> WorkerLoad {
        self.loaded.as_ref().map_or_else(WorkerLoad::default, |loaded| loaded.workers.load_of(worker))
    }

    /// The local lane as workers use it; without effect where it is not on.
    #[must_use]
    pub fn local_lane(&self) -> LocalLane {
        self.loaded.as_ref().map_or_else(LocalLane::default, |loaded| loaded.local.lane())
    }

    /// What the local lane carries and carried: the kernel counts it, as it does the work.
    #[must_use]
    pub fn local_figures(&self) -> message::Lane {
        match self.counters() {
            Ok(Some(counters)) => report::local(&counters),
            // A map that cannot be read is in the log of whoever needs more of it.
            Ok(None) | Err(_) => message::Lane::default(),
        }
    }

    /// Guards interfaces that have appeared since the last look. Cheap enough for every second.
    pub fn look_for_interfaces(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.look_for_interfaces();
        }
    }

    /// Steers and spreads to sockets once more that have listened all the while: a change that came to nothing may have
    /// put others in their rows, and another daemon its own program over them.
    pub fn restore(&mut self, all: &[OpenSockets<'_>]) {
        let Some(loaded) = &mut self.loaded else { return };
        let mut missing = Vec::new();
        loaded.open(all, &mut missing);
        for error in &missing {
            tracing::error!("{}", error.clause());
        }
    }

    /// Gives up what only one daemon can have (interfaces, pins), for one that is about to take this one's place.
    pub fn lend(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.lend();
        }
    }

    /// Takes that back: the other one did not come to be. `all`: the sockets, for which it had a program already.
    ///
    /// # Errors
    ///
    /// When the pins cannot be made again; the rest is as it was all the same.
    pub fn take_back(&mut self, all: &[OpenSockets<'_>]) -> Result<(), KernelError> {
        let taken = self.loaded.as_mut().map_or(Ok(()), Loaded::take_back);
        self.restore(all);
        taken
    }

    /// The other one is there: connections are steered by it.
    pub fn retire(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.retire();
        }
    }

    /// Whether anything is in the kernel.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// The counters of all CPUs together; `None` without a kernel part.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Option<Counters>, KernelError> {
        self.loaded.as_ref().map(|loaded| loaded.maps.counters()).transpose()
    }

    /// Drops what comes from these addresses on the guarded interfaces.
    ///
    /// # Errors
    ///
    /// Without a kernel part, or when the list is full.
    pub fn deny(&mut self, sources: IpNet) -> Result<(), KernelError> {
        self.maps_mut()?.deny(sources)
    }

    /// Takes exactly this prefix off the list; `false`: it was not there.
    ///
    /// # Errors
    ///
    /// Without a kernel part, or when the map refuses.
    pub fn allow(&mut self, sources: IpNet) -> Result<bool, KernelError> {
        self.maps_mut()?.allow(sources)
    }

    /// Every denied prefix, IPv4 first.
    ///
    /// # Errors
    ///
    /// Without a kernel part, or when a map cannot be read.
    pub fn denied(&self) -> Result<Vec<IpNet>, KernelError> {
        self.loaded.as_ref().ok_or(KernelError::NotRunning)?.maps.denied()
    }

    #[cfg(test)]
    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.as_ref()
    }

    #[cfg(test)]
    pub(super) fn loaded_mut(&mut self) -> Option<&mut Loaded> {
        self.loaded.as_mut()
    }

    fn insist_on_all(&mut self) -> Result<(), KernelError> {
        if self.mode != KernelMode::Required || self.missing().is_empty() {
            return Ok(());
        }
        let mut missing = std::mem::take(&mut self.missing);
        if let Some(interfaces) = self.loaded.as_ref().and_then(Loaded::interfaces) {
            missing.extend(interfaces.unguarded().map(|(name, why)| match why {
                KernelError::NoInterface { interface } => KernelError::NoInterface { interface: interface.clone() },
                KernelError::NotEthernet { interface } => KernelError::NotEthernet { interface: interface.clone() },
                why => KernelError::Unguarded { interface: name.to_owned(), why: why.to_string() },
            }));
        }
        Err(KernelError::Incomplete { missing })
    }

    fn maps_mut(&mut self) -> Result<&mut Maps, KernelError> {
        self.loaded.as_mut().map(|loaded| &mut loaded.maps).ok_or(KernelError::NotRunning)
    }

    fn pins(&self) -> Option<&PinDir> {
        self.loaded.as_ref().and_then(|loaded| loaded.pins.as_ref())
    }
}
