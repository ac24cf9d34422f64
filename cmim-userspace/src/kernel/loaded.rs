//! What of the kernel part is in the kernel, and how it gets there.

use std::os::fd::BorrowedFd;
use std::path::Path;

use aya::Ebpf;
use aya::programs::Xdp;
use cmim_common::names;
use cmim_common::rate;
use cmim_common::settings::Settings;
use cmim_common::spread::MAX_WORKERS;
use rustix::net::sockopt::socket_reuseport;

use super::bell::SpliceEvents;
use super::btf;
use super::error::KernelError;
use super::guard::Interfaces;
use super::listening::{self, Listening, OpenSockets};
use super::load;
use super::local::Local;
use super::log::KernelLog;
use super::maps::Maps;
use super::piece::{Piece, Without};
use super::pin::{Lent, PinDir};
use super::self_test;
use super::splice::Splicer;
use super::steer::{self, Steering};
use super::vlan::Links;
use super::workers::Workers;
use crate::config::model::{Kernel, ListenAddress, LocalBypass, SpliceMode};

/// Dropped from top to bottom: programs leave before the maps that they use lose their names.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Holds the programs and the attachments of most.
    ebpf: Ebpf,
    guard: Option<Interfaces>,
    /// Whether the sk_skb program is on the sockhash.
    pub(super) verdict: bool,
    /// Whether the sk_reuseport program is there to be put on sockets.
    spread: bool,
    /// The addresses whose sockets it is on.
    pub(super) spread_over: Vec<String>,
    pub(super) steering: Steering,
    pub(super) local: Local,
    pub(super) workers: Workers,
    pub(super) pins: Option<PinDir>,
    sharing: Sharing,
    pub(super) maps: Maps,
    pub(super) links: Links,
    pub(super) log: Option<KernelLog>,
    /// Holds the maps of the splices.
    pub(super) splicer: Splicer,
    pub(super) events: Option<SpliceEvents>,
    /// The same once the sockmap lane was tried and works.
    pub(super) sockmap: Option<Splicer>,
    pub(super) listeners: Vec<Listening>,
    pub(super) settings: Settings,
    /// Whether the guard was loaded without its answers to SYNs.
    lacks_cookies: bool,
    /// Why SYNs over a listener's rate are dropped and not answered; `None`: they are answered.
    pub(super) no_cookies: Option<String>,
}

/// The object with its maps in the kernel, and the guard as well; in force nowhere.
pub(super) struct Object {
    ebpf: Ebpf,
    /// Whether the guard was loaded without its answers to SYNs.
    lacks_cookies: bool,
    has_guard: bool,
    /// Whether the programs were told where the kernel's sockets keep what they count by.
    knows_sockets: bool,
}

/// Whose the interfaces and the pins are.
#[derive(Debug)]
enum Sharing {
    Ours,
    /// Another daemon's, now or in a moment. `pins`: what it takes to make them again.
    Lent {
        pins: Option<Lent>,
    },
}

/// Whether this host's listeners make SYN cookies: 0 never, 1 when their queue is full, 2 always.
const SYNCOOKIES: &str = "net.ipv4.tcp_syncookies";

const fn wants_sockmap(kernel: &Kernel) -> bool {
    matches!(kernel.splice, SpliceMode::Auto | SpliceMode::Sockmap)
}

impl Loaded {
    /// Makes the maps and loads the guard, which takes the most of the time, and touches nothing that only one daemon can
    /// have. `None`: nothing is in the kernel, and `missing` says why.
    pub(super) fn prepare(kernel: &Kernel, without: Without<'_>, missing: &mut Vec<KernelError>) -> Option<Object> {
        let cookies_wanted = kernel.syn_rate_per_listener > 0 && !kernel.interfaces.is_empty();
        let cookies =
            if cookies_wanted && load::lacking_capabilities().is_empty() { without.permit_cookies() } else { Ok(()) };
        let layout = without.permit(Piece::SocketTypes).and_then(|()| btf::socket_layout());
        let known = layout.as_ref().copied().unwrap_or_default();
        let mut ebpf = keep(missing, load::object(cookies.is_ok(), known))?;
        let knows_sockets = layout.is_ok();
        let layout_wanted = wants_sockmap(kernel) || kernel.local_bypass != LocalBypass::Off;
        if layout_wanted {
            keep(missing, layout);
        }
        let lacks_cookies = keep(missing, cookies).is_none();
        let guard = without.permit(Piece::Guard).and_then(|()| load::guard(&mut ebpf).map(|_| ()));
        let has_guard = keep(missing, guard).is_some();
        Some(Object { ebpf, lacks_cookies, has_guard, knows_sockets })
    }

    /// Brings up as much as this host allows. `None`: nothing is in the kernel, and `missing` says why.
    pub(super) fn bring_up(
        object: Object,
        kernel: &Kernel,
        listeners: &[Listening],
        workers: usize,
        without: Without<'_>,
        missing: &mut Vec<KernelError>,
    ) -> Option<Self> {
        let Object { mut ebpf, lacks_cookies, has_guard, knows_sockets } = object;
        let mut pins = claim_pins(&kernel.pin_dir, missing)?;
        if let Some(pins) = &mut pins {
            pin_all(pins, &ebpf, missing);
        }
        let maps = keep(missing, Maps::take(&mut ebpf))?;
        let links = keep(missing, Links::take(&mut ebpf))?;
        let steering = keep(missing, Steering::take(&mut ebpf))?;
        let local = keep(missing, Local::take(&mut ebpf))?;
        let shared = keep(missing, Workers::take(&mut ebpf))?;
        let log = keep(missing, KernelLog::take(&mut ebpf));
        let (splicer, events) = keep(missing, Splicer::take(&mut ebpf, kernel.splice_window))?;
        let mut loaded = Self {
            ebpf,
            guard: has_guard.then(|| Interfaces::new(&kernel.interfaces, kernel.xdp_mode)),
            verdict: false,
            spread: false,
            spread_over: Vec::new(),
            steering,
            local,
            workers: shared,
            pins,
            sharing: Sharing::Ours,
            maps,
            links,
            log,
            splicer,
            events: Some(events),
            sockmap: None,
            listeners: Vec::new(),
            settings: Settings { workers: known_workers(workers), ..Settings::default() },
            lacks_cookies,
            no_cookies: None,
        };
        keep(missing, loaded.set_limits(kernel));
        loaded.look_for_interfaces();
        loaded.load_programs(workers, without, missing);
        if knows_sockets && loaded.verdict {
            loaded.turn_sockmap_on(kernel, missing);
        }
        if knows_sockets && kernel.local_bypass != LocalBypass::Off {
            loaded.turn_local_on(kernel.local_bypass, without, missing);
        }
        loaded.set_listeners(listeners, without, missing);
        if let Some(pins) = &mut loaded.pins {
            pins.relieve();
        }
        Some(loaded)
    }

    fn load_programs(&mut self, workers: usize, without: Without<'_>, missing: &mut Vec<KernelError>) {
        let permitted = without.permit(Piece::Verdict).and_then(|()| self.splicer.verdict_map());
        let verdict = permitted.and_then(|sockets| load::verdict(&mut self.ebpf, &sockets));
        self.verdict = keep(missing, verdict).is_some();
        if (2..=MAX_WORKERS).contains(&workers) {
            let spread = without.permit(Piece::Spread).and_then(|()| steer::load_spread(&mut self.ebpf));
            self.spread = keep(missing, spread).is_some();
        } else if workers > MAX_WORKERS {
            tracing::info!("connections are spread over {workers} workers by hash: more than {MAX_WORKERS}");
        }
    }

    /// Tries the sockmap lane, also where it is not wanted yet: a reload may want it. Then it is not missing, either.
    fn turn_sockmap_on(&mut self, kernel: &Kernel, missing: &mut Vec<KernelError>) {
        match self_test::run(&self.splicer) {
            Err(error) if !wants_sockmap(kernel) => tracing::info!("no sockmap lane: {}", error.clause()),
            tried => self.sockmap = keep(missing, tried).map(|()| self.splicer.clone()),
        }
    }

    /// Turns the local lane on. With `auto` the device is whole without it.
    fn turn_local_on(&mut self, wanted: LocalBypass, without: Without<'_>, missing: &mut Vec<KernelError>) {
        let permitted = without.permit(Piece::Local);
        let on = permitted.and_then(|()| self.local.turn_on(&mut self.ebpf, &self.maps, wanted));
        match on {
            Err(error) if wanted == LocalBypass::Auto => tracing::info!("no local lane: {}", error.clause()),
            on => drop(keep(missing, on)),
        }
    }

    /// Makes the kernel know exactly these listeners, and steers where one of them needs it.
    pub(super) fn set_listeners(
        &mut self,
        listeners: &[Listening],
        without: Without<'_>,
        missing: &mut Vec<KernelError>,
    ) {
        self.listeners = listeners.to_vec();
        let is_there = |address: &String| listeners.iter().any(|listener| listener.address.to_string() == *address);
        self.spread_over.retain(is_there);
        keep(missing, self.maps.set_listeners(listeners));
        keep(missing, self.steering.set_destinations(listeners));
        if self.steering.destinations() > 0 && !self.steering.is_attached() {
            keep(missing, without.permit(Piece::Steer).and_then(|()| self.attach_steer()));
        }
        self.settings.steered = u32::from(self.steering.destinations() > 0);
        keep(missing, self.maps.set_settings(self.settings));
    }

    fn attach_steer(&mut self) -> Result<(), KernelError> {
        let pin = self.pins.as_ref().map(|pins| pins.path().join(names::STEER_LINK));
        self.steering.attach(&mut self.ebpf, pin.as_deref())?;
        if let Some(pins) = &mut self.pins {
            pins.adopt(names::STEER_LINK);
        }
        Ok(())
    }

    /// Takes over the splices' window, the SYN rates, and whether cookies answer what is over them.
    pub(super) fn set_limits(&mut self, kernel: &Kernel) -> Result<(), KernelError> {
        self.splicer.set_window(kernel.splice_window);
        self.settings.source_interval = rate::interval(kernel.syn_rate_per_source);
        self.settings.listener_interval = rate::interval(kernel.syn_rate_per_listener);
        self.no_cookies = if self.lacks_cookies {
            Some(format!("this kernel has no {}", Piece::Cookies.what()))
        } else if read_sysctl(SYNCOOKIES) == Some(0) {
            Some(format!("{SYNCOOKIES} is 0, so this host's listeners take none"))
        } else {
            None
        };
        self.settings.cookies = u32::from(self.no_cookies.is_none());
        self.maps.set_settings(self.settings)
    }

    /// Puts listening sockets where connections are steered and spread to.
    pub(super) fn open(&mut self, all: &[OpenSockets<'_>], missing: &mut Vec<KernelError>) {
        for open in all {
            let put = self.put(open);
            keep(missing, put);
        }
    }

    fn put(&mut self, open: &OpenSockets<'_>) -> Result<(), KernelError> {
        let Some(row) = self.maps.row(&listening::key(&open.address))? else {
            if open.address.needs_steering() {
                return Err(KernelError::Full { name: names::LISTENING });
            }
            tracing::info!("connections to {} are spread by hash: there are too many listeners", open.address);
            return Ok(());
        };
        self.steering.put(row, &open.sockets)?;
        let several: &[BorrowedFd<'_>] = &open.sockets;
        // Workers that share one socket (of systemd) are no group to choose from.
        if let [first, _, ..] = several
            && self.spread
            && socket_reuseport(first).unwrap_or(false)
        {
            let address = open.address.to_string();
            steer::spread_over(&self.ebpf, *first, &address)?;
            if !self.spread_over.contains(&address) {
                self.spread_over.push(address);
            }
        }
        Ok(())
    }

    /// Whether connections for this network and its ports are led to its sockets.
    pub(super) fn steers(&self, address: &ListenAddress) -> bool {
        let has_row = matches!(self.maps.row(&listening::key(address)), Ok(Some(_)));
        has_row && self.steering.is_attached()
    }

    /// Guards interfaces that have appeared.
    pub(super) fn look_for_interfaces(&mut self) {
        self.with_guard(Interfaces::look);
        self.look_for_vlans();
    }

    /// Tells the guard of VLAN devices whose tags it may not see.
    fn look_for_vlans(&mut self) {
        if let Some(interfaces) = &self.guard {
            self.links.look(interfaces.native());
        }
    }

    /// Guards exactly these interfaces.
    pub(super) fn set_interfaces(&mut self, names: &[String]) {
        self.with_guard(|interfaces, guard| interfaces.set_names(names, guard));
        self.look_for_vlans();
    }

    /// Gives up what only one daemon can have: the interfaces and the pins. Steering goes on.
    pub(super) fn lend(&mut self) {
        self.with_guard(Interfaces::let_go);
        self.sharing = Sharing::Lent { pins: self.pins.take().map(PinDir::lend) };
    }

    /// The other daemon did not come to be.
    pub(super) fn take_back(&mut self) -> Result<(), KernelError> {
        let sharing = std::mem::replace(&mut self.sharing, Sharing::Ours);
        self.look_for_interfaces();
        if let Sharing::Lent { pins: Some(lent) } = sharing {
            let (pins, link) = lent.take_back()?;
            self.pins = Some(pins);
            if let Some(link) = link {
                self.steering.is_pinned(link);
            }
        }
        Ok(())
    }

    /// The other daemon's steering is in force.
    pub(super) fn retire(&mut self) {
        self.sharing = Sharing::Lent { pins: None };
        self.steering.detach();
    }

    fn with_guard(&mut self, act: impl FnOnce(&mut Interfaces, &mut Xdp)) {
        let Some(interfaces) = self.guard.as_mut().filter(|_| matches!(self.sharing, Sharing::Ours)) else { return };
        let program = self.ebpf.program_mut(names::GUARD);
        if let Some(guard) = program.and_then(|program| <&mut Xdp>::try_from(program).ok()) {
            act(interfaces, guard);
        }
    }

    /// The interfaces, where the guard is loaded at all.
    pub(super) fn interfaces(&self) -> Option<&Interfaces> {
        self.guard.as_ref()
    }

    #[cfg(test)]
    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }
}

/// Tries the sockmap lane with maps and a verdict of its own, of which nothing is left.
pub(super) fn try_sockmap(kernel: &Kernel) -> Result<(), KernelError> {
    let mut ebpf = load::object(false, btf::socket_layout()?)?;
    let (splicer, _events) = Splicer::take(&mut ebpf, kernel.splice_window)?;
    load::verdict(&mut ebpf, &splicer.verdict_map()?)?;
    self_test::run(&splicer)
}

/// `None`: another daemon lives there. Two guards and two sets of maps under one name would mislead the operator of both.
fn claim_pins(pin_dir: &Path, missing: &mut Vec<KernelError>) -> Option<Option<PinDir>> {
    match PinDir::claim(pin_dir) {
        Ok(pins) => Some(Some(pins)),
        Err(error) => {
            let taken = matches!(error, KernelError::PinDirTaken { .. });
            missing.push(error);
            (!taken).then_some(None)
        }
    }
}

fn pin_all(pins: &mut PinDir, ebpf: &Ebpf, missing: &mut Vec<KernelError>) {
    for name in names::MAPS {
        let pinned = ebpf.map(name).ok_or(KernelError::Absent { name }).and_then(|map| pins.pin(name, map));
        keep(missing, pinned);
    }
}

/// Workers whose sockets the programs look at.
fn known_workers(workers: usize) -> u32 {
    u32::try_from(workers.min(MAX_WORKERS)).unwrap_or(0)
}

/// The value, or its error among what is missing.
pub(super) fn keep<T>(missing: &mut Vec<KernelError>, result: Result<T, KernelError>) -> Option<T> {
    result.map_err(|error| missing.push(error)).ok()
}

/// A number of this host's settings; those of the network are its own in each namespace.
pub(super) fn read_sysctl(name: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
