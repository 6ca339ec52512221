//! Checkpoints of the whole store, and the one door through which the engine reaches its disk.
//!
//! A checkpoint writes all shards' pages of one published view, waits until each shard is synced,
//! then writes one meta block that names them all, and syncs that.
//!
//! Invariants:
//! - The meta block is written after every shard's sync ended, into the slot that the durable
//!   checkpoint does not use.
//! - Operations are answered once each; the numbers of several sources are told apart here.
//! - A failed write or sync is final. Growth that fails is not: the file stays as it is, admission
//!   says so, and it is tried again when the owner says so.

use std::collections::BTreeMap;

use crate::ids::{LogIndex, Revision, Term};
use crate::page::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId, OpToken};
use crate::page::meta::{META_BLOCK_SIZE_BYTES, Meta};
use crate::page::{Checkpoint, Epoch, NoSpace, PageBuffer, Root};
use crate::shard::Shard;

use super::files::{OwnerMeta, roots_in_order};
use super::{Engine, Failure};

/// What survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) epoch: Epoch,
    pub(super) applied: LogIndex,
    pub(super) term: Term,
    /// The meta block to be written next.
    pub(super) slot_next: u8,
}

/// Who waits for an operation.
#[derive(Clone, Copy, Debug)]
enum Source {
    Growth(usize),
    Pages(usize),
    Meta,
}

/// The engine's traffic with its disk.
pub(super) struct Checkpoints {
    durable: Durable,
    run: Option<CheckpointRun>,
    out: BTreeMap<OpToken, (Source, OpToken)>,
    token_next: u64,
    /// Why a file is not as long as it should be.
    growth_failure: Option<DiskError>,
    /// Set when a growth failed: asking again at once would get the same answer.
    growth_is_held: bool,
}

struct CheckpointRun {
    epoch: Epoch,
    applied: LogIndex,
    term: Term,
    revision: Revision,
    size_bytes: Option<u64>,
    roots: Vec<Vec<Root>>,
    parts: Vec<Checkpoint>,
    meta: MetaStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetaStage {
    Waiting,
    Writing,
    Written,
    Syncing,
}

impl Checkpoints {
    pub(super) fn new(durable: Durable) -> Self {
        Self {
            durable,
            run: None,
            out: BTreeMap::new(),
            token_next: 0,
            growth_failure: None,
            growth_is_held: false,
        }
    }

    fn hand_out(&mut self, source: Source, op: DiskOp) -> DiskOp {
        let token = OpToken(self.token_next);
        self.token_next += 1;
        self.out.insert(token, (source, op.token));
        DiskOp { token, ..op }
    }
}

impl Engine {
    /// Begins a checkpoint of the last published state. False if one is under way or has left
    /// copies to drop, or if there is
    /// no room for its free map before a file has grown.
    pub fn begin_checkpoint(&mut self) -> bool {
        if self.checkpoints.run.is_some() || self.has_copies_to_drop() {
            return false;
        }
        let view = self.publisher.current();
        let mut run = CheckpointRun {
            epoch: view.epoch,
            applied: view.applied,
            term: view.term,
            revision: view.revision,
            size_bytes: self.working.size_bytes_noted.map(|_| view.size_bytes),
            roots: view.roots.iter().map(roots_in_order).collect(),
            parts: Vec::new(),
            meta: MetaStage::Waiting,
        };
        // Room in every file first: a checkpoint is begun in all shards or in none.
        if self.reserve_checkpoint().is_err() {
            return false;
        }
        for shard in &mut self.working.shards {
            let part = Checkpoint::begin(&mut shard.file, run.epoch);
            run.parts.push(part.expect("there was room a moment ago"));
        }
        self.checkpoints.run = Some(run);
        true
    }

    /// Looks whether there is room to begin a checkpoint, for who must be able to before it goes
    /// on.
    ///
    /// # Errors
    /// There is none. With `may_grow` the growth is among the disk operations, and asking again
    /// after it has ended is worthwhile.
    pub fn reserve_checkpoint(&mut self) -> Result<(), NoSpace> {
        let reserve = |shard: &mut Shard| shard.file.reserve(shard.checkpoint_need());
        self.working.shards.iter_mut().try_for_each(reserve)
    }

    /// Whether the last published state is the one of the durable checkpoint: another one would
    /// write the same again, and give no pages back.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.publisher.current().epoch == self.checkpoints.durable.epoch
    }

    pub(super) fn durable_epoch(&self) -> Epoch {
        self.checkpoints.durable.epoch
    }

    /// Whether a checkpoint is under way.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.checkpoints.run.is_some()
    }

    /// The entry up to which the store is durable: the log before it is not needed any more.
    #[must_use]
    pub fn durable(&self) -> (LogIndex, Term) {
        (self.checkpoints.durable.applied, self.checkpoints.durable.term)
    }

    /// Why a file could not grow the last time it was to, if it could not.
    #[must_use]
    pub fn growth_failure(&self) -> Option<&DiskError> {
        self.checkpoints.growth_failure.as_ref()
    }

    /// Gives back memory that the last checkpoint has made needless: private copies of pages that
    /// are in the file now, so many runs of neighbours and so many pages in each shard at most. The
    /// next checkpoint begins when they are gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn drop_copies(&mut self, runs_max: u32, pages_max: u32) -> Result<(), Failure> {
        for shard in &mut self.working.shards {
            shard.file.drop_copies(runs_max, pages_max)?;
        }
        Ok(())
    }

    /// Whether [`Engine::drop_copies`] has more to do.
    #[must_use]
    pub fn has_copies_to_drop(&self) -> bool {
        self.working.shards.iter().any(|shard| shard.file.has_copies_to_drop())
    }

    /// Lets a growth that failed be tried again, if it is still wanted. The owner chooses how
    /// often: what waits for pages asks for them in every step.
    pub fn retry_growth(&mut self) {
        self.checkpoints.growth_is_held = false;
    }

    /// The next operation for the disk, from a checkpoint or from growth; `None` until something
    /// that is out has ended, or when there is nothing to do. After a growth that failed no other
    /// is handed out before [`Self::retry_growth`].
    pub fn poll_disk_op(&mut self) -> Option<DiskOp> {
        let Self { working, checkpoints, identity, .. } = self;
        if !checkpoints.growth_is_held {
            for (index, shard) in working.shards.iter_mut().enumerate() {
                if let Some(op) = shard.file.poll_disk_op() {
                    return Some(checkpoints.hand_out(Source::Growth(index), op));
                }
            }
        }
        let run = checkpoints.run.as_mut()?;
        for (index, (part, shard)) in run.parts.iter_mut().zip(&working.shards).enumerate() {
            if let Some(op) = part.poll_disk_op(&shard.file) {
                return Some(checkpoints.hand_out(Source::Pages(index), op));
            }
        }
        let kind = match run.meta {
            MetaStage::Waiting if run.parts.iter().all(Checkpoint::is_synced) => {
                run.meta = MetaStage::Writing;
                let CheckpointRun { revision, size_bytes, .. } = *run;
                let owner = OwnerMeta { identity: *identity, revision, size_bytes };
                let offset =
                    u64::from(checkpoints.durable.slot_next) * META_BLOCK_SIZE_BYTES as u64;
                let bytes = PageBuffer::from(run.meta_block(&owner).as_slice());
                DiskOpKind::Write { offset, bytes, is_cold: false }
            }
            MetaStage::Written => {
                run.meta = MetaStage::Syncing;
                DiskOpKind::Sync
            }
            MetaStage::Waiting | MetaStage::Writing | MetaStage::Syncing => return None,
        };
        let op = DiskOp { token: OpToken(0), file: FileId::Meta, kind };
        Some(checkpoints.hand_out(Source::Meta, op))
    }

    /// How an operation ended.
    ///
    /// # Errors
    /// A write or a sync failed: the owner stops the process, for nothing is known of what reached
    /// the medium.
    pub fn handle_disk_completion(&mut self, completion: Completion) -> Result<(), Failure> {
        let (source, token) =
            self.checkpoints.out.remove(&completion.token).expect("an answer nobody waits for");
        let completion = Completion { token, ..completion };
        match source {
            // The file stays as long as it was; whoever needs the room asks again.
            Source::Growth(shard) => {
                let file = &mut self.working.shards[shard].file;
                // A file that was not shortened is longer than views say.
                self.changed |= completion.result.is_err();
                self.checkpoints.growth_failure = file.handle_disk_completion(completion).err();
                self.checkpoints.growth_is_held = self.checkpoints.growth_failure.is_some();
            }
            Source::Pages(shard) => {
                let run = self.checkpoints.run.as_mut().expect("its operations are out");
                run.parts[shard].handle_disk_completion(completion)?;
            }
            Source::Meta => {
                completion.result?;
                let run = self.checkpoints.run.as_mut().expect("its operations are out");
                run.meta = match run.meta {
                    MetaStage::Writing => MetaStage::Written,
                    MetaStage::Syncing => {
                        self.finish_checkpoint();
                        return Ok(());
                    }
                    MetaStage::Waiting | MetaStage::Written => {
                        unreachable!("no operation on the meta file is out")
                    }
                };
            }
        }
        Ok(())
    }

    fn finish_checkpoint(&mut self) {
        let run = self.checkpoints.run.take().expect("it has just ended");
        for (part, shard) in run.parts.into_iter().zip(&mut self.working.shards) {
            part.finish(&mut shard.file);
        }
        self.checkpoints.durable = Durable {
            epoch: run.epoch,
            applied: run.applied,
            term: run.term,
            slot_next: 1 - self.checkpoints.durable.slot_next,
        };
        // Now, and not with the next view: a batch that waits for pages publishes none.
        let protected = self.publisher.protected();
        for shard in &mut self.working.shards {
            shard.file.reclaim(&protected);
        }
    }
}

impl CheckpointRun {
    fn meta_block(&self, owner: &OwnerMeta) -> Vec<u8> {
        let shards = self.parts.iter().zip(&self.roots);
        let meta = Meta {
            epoch: self.epoch,
            applied_index: self.applied.0,
            applied_term: self.term.0,
            shards: shards.map(|(part, roots)| part.state(roots.clone())).collect(),
            owner: owner.to_bytes(),
        };
        meta.encode().expect("the bound on shards keeps the block within its size")
    }
}
