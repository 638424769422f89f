//! Sets whose channels move from one process to another.
//!
//! A set (one load of the programs, with its maps) is not split: the next process gets descriptors
//! of all of it, and whatever channels it goes on with stay where they are in its maps. Both
//! processes have the set as long as each has channels there:
//!
//! - A channel's places in the maps are written by the process whose channel it is.
//! - New channels get places from the process that had the set first. The next one has a set of its
//!   own for them, of its own programs.
//! - One of them reads the ring of events ([`Turn`]); the channels of the other look for
//!   themselves what was counted, [some times in a second](super::watch), which is how they find
//!   out what they were not told during the move as well.
//! - The lock on a set that root has loaded belongs to the open folder, which both have.
//!
//! What the next process must agree on with those programs is [`AGREEMENT`], and not which they
//! are.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gateway_common::layout::AGREEMENT;
use serde::{Deserialize, Serialize};

use super::Sockmap;
use super::load::{Held, Loaded};
use super::set::{MAPS, Set};
use super::turn::Turn;
use crate::state_error::StateError;

/// Longest queue that is taken from another process, in bytes.
const LONGEST_QUEUE: u64 = 1 << 32;

/// A set written down, its descriptors apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetState {
    agreement: u32,
    most_queued: u64,
    /// Whether a lock is the last of its descriptors.
    is_locked: bool,
}

impl SetState {
    /// How many descriptors go along with it.
    pub fn descriptors(&self) -> usize {
        MAPS.len() + 1 + usize::from(self.is_locked)
    }
}

impl Sockmap {
    /// The kernel's number of the set; no other one has it meanwhile.
    pub fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn can_be_shared(&self) -> bool {
        self.turn.is_some()
    }

    /// Writes the set down, with its descriptors, for a process that goes on with channels of it.
    /// `None`: that cannot be.
    pub fn share(&self) -> Option<(SetState, Vec<BorrowedFd<'_>>)> {
        let turn = self.turn.as_ref()?;
        self.held.share();
        let lock = self.held.lock();
        let state = SetState {
            agreement: AGREEMENT,
            most_queued: self.most_queued as u64,
            is_locked: lock.is_some(),
        };
        let descriptors = self.set.descriptors();
        let descriptors = descriptors
            .chain([turn.as_fd()])
            .chain(lock.map(AsFd::as_fd));
        Some((state, descriptors.collect()))
    }

    fn inherit(state: &SetState, mut descriptors: Vec<OwnedFd>) -> Result<Arc<Self>, StateError> {
        let agrees = state.agreement == AGREEMENT;
        StateError::unless(agrees, "agreement with the programs of another version")?;
        let is_whole = descriptors.len() == state.descriptors();
        StateError::unless(is_whole, "descriptors of a set")?;
        let is_short = state.most_queued <= LONGEST_QUEUE;
        StateError::unless(is_short, "queue of a set")?;
        let unsound = || StateError::Unsound("maps of a set");
        let lock = if state.is_locked {
            descriptors.pop().map(File::from)
        } else {
            None
        };
        let turn = Turn::of(descriptors.pop().ok_or_else(unsound)?)?;
        let loaded = Loaded {
            set: Set::received(descriptors).map_err(|_| unsound())?,
            logger: None,
            held: Held::Inherited { lock },
            // No new channel gets a place.
            room: 0,
            moves_unix_hosts: false,
        };
        let most_queued = usize::try_from(state.most_queued).map_err(|_| unsound())?;
        Self::with_turn(loaded, most_queued, Some(Arc::new(turn))).map_err(|_| unsound())
    }
}

/// The sets that a process has from the one before it, by the kernel's numbers.
#[derive(Default)]
pub struct InheritedSets(HashMap<u32, Arc<Sockmap>>);

impl InheritedSets {
    /// Takes a set, which stays as long as this or one of its channels. Fails when it is none that
    /// [`Sockmap::share`] writes down, or the programs are of a version with which this one has
    /// no agreement. Must be called in a runtime.
    pub fn take(
        &mut self,
        state: &SetState,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Arc<Sockmap>, StateError> {
        let set = Sockmap::inherit(state, descriptors)?;
        self.0.insert(set.number(), Arc::clone(&set));
        Ok(set)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<Sockmap>> {
        self.0.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_set_of_another_agreement_or_of_other_descriptors_is_refused() {
        let state = SetState {
            agreement: AGREEMENT,
            most_queued: 1 << 20,
            is_locked: false,
        };
        let other = SetState {
            agreement: AGREEMENT + 1,
            ..state.clone()
        };
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let files = || (0..state.descriptors()).map(|_| file()).collect();
        let mut sets = InheritedSets::default();
        let mut refusal = |state, descriptors| {
            let taken = sets.take(state, descriptors);
            taken.err().map(|error| error.to_string()).unwrap()
        };
        assert!(refusal(&other, files()).contains("agreement"));
        assert!(refusal(&state, vec![file()]).contains("descriptors"));
        assert!(refusal(&state, files()).contains("maps"));
    }
}
