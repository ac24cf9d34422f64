//! Puts the guard on interfaces, as close to the wire as each allows.

use aya::programs::xdp::XdpMode as AyaMode;
use aya::programs::{ProgramError, Xdp};
use cmim_common::names;

use super::error::KernelError;
use crate::config::model::XdpMode;

/// Where in the receive path the guard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the network stack: works on every interface, costs more per packet.
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

/// Attaches the loaded guard to an interface of this thread's network namespace. It stays until the program is dropped.
///
/// # Errors
///
/// When the interface is not there, has a foreign XDP program, or its driver knows no native XDP where the mode insists.
pub fn attach(guard: &mut Xdp, interface: &str, mode: XdpMode) -> Result<Place, KernelError> {
    let place = match mode {
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
    Ok(place)
}

fn attach_at(guard: &mut Xdp, interface: &str, place: Place) -> Result<Place, KernelError> {
    match guard.attach(interface, place.aya()) {
        Ok(_link) => Ok(place),
        Err(ProgramError::UnknownInterface { name }) => Err(KernelError::NoInterface { interface: name }),
        Err(source) => {
            Err(KernelError::Attach { name: names::GUARD, target: interface.to_owned(), source: Box::new(source) })
        }
    }
}
