//! The kernel part of one daemon, from start to end.

use std::net::SocketAddr;

use aya::Ebpf;
use cmim_common::counters::Counters;
use cmim_common::names;
use ipnet::IpNet;
use rustix::fs::{Gid, Uid};

use super::error::{KernelError, clauses};
use super::log::KernelLog;
use super::maps::{ListenerCount, Maps};
use super::pin::PinDir;
use super::{guard, load};
use crate::config::model::{Kernel, KernelMode};
use crate::control::message;

/// What of the kernel part is in the kernel. Dropping it detaches the programs and removes the pins.
#[derive(Debug)]
pub struct KernelPart {
    loaded: Option<Loaded>,
    missing: Vec<KernelError>,
    pin_dir: String,
}

/// Dropped from top to bottom: programs leave before the maps that they use lose their names.
#[derive(Debug)]
struct Loaded {
    /// Holds the programs and their attachments.
    #[expect(dead_code, reason = "held for its Drop, which detaches the programs")]
    ebpf: Ebpf,
    programs: Vec<message::Program>,
    pins: Option<PinDir>,
    maps: Maps,
    log: Option<KernelLog>,
}

/// Brings up as much of the kernel part as the mode and this host allow. Interfaces are those of the calling thread's
/// network namespace.
///
/// # Errors
///
/// Only with `mode = "required"`: everything that is missing, each with its way out.
pub fn start(kernel: &Kernel, listeners: &[(u32, SocketAddr)]) -> Result<KernelPart, KernelError> {
    if kernel.mode == KernelMode::Off {
        return Ok(KernelPart::off());
    }
    let mut missing = Vec::new();
    let loaded = bring_up(kernel, listeners, &mut missing);
    if kernel.mode == KernelMode::Required && !missing.is_empty() {
        return Err(KernelError::Incomplete { missing });
    }
    if !missing.is_empty() {
        let without = if loaded.is_some() { "without a part of the kernel part" } else { "in userspace only" };
        tracing::warn!("running {without}: {}", clauses(&missing).join("; "));
    }
    let pin_dir = if loaded.is_some() { kernel.pin_dir.display().to_string() } else { String::new() };
    Ok(KernelPart { loaded, missing, pin_dir })
}

/// `None`: nothing is in the kernel, and `missing` says why.
fn bring_up(kernel: &Kernel, listeners: &[(u32, SocketAddr)], missing: &mut Vec<KernelError>) -> Option<Loaded> {
    let mut ebpf = keep(missing, load::object())?;
    let mut pins = match PinDir::claim(&kernel.pin_dir) {
        Ok(pins) => Some(pins),
        Err(error) => {
            // Two guards and two sets of maps under one name would mislead the operator of both daemons.
            let taken = matches!(error, KernelError::PinDirTaken { .. });
            missing.push(error);
            if taken {
                return None;
            }
            None
        }
    };
    if let Some(pins) = &mut pins {
        pin_all(pins, &ebpf, missing);
    }
    let mut maps = keep(missing, Maps::take(&mut ebpf))?;
    keep(missing, maps.set_listeners(listeners));
    let log = keep(missing, KernelLog::take(&mut ebpf));

    let mut programs = Vec::new();
    if let Some(attached_to) = attach_guard(&mut ebpf, kernel, missing) {
        programs.push(program(names::GUARD, "xdp", attached_to));
    }
    if keep(missing, load::verdict(&mut ebpf, &maps.sockets)).is_some() {
        programs.push(program(names::VERDICT, "sk_skb", vec![names::SOCKETS.to_owned()]));
    }
    Some(Loaded { ebpf, programs, pins, maps, log })
}

fn pin_all(pins: &mut PinDir, ebpf: &Ebpf, missing: &mut Vec<KernelError>) {
    for name in names::MAPS {
        let pinned = ebpf.map(name).ok_or(KernelError::Absent { name }).and_then(|map| pins.pin(name, map));
        keep(missing, pinned);
    }
}

/// The interfaces that the guard is on; `None`: it is not even loaded.
fn attach_guard(ebpf: &mut Ebpf, kernel: &Kernel, missing: &mut Vec<KernelError>) -> Option<Vec<String>> {
    let xdp = keep(missing, load::guard(ebpf))?;
    let attached = kernel.interfaces.iter().filter(|interface| {
        let attached = guard::attach(xdp, interface, kernel.xdp_mode);
        keep(missing, attached).is_some()
    });
    Some(attached.cloned().collect())
}

fn program(name: &str, kind: &str, attached_to: Vec<String>) -> message::Program {
    message::Program { name: name.to_owned(), kind: kind.to_owned(), attached_to }
}

/// The value, or its error among what is missing.
fn keep<T>(missing: &mut Vec<KernelError>, result: Result<T, KernelError>) -> Option<T> {
    result.map_err(|error| missing.push(error)).ok()
}

impl KernelPart {
    /// Nothing in the kernel, and nothing amiss.
    #[must_use]
    pub const fn off() -> Self {
        Self { loaded: None, missing: Vec::new(), pin_dir: String::new() }
    }

    /// What this host did not allow, one clause each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        clauses(&self.missing)
    }

    /// What `cmim status` shows.
    #[must_use]
    pub fn report(&self) -> message::Kernel {
        let mode = match &self.loaded {
            Some(_) if self.missing.is_empty() => "on",
            Some(_) => "partial",
            None => "off",
        };
        let programs = self.loaded.as_ref().map_or_else(Vec::new, |loaded| loaded.programs.clone());
        let pinned = self.pins().map_or(&[][..], PinDir::pinned);
        message::Kernel {
            mode: mode.to_owned(),
            programs,
            maps: pinned.iter().map(|name| (*name).to_owned()).collect(),
            pin_dir: self.pin_dir.clone(),
            missing: self.missing(),
        }
    }

    /// Gives the pins to the user that the daemon is about to become, so that it can remove them when it ends.
    ///
    /// # Errors
    ///
    /// When this process may not give files away.
    pub fn hand_to(&self, user: u32, group: u32) -> Result<(), KernelError> {
        self.pins().map_or(Ok(()), |pins| pins.hand_to(Uid::from_raw(user), Gid::from_raw(group)))
    }

    /// The programs' log, once; `None` after that and without a kernel part. Forward it on one task.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.loaded.as_mut()?.log.take()
    }

    /// Makes the kernel know exactly these listeners (reload); counts of those that stay are kept.
    ///
    /// # Errors
    ///
    /// When the map refuses one.
    pub fn set_listeners(&mut self, listeners: &[(u32, SocketAddr)]) -> Result<(), KernelError> {
        self.loaded.as_mut().map_or(Ok(()), |loaded| loaded.maps.set_listeners(listeners))
    }

    /// What the guard counted per listener's address; empty without a kernel part.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn listener_counts(&self) -> Result<Vec<ListenerCount>, KernelError> {
        self.loaded.as_ref().map_or_else(|| Ok(Vec::new()), |loaded| loaded.maps.listeners())
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

    /// Every denied prefix, IPv4 first; empty without a kernel part.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn denied(&self) -> Result<Vec<IpNet>, KernelError> {
        self.loaded.as_ref().map_or_else(|| Ok(Vec::new()), |loaded| loaded.maps.denied())
    }

    fn maps_mut(&mut self) -> Result<&mut Maps, KernelError> {
        self.loaded.as_mut().map(|loaded| &mut loaded.maps).ok_or(KernelError::NotRunning)
    }

    fn pins(&self) -> Option<&PinDir> {
        self.loaded.as_ref().and_then(|loaded| loaded.pins.as_ref())
    }
}
