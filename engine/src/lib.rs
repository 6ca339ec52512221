//! The replicated state machine: shards, trees, revisions.
//!
//! [`Engine`] is the writer half and has one owner; [`ReadHandle`]s are the read half, one for
//! each core. Commands come in as validated batches ([`command`]), answers go out as values
//! ([`answer`]), reads run over pinned views ([`view`], [`range`], [`hash`]), watchers are told by
//! [`events`].
//! Nothing here knows the wire, the log, a clock or a socket.

mod activity;
pub mod alarm;
pub mod answer;
pub mod backup;
pub mod bbolt;
mod chain;
pub mod command;
mod compaction;
mod delete;
pub mod downgrade;
pub mod engine;
pub mod events;
pub mod hash;
pub mod ids;
mod layout;
pub mod lease;
pub mod limits;
mod membership;
pub mod page;
pub mod quota;
pub mod range;
mod shard;
mod store;
mod system;
pub mod transfer;
pub mod tree;
pub mod txn;
pub mod view;
mod walk;
mod working;

#[cfg(test)]
mod step_tests;

pub use activity::Activity;
pub use alarm::{Alarm, AlarmKind};
pub use answer::{
    Answer, OperationOutcome, Outcome, OwnedRecord, ReadError, Rejection, TxnOutcome,
};
pub use backup::{BackupFacts, BackupScan};
pub use command::{Batch, BatchHeader, CommandError, FrameWriter, MembershipChange};
pub use downgrade::ClusterVersion;
pub use engine::{Engine, EngineConfig, EngineFiles, Failure, Identity};
pub use events::{EventBatch, EventKind, EventRef, EventSink, Interest, events_since};
pub use hash::{KeyValueHash, KeyValueHashScan, StoreHashScan};
pub use ids::{Change, ClusterId, LeaseId, LogIndex, MemberId, Revision, ShardId, Term};
pub use membership::Member;
pub use range::{
    Progress, RangeQuery, RangeScan, RangeSummary, Record, RecordSink, SortOrder, SortTarget,
};
pub use transfer::{InstallRule, TransferScan};
pub use txn::TxnScan;
pub use view::{HeldView, MemberAttributes, PinnedView, ReadHandle, View};
