//! The pieces of the kernel part, each of which a kernel may have or not.

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

use super::error::KernelError;

/// A piece that the others can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// The XDP program.
    Guard,
    /// The guard's answers to SYNs.
    Cookies,
    /// The sk_lookup program.
    Steer,
    /// The sk_reuseport program.
    Spread,
    /// The sk_skb program.
    Verdict,
    /// The kernel's own description of its TCP sockets, which the verdict and the local lane read.
    SocketTypes,
    /// The sock_ops and sk_msg programs.
    Local,
}

/// What the guard calls to answer a SYN and to know a cookie again.
const COOKIE_HELPERS: [BpfHelper; 9] = [
    BpfHelper::BPF_FUNC_skc_lookup_tcp,
    BpfHelper::BPF_FUNC_sk_release,
    BpfHelper::BPF_FUNC_tcp_gen_syncookie,
    BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv4,
    BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6,
    BpfHelper::BPF_FUNC_check_mtu,
    BpfHelper::BPF_FUNC_xdp_adjust_tail,
    BpfHelper::BPF_FUNC_xdp_load_bytes,
    BpfHelper::BPF_FUNC_xdp_store_bytes,
];

impl Piece {
    /// As an error names what is missing.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Guard => "XDP programs",
            Self::Cookies => "helpers for SYN cookies in XDP",
            Self::Steer => "sk_lookup programs",
            Self::Spread => "sk_reuseport programs",
            Self::Verdict => "sk_skb programs",
            Self::SocketTypes => "description of its TCP sockets in /sys/kernel/btf/vmlinux",
            Self::Local => "sk_msg programs",
        }
    }
}

/// The pieces that are not to be used, because this kernel lacks them or a test says that it does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Without<'a>(pub &'a [Piece]);

impl Without<'_> {
    /// Refuses what is left out.
    pub(super) fn permit(self, piece: Piece) -> Result<(), KernelError> {
        if self.0.contains(&piece) { Err(KernelError::Unsupported { what: piece.what() }) } else { Ok(()) }
    }

    /// Whether the guard can answer SYNs here: found out by trying, helper by helper.
    pub(super) fn permit_cookies(self) -> Result<(), KernelError> {
        self.permit(Piece::Cookies)?;
        let has = |helper| is_helper_supported(ProgramType::Xdp, helper).unwrap_or(false);
        if COOKIE_HELPERS.into_iter().all(has) {
            return Ok(());
        }
        Err(KernelError::Unsupported { what: Piece::Cookies.what() })
    }
}
