//! What is kept for a restart, and for members that lag: when the store is checkpointed, and from
//! where on the log stays.
//!
//! Invariants:
//! - No entry that the newest durable checkpoint does not hold is released, nor the last one of the
//!   log, nor any while a store settles in.
//! - What waits for room gets the checkpoint that makes it, at the next tick.

use std::time::Duration;

use super::LogCore;

impl LogCore {
    /// Begins a checkpoint when one is due.
    pub(super) fn checkpoint_if_due(&mut self, now: Duration) {
        let is_due = self.checkpoint.is_due(now, self.engine.dirty_bytes());
        if (is_due || self.checkpoint_makes_room()) && self.engine.begin_checkpoint() {
            self.checkpoint.handle_begun(now);
            self.meter.handle_checkpoint_begun(now);
            self.store_wants_room = false;
        }
    }

    /// Whether something waits for room that a checkpoint gives back: pages that only the last one
    /// needs, segments that only the entries behind it are in.
    fn checkpoint_makes_room(&self) -> bool {
        let is_starved = self.engine.is_apply_starved()
            || self.engine.is_sweep_starved()
            || self.engine.install_wants_checkpoint();
        let log_wants_room = self.wal.starvation().is_some() && self.wal.has_old_segment();
        (is_starved || self.store_wants_room || log_wants_room) && !self.engine.is_durable()
    }

    /// Gets on with the checkpoint of a clean stop: to be called until [`Self::is_checkpointed`].
    /// One that is under way does not hold everything, so it is waited for; and a file may have to
    /// grow first.
    pub fn advance_final_checkpoint(&mut self) {
        if !self.is_checkpointed() && !self.engine.is_checkpointing() {
            // False means that a file has to grow first: the growth is among the operations.
            self.engine.begin_checkpoint();
        }
    }

    /// Whether everything applied is in the newest checkpoint.
    #[must_use]
    pub fn is_checkpointed(&self) -> bool {
        self.engine.durable().0 == self.engine.applied().0
    }

    /// Releases what the newest checkpoint has made needless.
    pub(super) fn release_log(&mut self) {
        if self.transfers.is_raft_frozen() {
            // The checkpoint may hold a store of which the log has not heard: a log that began
            // behind it would look as if it had.
            return self.checkpoint.handle_finished();
        }
        let (checkpointed, _) = self.engine.durable();
        // A sole voter has nobody who could lag.
        let catch_up = if self.consensus.is_sole_voter() { 0 } else { self.catch_up_size_bytes };
        let keep_from = self.wal.durable().0.saturating_sub(catch_up);
        let mut release = None;
        while let Some(&(index, start)) = self.retained.front() {
            // The last entry stays: a start sees by it that the log reaches as far as the store.
            if index > checkpointed || start.0 >= keep_from || self.retained.len() == 1 {
                release = Some(start);
                break;
            }
            self.retained.pop_front();
        }
        if let Some(start) = release {
            // The entry that comes first may still be on its way to the disk.
            self.wal.release_before(start.min(self.wal.durable()));
            // At once: an idle member has no next batch for the release to ride with, and would
            // read segments at its next start that nobody needs.
            self.wal.flush();
        }
        self.checkpoint.handle_finished();
    }
}
