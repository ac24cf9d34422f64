//! Where one direction of a splice stands.
//!
//! Pure: what has happened in, what is to be done next out.

/// Who carries the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Userspace does: what comes is read and written.
    Relaying,
    /// The kernel does.
    Carried,
    /// The kernel did; what it has handed over has yet to be taken by the target's TCP, and until then userspace must not
    /// write there.
    Draining,
    /// Everything was carried.
    Ended,
}

/// What happens to a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing is left to read or to write here, and the kernel carries what comes next.
    Level,
    /// Bytes were left to userspace, or the source or the content has ended.
    LeftToUserspace,
    /// The target's TCP has taken everything.
    Drained,
    /// The last byte was written.
    Finished,
}

impl Phase {
    /// The phase behind an event; `None`: it cannot happen here.
    pub(super) const fn after(self, event: Event) -> Option<Self> {
        Some(match (self, event) {
            (Self::Relaying, Event::Level) => Self::Carried,
            (Self::Carried, Event::LeftToUserspace) => Self::Draining,
            (Self::Draining, Event::Drained) => Self::Relaying,
            (Self::Relaying, Event::Finished) => Self::Ended,
            _ => return None,
        })
    }

    /// Takes the step. An impossible one is a mistake of this program's; in a release it changes nothing.
    pub(super) fn step(&mut self, event: Event) {
        let next = self.after(event);
        debug_assert!(next.is_some(), "{event:?} in {self:?}");
        *self = next.unwrap_or(*self);
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Phase};

    const PHASES: [Phase; 4] = [Phase::Relaying, Phase::Carried, Phase::Draining, Phase::Ended];

    #[test]
    fn userspace_writes_again_only_behind_a_drain() {
        for event in [Event::Level, Event::LeftToUserspace, Event::Finished] {
            assert_ne!(Phase::Carried.after(event), Some(Phase::Relaying));
            assert_eq!(Phase::Draining.after(event), None);
        }
        assert_eq!(Phase::Carried.after(Event::LeftToUserspace), Some(Phase::Draining));
        assert_eq!(Phase::Draining.after(Event::Drained), Some(Phase::Relaying));
    }

    #[test]
    fn a_direction_ends_in_userspace_and_for_good() {
        for phase in PHASES {
            let ends = phase.after(Event::Finished) == Some(Phase::Ended);
            assert_eq!(ends, phase == Phase::Relaying, "{phase:?}");
        }
        for event in [Event::Level, Event::LeftToUserspace, Event::Drained, Event::Finished] {
            assert_eq!(Phase::Ended.after(event), None);
        }
    }
}
