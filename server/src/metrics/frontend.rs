//! What one front-end counts.
//!
//! Its calls are counted as they come and go; the state of its watches is noted at its tick.

use std::sync::Arc;

use super::calls::{CallCounts, MethodName};
use super::cell::{Bounds, Counter, Distribution};
use super::health::HealthCounts;
use super::stage::StageSlot;

/// etcd's bounds for snapshots, in nanoseconds.
pub(super) const BACKUPS: Bounds = Bounds::Doubling { first: 10_000_000, count: 17 };

/// The counts of one front-end.
#[derive(Debug)]
#[repr(align(64))]
pub struct FrontendMetrics {
    /// gRPC's.
    pub calls: Arc<CallCounts>,
    /// Transactions that only read.
    pub read_txns: Counter,
    /// The ranges in them.
    pub read_txn_ranges: Counter,
    /// Writes whose time was up before their answer came.
    pub writes_late: Counter,
    /// Watch streams that are open.
    pub watch_streams: Counter,
    /// Watchers on them.
    pub watchers: Counter,
    /// Watchers that are behind.
    pub watchers_behind: Counter,
    /// Events that came from the log core and were not offered to the watchers yet.
    pub events_pending: Counter,
    /// Events put into answers.
    pub events_sent: Counter,
    /// Connections that are open.
    pub connections: Counter,
    /// What health checks came to.
    pub health: HealthCounts,
    /// From the beginning of a backup until it was sent or given up.
    pub backups: Distribution,
    pub(super) stage: Arc<StageSlot>,
}

impl FrontendMetrics {
    /// For these methods; `timed` if the durations of all calls are wanted.
    #[must_use]
    pub fn new(methods: &[MethodName], timed: bool) -> Self {
        Self {
            calls: Arc::new(CallCounts::new(methods, timed)),
            read_txns: Counter::default(),
            read_txn_ranges: Counter::default(),
            writes_late: Counter::default(),
            watch_streams: Counter::default(),
            watchers: Counter::default(),
            watchers_behind: Counter::default(),
            events_pending: Counter::default(),
            events_sent: Counter::default(),
            connections: Counter::default(),
            health: HealthCounts::default(),
            backups: Distribution::new(BACKUPS),
            stage: Arc::default(),
        }
    }

    /// Where the front-end's stage hands over.
    #[must_use]
    pub fn stage(&self) -> Arc<StageSlot> {
        Arc::clone(&self.stage)
    }
}
