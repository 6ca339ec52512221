//! What the member counts, and how it is told: Prometheus' text, with etcd's names.
//!
//! Each core owns its counts: a [`FrontendMetrics`] for each front-end, one [`LogMetrics`] for the
//! log core. Only the owner writes them, in words that anybody may read ([`cell::Counter`]: one
//! relaxed load and store, which is what a plain addition costs), so a scrape sees them as they are
//! and stops nobody. Latencies of the stages go into hdr histograms ([`stage`]) that their core
//! hands over once a second. What costs something to find out (the size of the store, the
//! process's memory) is asked for when somebody scrapes and comes in as a [`Sample`].
//!
//! Nothing here reads a clock, a file or a view: time comes in as durations since the process's
//! origin, measured once a turn or once a batch and never for a single message.
//!
//! Invariants:
//! - A count has one writer. Two cores never write the same cache line.
//! - Nothing is formatted, and nothing allocated, before somebody scrapes; a label that a client
//!   chooses (its API version) has a bounded number of values.
//! - A family's name, type, labels and bounds are etcd's if the name is; `docs/metrics.md` says
//!   what each of them means here, and which are left out and why.

mod calls;
pub mod cell;
mod frontend;
mod health;
mod log;
pub mod peers;
pub mod promotions;
mod render;
pub mod stage;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Duration;

use engine::alarm::Alarm;

pub use calls::{CallCounts, CountedCall, MethodName, MethodType};
pub use frontend::FrontendMetrics;
pub use health::HealthCounts;
pub use log::{AppliedCommands, CommandType, LogMetrics};
pub use stage::{Stage, StageLatency};

/// What does not change while the process runs.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// This member's id.
    pub member: u64,
    /// The version that is told to clients.
    pub server_version: &'static str,
    /// Which toolchain built this; etcd tells Go's here.
    pub toolchain: &'static str,
    /// The quota of the store.
    pub quota_bytes: u64,
    /// Feature gates: name, stage, whether it is on.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// All methods, by their number.
    pub methods: Vec<MethodName>,
    /// `--metrics=extensive`: how long calls take is told by method.
    pub is_extensive: bool,
}

/// What is found out for a scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Since the process's origin.
    pub now: Duration,
    /// The same moment, since 1970.
    pub unix: Duration,
    /// The store's.
    pub store: StoreSample,
    /// The member's.
    pub member: MemberSample,
    /// The operating system's.
    pub process: ProcessSample,
}

/// The newest view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSample {
    /// Its revision.
    pub revision: i64,
    /// The compacted revision; -1 if there was no compaction.
    pub compacted: i64,
    /// Keys that live.
    pub keys: u64,
    /// The files' size.
    pub size_bytes: u64,
    /// What of it holds data.
    pub in_use_bytes: u64,
}

/// The member among others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberSample {
    /// Who leads; 0 for nobody.
    pub leader: u64,
    /// The highest committed entry.
    pub committed: u64,
    /// The highest applied entry.
    pub applied: u64,
    /// It has no vote.
    pub is_learner: bool,
    /// "major.minor" of the cluster's version, once it is set.
    pub cluster_version: Option<String>,
    /// All members' ids.
    pub members: Vec<u64>,
    /// The alarms that stand.
    pub alarms: Vec<Alarm>,
}

/// What the operating system says about the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessSample {
    /// Processor time.
    pub cpu_seconds: f64,
    /// When it was started, since 1970.
    pub start_seconds: f64,
    /// Memory that it occupies.
    pub resident_bytes: u64,
    /// Addresses that it occupies.
    pub virtual_bytes: u64,
    /// Addresses that it may occupy; `None` for any number.
    pub virtual_bytes_max: Option<u64>,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors it may open.
    pub descriptors_max: u64,
    /// Received by the network namespace.
    pub network_received_bytes: u64,
    /// Sent by it.
    pub network_sent_bytes: u64,
}

/// Everything that is counted in this process.
#[derive(Debug)]
pub struct Metrics {
    fixed: Fixed,
    frontends: Vec<Arc<FrontendMetrics>>,
    log: Arc<LogMetrics>,
}

impl Metrics {
    /// For so many front-ends and the log core that counts there.
    #[must_use]
    pub fn new(fixed: Fixed, frontends: usize, log: Arc<LogMetrics>) -> Self {
        let frontend = || Arc::new(FrontendMetrics::new(&fixed.methods, fixed.is_extensive));
        let frontends = (0..frontends).map(|_| frontend()).collect();
        Self { fixed, frontends, log }
    }

    /// What a front-end counts in.
    #[must_use]
    pub fn frontend(&self, place: usize) -> Arc<FrontendMetrics> {
        Arc::clone(&self.frontends[place])
    }

    /// Appends everything in Prometheus' text format 0.0.4.
    pub fn render(&self, sample: &Sample, out: &mut Vec<u8>) {
        render::render(self, sample, out);
    }
}
