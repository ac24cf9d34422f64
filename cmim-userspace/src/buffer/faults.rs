//! A tier's file that fails on demand, for tests.

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

/// A kind of call on a tier's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::buffer) enum Call {
    Open,
    Allocate,
    Write,
    Clear,
    Read,
    WriteBack,
}

type Plan = Box<dyn FnMut(u64, Call) -> Option<Errno> + Send>;

/// What fails, and when.
#[derive(Clone, Default)]
pub(in crate::buffer) struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    calls: u64,
    plan: Option<Plan>,
}

impl Faults {
    /// Asks `plan` at each call, with the calls before it, whether it is to fail.
    pub(in crate::buffer) fn plan(&self, plan: impl FnMut(u64, Call) -> Option<Errno> + Send + 'static) {
        self.0.lock().plan = Some(Box::new(plan));
    }

    pub(in crate::buffer) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    pub(in crate::buffer) fn check(&self, call: Call) -> Result<(), Errno> {
        let mut state = self.0.lock();
        let before = state.calls;
        state.calls += 1;
        state.plan.as_mut().and_then(|plan| plan(before, call)).map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("calls", &self.calls()).finish()
    }
}
