//! When something is to be done about a lease: once for each lease, however often it is set.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use engine::ids::LeaseId;

/// Leases by a moment.
///
/// Invariant: both sides hold the same leases, each with the same moment.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    in_order: BTreeSet<(Duration, LeaseId)>,
    moments: HashMap<LeaseId, Duration>,
}

impl Schedule {
    /// The lease's moment, in place of one that it had.
    pub(super) fn set(&mut self, id: LeaseId, at: Duration) {
        if let Some(before) = self.moments.insert(id, at) {
            self.in_order.remove(&(before, id));
        }
        self.in_order.insert((at, id));
    }

    pub(super) fn has(&self, id: LeaseId) -> bool {
        self.moments.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(at) = self.moments.remove(&id) {
            self.in_order.remove(&(at, id));
        }
    }

    /// Takes the first lease out whose moment has come.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<LeaseId> {
        let &(_, id) = self.in_order.first().filter(|first| first.0 <= now)?;
        self.remove(id);
        Some(id)
    }

    pub(super) fn first_at(&self) -> Option<Duration> {
        self.in_order.first().map(|first| first.0)
    }

    pub(super) fn clear(&mut self) {
        self.in_order.clear();
        self.moments.clear();
    }
}
