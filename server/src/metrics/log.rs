//! What the log core counts.

use std::sync::Arc;
use std::time::Duration;

use engine::Activity;
use engine::command::CommandKind;

use super::calls::REQUEST_BOUNDS;
use super::cell::{Bounds, Counter, Distribution};
use super::peers::Peers;
use super::promotions::Promotions;
use super::stage::{Stage, StageCopy, StageLatency, StageSlot};

/// etcd's bounds for applies, in nanoseconds.
const APPLIES: Bounds = Bounds::Doubling { first: 100_000, count: 20 };
/// etcd's bounds for the pauses of a compaction, in microseconds.
const PAUSES: Bounds = Bounds::Doubling { first: 1_000, count: 13 };
/// etcd's bounds for compactions, in microseconds.
const COMPACTIONS: Bounds = Bounds::Doubling { first: 100_000, count: 14 };
/// etcd's bounds for defragmentations, in nanoseconds.
const DEFRAGS: Bounds = Bounds::Doubling { first: 100_000_000, count: 13 };
/// Bounds for checkpoints, in nanoseconds: 10 ms to 80 s.
const CHECKPOINTS: Bounds = Bounds::Doubling { first: 10_000_000, count: 14 };
/// Bounds for the number of commands in a batch.
const BATCHES: Bounds = Bounds::Doubling { first: 1, count: 16 };

/// etcd's bounds for the time to live that leases are granted, in seconds.
const LEASES: Bounds = Bounds::Doubling { first: 1, count: 24 };

/// The kinds of commands by their number, in the words of etcd's `op` label.
const OPERATIONS: [&str; 16] = [
    "unknown",
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "DowngradeInfoSet",
    // etcd applies these elsewhere and does not count them.
    "MemberAdd",
    "MemberRemove",
    "MemberPromote",
    "MemberUpdate",
];

/// The kind of a command, as far as metrics tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandType(u8);

impl CommandType {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).take(OPERATIONS.len()).map(Self)
    }

    /// etcd's word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        OPERATIONS[self.0 as usize]
    }

    /// Its place in tables.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

impl From<CommandKind> for CommandType {
    #[inline]
    fn from(kind: CommandKind) -> Self {
        let number = kind as u8;
        Self(if usize::from(number) < OPERATIONS.len() { number } else { 0 })
    }
}

/// The commands of one batch, by kind and by whether apply refused them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppliedCommands {
    counts: [[u32; 2]; OPERATIONS.len()],
    total: u32,
}

impl AppliedCommands {
    /// A command was applied.
    #[inline]
    pub fn note(&mut self, kind: CommandKind, success: bool) {
        self.counts[CommandType::from(kind).place()][usize::from(success)] += 1;
        self.total += 1;
    }
}

/// The counts of the log core.
#[derive(Debug)]
#[repr(align(64))]
pub struct LogMetrics {
    /// Commands that front-ends sent.
    pub commands_taken: Counter,
    /// Commands whose fate was told.
    pub commands_ended: Counter,
    /// Commands whose fate is that nobody knows or that they were not taken.
    pub proposals_failed: Counter,
    /// How often a leader appeared.
    pub leader_changes: Counter,
    /// Batches whose apply took longer than is good.
    pub slow_applies: Counter,
    /// Reads whose round never ended.
    pub read_indexes_failed: Counter,
    /// Rounds that were asked for again.
    pub slow_read_indexes: Counter,
    /// From the beginning of a log write until its core saw it durable.
    pub wal_syncs: Distribution,
    /// Bytes written to the log, padding included.
    pub wal_written_bytes: Counter,
    /// From the beginning of a batch's apply until its view was published.
    pub commits: Distribution,
    /// Commands in a batch.
    pub batch_commands: Distribution,
    /// From the beginning of a checkpoint until it was durable.
    pub checkpoints: Distribution,
    /// The time that a turn of the sweep held the core, in microseconds.
    pub compaction_pauses: Distribution,
    /// From the beginning of a compaction's sweep until its end, in microseconds.
    pub compactions: Distribution,
    /// When the last one ended, in nanoseconds since the origin; 0 if none did.
    pub compacted_at_nanos: Counter,
    /// From the beginning of a defragmentation until its end.
    pub defrags: Distribution,
    /// Whether one is under way.
    pub defrags_inflight: Counter,
    /// Whether a store that came from the leader takes the place of the member's own.
    pub installs_inflight: Counter,
    /// Heartbeats that this member sent a whole interval too late.
    pub heartbeats_late: Counter,
    /// Leases whose time was up, so that their end was proposed.
    pub leases_expired: Counter,
    /// Leases that were kept alive.
    pub leases_renewed: Counter,
    /// The time to live of leases that were granted, in seconds.
    pub lease_ttls: Distribution,
    /// Of the other members.
    pub peers: Peers,
    /// Learners that this leader was to promote.
    pub promotions: Promotions,
    puts: Counter,
    put_size_bytes: Counter,
    deletes: Counter,
    ranges: Counter,
    txns: Counter,
    swept_changes: Counter,
    /// By kind: refused by apply, done.
    applies: [[Distribution; 2]; OPERATIONS.len()],
    stages: [Arc<StageSlot>; 4],
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            commands_taken: Counter::default(),
            commands_ended: Counter::default(),
            proposals_failed: Counter::default(),
            leader_changes: Counter::default(),
            slow_applies: Counter::default(),
            read_indexes_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            wal_syncs: Distribution::new(REQUEST_BOUNDS),
            wal_written_bytes: Counter::default(),
            commits: Distribution::new(REQUEST_BOUNDS),
            batch_commands: Distribution::new(BATCHES),
            checkpoints: Distribution::new(CHECKPOINTS),
            compaction_pauses: Distribution::new(PAUSES),
            compactions: Distribution::new(COMPACTIONS),
            compacted_at_nanos: Counter::default(),
            defrags: Distribution::new(DEFRAGS),
            defrags_inflight: Counter::default(),
            installs_inflight: Counter::default(),
            heartbeats_late: Counter::default(),
            leases_expired: Counter::default(),
            leases_renewed: Counter::default(),
            lease_ttls: Distribution::new(LEASES),
            peers: Peers::default(),
            promotions: Promotions::default(),
            puts: Counter::default(),
            put_size_bytes: Counter::default(),
            deletes: Counter::default(),
            ranges: Counter::default(),
            txns: Counter::default(),
            swept_changes: Counter::default(),
            applies: std::array::from_fn(|_| [APPLIES; 2].map(Distribution::new)),
            stages: Default::default(),
        }
    }
}

impl LogMetrics {
    /// Where a stage of the log core hands over.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> StageLatency {
        StageLatency::new(Arc::clone(&self.stages[log_place(stage)]))
    }

    /// What a stage of the log core has handed over.
    #[must_use]
    pub fn stage_copy(&self, stage: Stage) -> StageCopy {
        self.stages[log_place(stage)].copy()
    }

    /// What the engine has done so far.
    pub fn set_activity(&self, activity: &Activity) {
        self.puts.set(activity.puts);
        self.put_size_bytes.set(activity.put_size_bytes);
        self.deletes.set(activity.deletes);
        self.ranges.set(activity.ranges);
        self.txns.set(activity.txns);
        self.swept_changes.set(activity.swept_changes);
    }

    /// What [`Self::set_activity`] was told last.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity {
            puts: self.puts.get(),
            put_size_bytes: self.put_size_bytes.get(),
            deletes: self.deletes.get(),
            ranges: self.ranges.get(),
            txns: self.txns.get(),
            swept_changes: self.swept_changes.get(),
        }
    }

    /// A batch was applied. Each command took its share of the time: what one of them took is not
    /// measured, because that would cost as much as a small put.
    pub fn note_applied(&self, commands: &AppliedCommands, duration: Duration) {
        let share = duration / commands.total.max(1);
        for (counts, durations) in commands.counts.iter().zip(&self.applies) {
            for (count, duration) in counts.iter().zip(durations).filter(|(count, _)| **count > 0) {
                duration.observe_duration(share, u64::from(*count));
            }
        }
    }

    /// How long commands of a kind took, by their success.
    #[must_use]
    pub fn applies(&self, kind: CommandType, success: bool) -> &Distribution {
        &self.applies[kind.place()][usize::from(success)]
    }
}

/// The place of a stage among those of the log core.
fn log_place(stage: Stage) -> usize {
    let place = Stage::ALL.iter().position(|other| *other == stage).expect("all are listed");
    assert!(stage != Stage::Frontend, "the front-ends measure their own stage");
    place - 1
}
