//! The writer half: applies batches, publishes views, sweeps, checkpoints. One owner, the log core.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::answer::Answer;
use crate::command::Batch;
use crate::events::EventBatch;
use crate::ids::{ClusterId, LogIndex, MemberId, Revision, Term};
use crate::page::disk::{Completion, DiskOp};
use crate::page::fault::{NoSpace, PageFailure, PageFault};
use crate::range::Progress;
use crate::view::ReadHandle;

/// What is fixed when a store is created or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Into how many shards the keys are hashed; fixed at creation, checked when opened.
    pub shards: u16,
    /// The most bytes a shard's file may grow to.
    pub shard_size_bytes_max: u64,
}

/// Whose store it is; written into every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
}

/// Where the store lives.
#[derive(Debug)]
pub enum EngineFiles {
    /// In memory: for tests and the simulator, which keeps what reaches the "disk" itself.
    Memory,
    /// Open files: the meta file and one for each shard, in order.
    Disk {
        /// The meta blocks.
        meta: std::fs::File,
        /// The shards.
        shards: Vec<std::fs::File>,
        /// Where they lie, for messages.
        directory: PathBuf,
    },
}

/// The world, or the disk's content, refused.
#[derive(Debug)]
pub enum Failure {
    /// A page file could not be used.
    Page(PageFailure),
    /// The tree could not be read: damage, named by file and page.
    Fault(PageFault),
    /// The stored state does not fit this program or its configuration; the text says how.
    State(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(failure) => failure.fmt(formatter),
            Self::Fault(fault) => fault.fmt(formatter),
            Self::State(text) => formatter.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// The writer half of the store.
pub struct Engine {}

impl Engine {
    /// Makes an empty store.
    pub fn create(
        _files: EngineFiles,
        _config: EngineConfig,
        _identity: Identity,
    ) -> Result<Self, Failure> {
        landing()
    }

    /// Opens the newest durable checkpoint of a store.
    pub fn open(_files: EngineFiles, _config: EngineConfig) -> Result<Self, Failure> {
        landing()
    }

    /// Whose store it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        landing()
    }

    /// The last entry that was applied; after `open`, the one the checkpoint holds.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        landing()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        landing()
    }

    /// The compacted revision.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        landing()
    }

    /// Makes room for a batch before it is admitted, so that apply never meets a full disk.
    pub fn reserve_for(&mut self, _batch_size_bytes: usize) -> Result<(), NoSpace> {
        landing()
    }

    /// Begins to apply a committed entry. The batch before must be done.
    pub fn begin_batch(&mut self, _index: LogIndex, _term: Term, _batch: &Batch) {
        landing()
    }

    /// An entry without commands: raft's own. Moves `applied` and nothing else.
    pub fn apply_empty(&mut self, _index: LogIndex, _term: Term) {
        landing()
    }

    /// Goes on with the batch, touching about `budget` keys. Appends one answer a command, in
    /// order; a budget may end inside a command.
    pub fn apply_step(
        &mut self,
        _budget: usize,
        _answers: &mut Vec<Answer>,
    ) -> Result<Progress, Failure> {
        landing()
    }

    /// What the next published view says about reads that need nobody's consent.
    pub fn set_local_reads(&mut self, _local_reads: bool) {
        landing()
    }

    /// Makes all that was applied visible. Not inside a batch.
    pub fn publish(&mut self) {
        landing()
    }

    /// Whether events are to be kept, and whether with the records before.
    pub fn set_events_wanted(&mut self, _wanted: bool, _prev_wanted: bool) {
        landing()
    }

    /// The events since they were last taken; `None` if nothing changed or nobody wants any.
    pub fn take_events(&mut self) -> Option<Arc<EventBatch>> {
        landing()
    }

    /// Works on a scheduled compaction, touching about `budget` changes. Not inside a batch;
    /// publish afterwards. Says whether there is more to do.
    pub fn background_step(&mut self, _budget: usize) -> Result<bool, Failure> {
        landing()
    }

    /// Whether the sweep of the last accepted compaction is finished (`physical` waits for it).
    #[must_use]
    pub fn compaction_is_finished(&self) -> bool {
        landing()
    }

    /// A read half for another core.
    #[must_use]
    pub fn read_handle(&self) -> ReadHandle {
        landing()
    }

    /// Begins a checkpoint of the last published state. False if one is under way.
    pub fn begin_checkpoint(&mut self) -> bool {
        landing()
    }

    /// The next operation for the disk, from a checkpoint or from growth.
    pub fn poll_disk_op(&mut self) -> Option<DiskOp> {
        landing()
    }

    /// How an operation ended. A failure is final: the owner stops the process.
    pub fn handle_disk_completion(&mut self, _completion: Completion) -> Result<(), Failure> {
        landing()
    }

    /// The entry up to which the store is durable: the log before it is not needed any more.
    #[must_use]
    pub fn durable(&self) -> (LogIndex, Term) {
        landing()
    }

    /// Bytes that a checkpoint begun now would have to write, about.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        landing()
    }
}

fn landing<R>() -> R {
    panic!("landing: comes with the tree")
}
