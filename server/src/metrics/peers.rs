//! What is counted of each other member: etcd's `etcd_network_peer_*` and
//! `etcd_network_snapshot_*` families.
//!
//! Invariant: a member's counts stay when it is gone, as series do; who comes back under the same
//! id goes on counting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cell::{Bounds, Counter, Distribution};

/// etcd's bounds of a round trip, in nanoseconds.
const ROUND_TRIPS: Bounds = Bounds::Doubling { first: 100_000, count: 16 };
/// And of a store's way, likewise.
const STORES: Bounds = Bounds::Doubling { first: 100_000_000, count: 10 };

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
    /// Stores on their way to it.
    pub stores_sent: Arc<StoreCounts>,
    /// Stores on their way from it.
    pub stores_received: Arc<StoreCounts>,
}

/// Stores that travel in one direction.
#[derive(Debug)]
pub struct StoreCounts {
    /// Those under way.
    pub in_flight: Counter,
    /// Those that arrived.
    pub succeeded: Counter,
    /// Those that did not.
    pub failed: Counter,
    /// How long those took that did.
    pub durations: Distribution,
}

impl Default for StoreCounts {
    fn default() -> Self {
        Self {
            in_flight: Counter::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            durations: Distribution::new(STORES),
        }
    }
}

impl StoreCounts {
    /// Whether there ever was one.
    #[must_use]
    pub fn has_any(&self) -> bool {
        [&self.in_flight, &self.succeeded, &self.failed].iter().any(|count| count.get() > 0)
    }
}

/// A store that is counted as under way, and as failed unless it is said to have arrived.
#[derive(Debug)]
pub struct CountedStore {
    counts: Arc<StoreCounts>,
    begun: Duration,
    end: End,
}

/// What becomes of a store that is counted.
#[derive(Debug)]
enum End {
    Failed,
    Arrived { took: Duration },
    Needless,
}

impl CountedStore {
    /// It is on its way.
    #[must_use]
    pub fn begin(counts: &Arc<StoreCounts>, now: Duration) -> Self {
        counts.in_flight.set(counts.in_flight.get() + 1);
        Self { counts: Arc::clone(counts), begun: now, end: End::Failed }
    }

    /// It has arrived.
    pub fn arrive(mut self, now: Duration) {
        self.end = End::Arrived { took: now.saturating_sub(self.begun) };
    }

    /// Nothing had to be sent.
    pub fn forget(mut self) {
        self.end = End::Needless;
    }
}

impl Drop for CountedStore {
    fn drop(&mut self) {
        self.counts.in_flight.set(self.counts.in_flight.get() - 1);
        match self.end {
            End::Arrived { took } => {
                self.counts.succeeded.add(1);
                self.counts.durations.observe_duration(took, 1);
            }
            End::Failed => self.counts.failed.add(1),
            End::Needless => {}
        }
    }
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
            stores_sent: Arc::default(),
            stores_received: Arc::default(),
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
