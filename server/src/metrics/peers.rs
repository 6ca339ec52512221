//! What is counted of each other member: etcd's `etcd_network_peer_*` families.
//!
//! Invariant: a member's counts stay when it is gone, as series do; who comes back under the same
//! id goes on counting.

use std::sync::{Arc, Mutex, PoisonError};

use super::cell::{Bounds, Counter, Distribution};

/// etcd's bounds of a round trip, in nanoseconds.
const ROUND_TRIPS: Bounds = Bounds::Doubling { first: 100_000, count: 16 };

/// The counts of one member. The log core writes them.
#[derive(Debug)]
pub struct PeerMetrics {
    /// Its id.
    pub member: u64,
    /// Sent to it.
    pub sent_bytes: Counter,
    /// Received from it.
    pub received_bytes: Counter,
    /// How often letters to it were dropped.
    pub send_failures: Counter,
    /// How often a connection of its ended because it could not be understood.
    pub receive_failures: Counter,
    /// From a probe until its answer.
    pub round_trips: Distribution,
    /// Whether letters reach it.
    pub is_active: Counter,
    /// How often they ceased to.
    pub disconnections: Counter,
}

impl PeerMetrics {
    /// Of somebody who may not be a member, and of whom no scrape hears.
    #[must_use]
    pub fn unlisted(member: u64) -> Self {
        Self {
            member,
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            send_failures: Counter::default(),
            receive_failures: Counter::default(),
            round_trips: Distribution::new(ROUND_TRIPS),
            is_active: Counter::default(),
            disconnections: Counter::default(),
        }
    }
}

/// All members that there have been since the start. Locked when one comes, and by a scrape.
#[derive(Debug, Default)]
pub struct Peers(Mutex<Vec<Arc<PeerMetrics>>>);

impl Peers {
    /// The counts of a member.
    #[must_use]
    pub fn of(&self, member: u64) -> Arc<PeerMetrics> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.member == member) {
            return Arc::clone(known);
        }
        let new = Arc::new(PeerMetrics::unlisted(member));
        all.push(Arc::clone(&new));
        all.sort_by_key(|known| known.member);
        new
    }

    /// Those of all, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PeerMetrics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
