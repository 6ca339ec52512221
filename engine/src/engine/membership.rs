//! Entries of the log that change raft's configuration.
//!
//! Such an entry carries a batch of one command. Whether raft's configuration changes depends on
//! that command's outcome, and what raft says of it then belongs to the same view: so the owner
//! applies the command first, tells raft, and stores what raft answers before it publishes.
//!
//! Invariant: a refused change leaves the stored state of raft as it was; only `applied` moves.

use crate::answer::Answer;
use crate::command::Batch;
use crate::ids::{LogIndex, Term};
use crate::range::Progress;
use crate::system;

use super::{Engine, Failure};

/// Entries that a change of the membership and raft's own state take.
const CHANGES_MAX: usize = 4;
/// Room for what raft says afterwards: some ten bytes for each member.
const CONF_STATE_SIZE_BYTES_MAX: usize = 64 << 10;

/// What became of a change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It was applied or refused, as the answer says. If it was applied, raft is told, and what
    /// raft says goes to [`Engine::put_conf_state`] before the view is published.
    Answered(Answer),
    /// There are not enough free pages: a file has to grow first, or a checkpoint has to give
    /// pages back. Nothing was changed, the entry is to be applied again.
    Starved,
    /// The batch is none that may come with a change of the configuration. Nothing was changed.
    Foreign,
}

impl Engine {
    /// Applies the batch of an entry that changes raft's configuration. The batch before must be
    /// done.
    ///
    /// # Errors
    /// The tree could not be read or changed.
    pub fn apply_membership(
        &mut self,
        index: LogIndex,
        term: Term,
        batch: &Batch,
    ) -> Result<Membership, Failure> {
        if batch.membership_change().is_none() {
            return Ok(Membership::Foreign);
        }
        let size_bytes = batch.bytes().len() + CONF_STATE_SIZE_BYTES_MAX;
        self.is_apply_starved = self.working.reserve(CHANGES_MAX, size_bytes).is_err();
        if self.is_apply_starved {
            return Ok(Membership::Starved);
        }
        self.begin_batch(index, term, batch);
        let mut answers = Vec::with_capacity(1);
        let progress = self.apply_step(usize::MAX, &mut answers)?;
        assert_eq!(progress, Progress::Done, "there was room for all of it a moment ago");
        let answer = answers.pop().expect("a command that is done is answered");
        Ok(Membership::Answered(answer))
    }

    /// Stores what raft says of its configuration, as part of the next view. Room for it was made
    /// by [`Engine::apply_membership`].
    ///
    /// # Errors
    /// The tree could not be read or changed.
    pub fn put_conf_state(&mut self, conf_state: &[u8]) -> Result<(), Failure> {
        assert!(self.run.is_none(), "raft's state changes between batches");
        assert!(!self.is_poisoned, "the trees may hold half a command");
        self.is_poisoned = true;
        system::put_conf_state(&mut self.working.shards[0], conf_state)?;
        self.is_poisoned = false;
        self.changed = true;
        Ok(())
    }
}
