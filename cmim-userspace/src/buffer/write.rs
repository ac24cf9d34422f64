//! Bytes on their way to a file, shared by the content that they belong to and the thread that writes them.
//!
//! They stay in RAM, counted there, until they are written: the content's reader takes them from RAM as long as they
//! are, and a write that fails loses nothing, because it is placed again in another tier.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::extent::Extent;
use super::ram::{Account, Owed};
use super::space::Space;

/// A write's life. [`Stage::may_become`] lists the legal transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In a tier's queue; more bytes can join it.
    Queued,
    /// In the hands of a tier's thread.
    Writing,
    /// No tier has room: it waits in RAM for one to recover.
    Stranded,
    Written,
    /// Its content no longer needs it.
    Abandoned,
}

impl Stage {
    fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Queued, Self::Writing | Self::Abandoned)
            | (Self::Writing, Self::Written | Self::Queued | Self::Stranded | Self::Abandoned)
            | (Self::Stranded, Self::Queued | Self::Abandoned)
            | (Self::Written, Self::Abandoned) => true,
            (Self::Queued | Self::Writing | Self::Stranded | Self::Written | Self::Abandoned, _) => false,
        }
    }
}

/// A part of a content's bytes in a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub extent: Arc<Extent>,
    /// In the file.
    pub range: Range<u64>,
    /// What [`super::spool::Spool::losses`] said before it was written.
    pub losses: u32,
}

/// Where a write's bytes can be read.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Ram(Arc<Vec<Bytes>>),
    File(Place),
}

/// One write.
#[derive(Debug)]
pub(super) struct Write {
    state: Mutex<State>,
    space: Arc<Space>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Empty once they are written.
    pieces: Arc<Vec<Bytes>>,
    owed: Owed,
    /// Bytes of it that are noted as stranded in the account.
    stranded: u64,
    place: Place,
    /// Told when it no longer is on its way.
    waiting: Option<Waker>,
}

impl State {
    fn to(&mut self, next: Stage) {
        debug_assert!(self.stage.may_become(next), "a write went from {:?} to {next:?}", self.stage);
        self.stage = next;
    }

    fn is_flying(&self) -> bool {
        matches!(self.stage, Stage::Queued | Stage::Writing)
    }

    fn len(&self) -> u64 {
        self.place.range.end - self.place.range.start
    }
}

impl Write {
    pub(super) fn new(space: Arc<Space>, place: Place, pieces: Vec<Bytes>, owed: Owed) -> Arc<Self> {
        let state = State { stage: Stage::Queued, pieces: Arc::new(pieces), owed, stranded: 0, place, waiting: None };
        debug_assert_eq!(state.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(), state.len());
        Arc::new(Self { state: Mutex::new(state), space })
    }

    pub(super) fn len(&self) -> u64 {
        self.state.lock().len()
    }

    /// How many bytes can join, if they come at `offset` of `extent` and the write is at most `most` long.
    pub(super) fn spare(&self, extent: &Arc<Extent>, offset: u64, most: u64) -> u64 {
        let state = self.state.lock();
        let fits =
            state.stage == Stage::Queued && Arc::ptr_eq(&state.place.extent, extent) && state.place.range.end == offset;
        if fits { most.saturating_sub(state.len()) } else { 0 }
    }

    /// Joins bytes that [`Write::spare`] had room for; gives them back where the write has begun meanwhile.
    pub(super) fn join(&self, pieces: Vec<Bytes>, owed: Owed) -> Result<(), Vec<Bytes>> {
        let mut state = self.state.lock();
        if state.stage != Stage::Queued {
            return Err(pieces);
        }
        state.place.range.end += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Arc::make_mut(&mut state.pieces).extend(pieces);
        state.owed.ordinary += owed.ordinary;
        state.owed.staging += owed.staging;
        Ok(())
    }

    /// Bytes that are on their way now.
    pub(super) fn flying(&self) -> u64 {
        let state = self.state.lock();
        if state.is_flying() { state.len() } else { 0 }
    }

    /// Ready once it no longer is on its way.
    pub(super) fn poll_landed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.is_flying() {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn whereabouts(&self) -> Whereabouts {
        let state = self.state.lock();
        match state.stage {
            Stage::Written => Whereabouts::File(state.place.clone()),
            _ => Whereabouts::Ram(Arc::clone(&state.pieces)),
        }
    }

    /// The content no longer needs it.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        match state.stage {
            // The thread that has it gives the room back.
            Stage::Writing => state.to(Stage::Abandoned),
            Stage::Queued | Stage::Stranded | Stage::Written => {
                state.to(Stage::Abandoned);
                self.settle(state);
            }
            Stage::Abandoned => {}
        }
    }

    /// A thread takes it; `None`: nobody needs it any more.
    pub(super) fn begin(&self) -> Option<(Arc<Vec<Bytes>>, Place)> {
        let mut state = self.state.lock();
        if state.stage != Stage::Queued {
            return None;
        }
        state.to(Stage::Writing);
        state.place.losses = state.place.extent.losses();
        Some((Arc::clone(&state.pieces), state.place.clone()))
    }

    /// The thread has written it.
    pub(super) fn written(&self) {
        let mut state = self.state.lock();
        if state.stage == Stage::Writing {
            state.to(Stage::Written);
        }
        self.settle(state);
    }

    /// The thread could not write it, or it was stranded: it is to go to the extent that `find` finds, and the caller
    /// puts it into that tier's queue. `None`: it stays in RAM, or is not needed any more.
    pub(super) fn place_again(&self, find: impl FnOnce(&Extent) -> Option<Arc<Extent>>) -> Option<Arc<Extent>> {
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Writing | Stage::Stranded) {
            self.settle(state);
            return None;
        }
        if let Some(extent) = find(&state.place.extent) {
            let start = extent.start();
            state.place = Place { extent: Arc::clone(&extent), range: start..start + state.len(), losses: 0 };
            self.space.ram.moves_again(std::mem::take(&mut state.stranded));
            state.to(Stage::Queued);
            return Some(extent);
        }
        if state.stage == Stage::Writing {
            state.to(Stage::Stranded);
        }
        self.leave_staging(&mut state);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        None
    }

    pub(super) fn is_stranded(&self) -> bool {
        self.state.lock().stage == Stage::Stranded
    }

    /// Stranded bytes free the staging part if the ordinary one can take them.
    fn leave_staging(&self, state: &mut State) {
        let bytes = state.owed.staging;
        let ram = &self.space.ram;
        ram.moves_again(std::mem::take(&mut state.stranded));
        if bytes > 0 && ram.take(bytes) {
            state.owed = Owed { ordinary: state.owed.ordinary + bytes, staging: 0 };
            ram.give_back(Account::Staging, bytes);
        } else {
            ram.strand(bytes);
            state.stranded = bytes;
        }
    }

    /// Gives the RAM back and tells who waits.
    fn settle(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let pieces = std::mem::take(&mut state.pieces);
        let owed = std::mem::take(&mut state.owed);
        let waiting = state.waiting.take();
        self.space.ram.moves_again(std::mem::take(&mut state.stranded));
        drop(state);
        drop(pieces);
        self.space.release(owed);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        // Whoever dropped it last has settled it, unless its tier's queue went away with it in there.
        let state = self.state.get_mut();
        let owed = std::mem::take(&mut state.owed);
        self.space.ram.moves_again(std::mem::take(&mut state.stranded));
        self.space.release(owed);
    }
}
