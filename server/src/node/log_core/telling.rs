//! What every other core may know of the log core without a letter.

use std::time::Duration;

use super::LogCore;
use crate::node::shared::StatusCopy;

impl LogCore {
    pub(super) fn publish_status(&mut self) {
        if self.leader_since.0 != self.consensus.leader() {
            self.leader_since = (self.consensus.leader(), self.ticked);
        }
        self.meter.handle_leader(self.consensus.leader().map_or(0, |leader| leader.0));
        self.meter.handle_activity(self.engine.activity());
        self.status.set(StatusCopy {
            term: self.consensus.term().0,
            leader: self.consensus.leader().map_or(0, |leader| leader.0),
            committed: self.consensus.committed().0,
            applied: self.engine.newest_view().applied.0,
            serving: self.is_serving() && !self.stopping,
            learner: self.changes.is_learner(),
            leader_since_micros: micros(self.leader_since.1),
            connected_since_micros: self.connected_since().map_or(u64::MAX, micros),
        });
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
