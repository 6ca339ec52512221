//! What a front-end counts and measures about itself, a few times a turn at most.

use std::time::Duration;

use super::{Desk, FrontendCore};

impl FrontendCore {
    /// It is now so late: calls that come or end from here on do so now.
    pub fn set_now(&mut self, now: Duration) {
        self.desk.metrics.calls.set_now(now);
    }

    /// Whether [`Self::handle_turn_ended`] has something to measure.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.desk.turn_requests > 0
    }

    /// The requests of a turn that began so long ago are decoded, and answered or in the letter.
    pub fn handle_turn_ended(&mut self, duration: Duration) {
        let requests = std::mem::take(&mut self.desk.turn_requests);
        self.desk.stage.record(duration, requests);
    }

    /// What is a state and not an event is looked at a few times a second.
    pub(super) fn note_gauges(&mut self) {
        let Desk { metrics, watches, .. } = &self.desk;
        let counts = watches.counts();
        metrics.watch_streams.set(counts.streams as u64);
        metrics.watchers.set(counts.watchers as u64);
        metrics.watchers_behind.set(counts.watchers_behind as u64);
        metrics.events_pending.set(counts.events_pending as u64);
        metrics.events_sent.set(counts.events_sent);
        metrics.connections.set(self.clients.iter().flatten().count() as u64);
    }
}
