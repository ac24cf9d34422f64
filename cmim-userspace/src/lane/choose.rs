//! Which lane carries a content or a tunnel. Pure: what is known when it begins goes in, the lane comes out.
//!
//! The rule and its numbers come from the measurements in docs/benchmarks.

use crate::config::model::SpliceMode;

/// What is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// A content with so many bytes to come.
    Content(u64),
    /// Both directions, until their ends.
    Tunnel,
}

/// What carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Through the daemon's memory.
    Copy,
    /// Through a pipe, by splice(2).
    Pipe,
    /// By the kernel alone, from socket to socket.
    Sockmap,
}

/// The `[kernel]` keys about lanes, and what this host has.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub mode: SpliceMode,
    /// Bytes; smaller contents are copied.
    pub min: u64,
    /// The sockmap lane passed its test at the start.
    pub sockmap: bool,
}

impl Rules {
    /// The lane for `load`. `reachable`: the kernel can take over both connections, which are TCP.
    #[must_use]
    pub fn choose(&self, load: Load, reachable: bool) -> Lane {
        let sockmap = self.sockmap && reachable;
        match (self.mode, load) {
            (SpliceMode::Off, _) => Lane::Copy,
            (_, Load::Content(bytes)) if bytes < self.min => Lane::Copy,
            (SpliceMode::Sockmap, _) if sockmap => Lane::Sockmap,
            // Where it is not there, as with auto: the next best.
            (SpliceMode::Pipe | SpliceMode::Auto | SpliceMode::Sockmap, Load::Content(_)) => Lane::Pipe,
            (SpliceMode::Pipe, Load::Tunnel) => Lane::Pipe,
            // Short messages with long pauses: the daemon sleeps through them.
            (SpliceMode::Auto, Load::Tunnel) if sockmap => Lane::Sockmap,
            (SpliceMode::Auto | SpliceMode::Sockmap, Load::Tunnel) => Lane::Copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { mode: SpliceMode::Auto, min: 65_536, sockmap: true };
    const LONG: Load = Load::Content(1 << 20);

    #[test]
    fn auto_takes_the_pipe_for_long_contents_and_the_sockmap_for_tunnels() {
        assert_eq!(RULES.choose(LONG, true), Lane::Pipe);
        assert_eq!(RULES.choose(Load::Content(65_535), true), Lane::Copy);
        assert_eq!(RULES.choose(Load::Content(65_536), true), Lane::Pipe);
        assert_eq!(RULES.choose(Load::Tunnel, true), Lane::Sockmap);
    }

    #[test]
    fn without_the_sockmap_lane_or_a_tcp_pair_tunnels_are_copied() {
        assert_eq!(Rules { sockmap: false, ..RULES }.choose(Load::Tunnel, true), Lane::Copy);
        assert_eq!(RULES.choose(Load::Tunnel, false), Lane::Copy);
    }

    #[test]
    fn a_forced_lane_is_taken_where_it_can_be() {
        let forced = |mode| Rules { mode, ..RULES };
        assert_eq!(forced(SpliceMode::Sockmap).choose(LONG, true), Lane::Sockmap);
        assert_eq!(forced(SpliceMode::Sockmap).choose(LONG, false), Lane::Pipe);
        assert_eq!(forced(SpliceMode::Pipe).choose(Load::Tunnel, true), Lane::Pipe);
        for load in [LONG, Load::Tunnel] {
            assert_eq!(forced(SpliceMode::Off).choose(load, true), Lane::Copy);
        }
        assert_eq!(forced(SpliceMode::Sockmap).choose(Load::Content(1), true), Lane::Copy);
    }
}
