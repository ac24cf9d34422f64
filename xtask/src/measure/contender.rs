//! Who is measured: cmim, its peers, the direct path, and cmim with one of its settings forced.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Direct,
    Cmim,
    /// `kernel.splice` forced, one each; `CmimAuto` leaves the choice to the device.
    CmimCopy,
    CmimPipe,
    CmimSockmap,
    CmimAuto,
    /// `kernel.local_bypass = "off"`
    CmimNoBypass,
    /// `server_pipeline` as [`Contender::pipeline`] has it.
    CmimPipelined,
    Haproxy,
    /// HAProxy that tells servers and clients of itself in the fields in which cmim always does.
    HaproxyForwarded,
    Nginx,
    Nftables,
}

/// Which program a contender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    None,
    Cmim,
    Haproxy,
    Nginx,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Cmim, Self::Haproxy, Self::Nginx];
    pub(crate) const PROXIES: [Self; 3] = [Self::Cmim, Self::Haproxy, Self::Nginx];
    pub(crate) const PEERS: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Nftables];
    pub(crate) const LANES: [Self; 4] = [Self::CmimCopy, Self::CmimPipe, Self::CmimSockmap, Self::CmimAuto];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Cmim => "cmim",
            Self::CmimCopy => "cmim copy",
            Self::CmimPipe => "cmim pipe",
            Self::CmimSockmap => "cmim sockmap",
            Self::CmimAuto => "cmim auto",
            Self::CmimNoBypass => "cmim without bypass",
            Self::CmimPipelined => "cmim, server_pipeline = 16",
            Self::Haproxy => "HAProxy",
            Self::HaproxyForwarded => "HAProxy, cmim's fields",
            Self::Nginx => "nginx",
            Self::Nftables => "nftables",
        }
    }

    pub(crate) fn program(self) -> Program {
        match self {
            Self::Direct | Self::Nftables => Program::None,
            Self::Haproxy | Self::HaproxyForwarded => Program::Haproxy,
            Self::Nginx => Program::Nginx,
            _ => Program::Cmim,
        }
    }

    /// The lane that it must take, by its name in `cmim status`; `None` where the device chooses.
    pub(crate) fn lane(self) -> Option<&'static str> {
        match self {
            Self::CmimCopy => Some("copy"),
            Self::CmimPipe => Some("pipe"),
            Self::CmimSockmap => Some("sockmap"),
            _ => None,
        }
    }

    /// Its `server_pipeline`.
    pub(crate) fn pipeline(self) -> usize {
        if self == Self::CmimPipelined { 16 } else { 1 }
    }

    pub(crate) fn colour(self) -> &'static str {
        match self {
            Self::Direct => "#bbbbbb",
            Self::Cmim | Self::CmimAuto => "#2a7f62",
            Self::CmimCopy => "#7fb8a4",
            Self::CmimPipe => "#8a6fb0",
            Self::CmimSockmap => "#b0527a",
            Self::CmimNoBypass | Self::CmimPipelined => "#7fb8a4",
            Self::Haproxy | Self::Nftables => "#5b8db8",
            Self::HaproxyForwarded => "#9cb9d1",
            Self::Nginx => "#c98b4e",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
