//! Puts the guard on interfaces, as close to the wire as each allows, and on those that appear later.

use std::os::fd::{AsRawFd as _, OwnedFd};

use aya::programs::xdp::{XdpLinkId, XdpMode as AyaMode};
use aya::programs::{ProgramError, Xdp};
use cmim_common::names;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::KernelError;
use crate::config::model::XdpMode;

/// Where in the receive path the guard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the network stack: works with every driver, costs more per packet.
    Generic,
}

impl Place {
    const fn aya(self) -> AyaMode {
        match self {
            Self::Native => AyaMode::Driver,
            Self::Generic => AyaMode::Skb,
        }
    }

    /// The configuration's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// An interface that refused the guard is asked again at every tenth look: what holds it may have let go.
const LOOKS_BETWEEN_TRIES: u32 = 10;

/// The interfaces that are to be guarded, and where each of them stands.
#[derive(Debug)]
pub(super) struct Interfaces {
    mode: XdpMode,
    all: Vec<Interface>,
    looks: u32,
}

#[derive(Debug)]
struct Interface {
    name: String,
    /// The kernel's number of the one that was last seen; `None`: there is none of this name.
    index: Option<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    Guarded { place: Place, link: XdpLinkId },
    Unguarded { why: KernelError },
}

impl Interfaces {
    /// None of them is guarded yet.
    pub(super) fn new(names: &[String], mode: XdpMode) -> Self {
        Self { mode, all: names.iter().map(|name| Interface::new(name)).collect(), looks: 0 }
    }

    /// Makes these the guarded ones; those that refused the guard before are tried again. Those that stay are not without
    /// it for an instant.
    pub(super) fn set_names(&mut self, names: &[String], guard: &mut Xdp) {
        for gone in self.all.extract_if(.., |interface| !names.contains(&interface.name)) {
            if let State::Guarded { link, .. } = gone.state {
                tracing::info!(interface = gone.name, "guard detached");
                // It may have gone with its interface.
                let _: Result<(), ProgramError> = guard.detach(link);
            }
        }
        for name in names {
            if !self.all.iter().any(|interface| interface.name == *name) {
                self.all.push(Interface::new(name));
            }
        }
        self.look_at_all(guard, true);
    }

    /// Lets all of them go, for another daemon; a look guards them again.
    pub(super) fn let_go(&mut self, guard: &mut Xdp) {
        for interface in &mut self.all {
            let name = std::mem::take(&mut interface.name);
            if let State::Guarded { link, .. } = std::mem::replace(interface, Interface::new(&name)).state {
                // It may have gone with its interface.
                let _: Result<(), ProgramError> = guard.detach(link);
            }
        }
    }

    /// Guards those that have appeared since the last look, or at the first one, and notices those that have vanished;
    /// now and then it tries those again that refused the guard. Interfaces are those of the calling thread's network
    /// namespace.
    pub(super) fn look(&mut self, guard: &mut Xdp) {
        self.looks = self.looks.wrapping_add(1);
        self.look_at_all(guard, self.looks.is_multiple_of(LOOKS_BETWEEN_TRIES));
    }

    fn look_at_all(&mut self, guard: &mut Xdp, try_again: bool) {
        let mode = self.mode;
        for interface in &mut self.all {
            interface.look(guard, mode, try_again);
        }
    }

    /// Guarded interfaces with the place of the guard.
    pub(super) fn guarded(&self) -> impl Iterator<Item = (&str, Place)> {
        self.all.iter().filter_map(|interface| match &interface.state {
            State::Guarded { place, .. } => Some((interface.name.as_str(), *place)),
            State::Unguarded { .. } => None,
        })
    }

    /// Those that are guarded in the driver, with their numbers.
    pub(super) fn native(&self) -> impl Iterator<Item = (&str, u32)> {
        self.all.iter().filter_map(|interface| match &interface.state {
            State::Guarded { place: Place::Native, .. } => Some((interface.name.as_str(), interface.index?)),
            State::Guarded { .. } | State::Unguarded { .. } => None,
        })
    }

    /// The others with the reason.
    pub(super) fn unguarded(&self) -> impl Iterator<Item = (&str, &KernelError)> {
        self.all.iter().filter_map(|interface| match &interface.state {
            State::Guarded { .. } => None,
            State::Unguarded { why } => Some((interface.name.as_str(), why)),
        })
    }
}

impl Interface {
    fn new(name: &str) -> Self {
        let why = KernelError::NoInterface { interface: name.to_owned() };
        Self { name: name.to_owned(), index: None, state: State::Unguarded { why } }
    }

    fn look(&mut self, guard: &mut Xdp, mode: XdpMode, try_again: bool) {
        let index = index_of(&self.name);
        let has_refused = index.is_some() && matches!(self.state, State::Unguarded { .. });
        if index == self.index && !(try_again && has_refused) {
            return;
        }
        self.index = index;
        let state = match index {
            Some(_) => match attach(guard, &self.name, mode) {
                Ok((place, link)) => State::Guarded { place, link },
                Err(why) => {
                    tracing::debug!(interface = self.name, "not guarded: {}", why.clause());
                    State::Unguarded { why }
                }
            },
            None => {
                tracing::warn!(interface = self.name, "the interface is gone; it is guarded again when it comes back");
                State::Unguarded { why: KernelError::NoInterface { interface: self.name.clone() } }
            }
        };
        if let State::Guarded { link, .. } = std::mem::replace(&mut self.state, state) {
            // The interface took the program with it; what is left is a descriptor.
            let _: Result<(), ProgramError> = guard.detach(link);
        }
    }
}

/// The kernel's number of an interface of this thread's network namespace.
fn index_of(name: &str) -> Option<u32> {
    name_to_index(any_socket()?, name).ok()
}

/// Something to ask the namespace's interfaces by.
fn any_socket() -> Option<OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

/// Whether an interface says that its frames begin with no Ethernet header (tun, WireGuard, PPP). XDP can be put there
/// all the same; the guard would take every packet for something that it does not know.
fn lacks_ethernet(name: &str) -> bool {
    let kind = any_socket().and_then(|socket| hardware_of(&socket, name));
    kind.is_some_and(|kind| !matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
}

/// The kind of hardware of an interface (`ARPHRD_*`).
#[expect(unsafe_code, reason = "rustix has no SIOCGIFHWADDR, and /sys may be another namespace's")]
fn hardware_of(socket: &OwnedFd, name: &str) -> Option<u16> {
    // SAFETY: all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // Its last byte stays zero.
    let (_, room) = request.ifr_name.split_last_mut()?;
    if name.len() > room.len() {
        return None;
    }
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request is whole and lives through the call, which writes an address into it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    // SAFETY: what the call writes is this member of the union; all bytes are a value of it.
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    (answer == 0).then_some(kind)
}

/// Attaches the loaded guard to an interface. It stays until the program is dropped.
fn attach(guard: &mut Xdp, interface: &str, mode: XdpMode) -> Result<(Place, XdpLinkId), KernelError> {
    if lacks_ethernet(interface) {
        return Err(KernelError::NotEthernet { interface: interface.to_owned() });
    }
    let (place, link) = match mode {
        XdpMode::Native => attach_at(guard, interface, Place::Native),
        XdpMode::Generic => attach_at(guard, interface, Place::Generic),
        XdpMode::Auto => attach_at(guard, interface, Place::Native).or_else(|native| {
            if matches!(native, KernelError::NoInterface { .. }) {
                return Err(native);
            }
            tracing::debug!(interface, "no native XDP: {}", native.clause());
            attach_at(guard, interface, Place::Generic)
        }),
    }?;
    tracing::info!(interface, place = place.name(), "guard attached");
    Ok((place, link))
}

fn attach_at(guard: &mut Xdp, interface: &str, place: Place) -> Result<(Place, XdpLinkId), KernelError> {
    match guard.attach(interface, place.aya()) {
        Ok(link) => Ok((place, link)),
        Err(ProgramError::UnknownInterface { name }) => Err(KernelError::NoInterface { interface: name }),
        Err(source) => {
            Err(KernelError::Attach { name: names::GUARD, target: interface.to_owned(), source: Box::new(source) })
        }
    }
}
