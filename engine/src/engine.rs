//! The writer half: applies batches, publishes views, sweeps, checkpoints. One owner, the log core.
//!
//! The owner admits with [`Engine::reserve_for`], applies with [`Engine::begin_batch`] and
//! [`Engine::apply_step`], makes visible with [`Engine::publish`], and in between performs what
//! [`Engine::poll_disk_op`] hands out.
//!
//! Invariants:
//! - Readers see states between batches only: nothing is published inside a batch.
//! - `durable <= published <= applied`; only a meta block that reached the disk moves `durable`.
//! - No command can make apply fail. What can is the world: a damaged page, and after that error
//!   the engine refuses to go on, because a command may be half done.
//! - Answers, revisions and events do not depend on the number of shards or on budgets.

mod apply;
mod checkpoint;
mod defrag;
mod files;
mod import;
mod install;
mod membership;
mod segment;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::activity::Activity;
use crate::alarm::AlarmGate;
use crate::answer::{Answer, ReadError};
use crate::command::Batch;
use crate::compaction::{Compaction, Sweep};
use crate::events::EventBatch;
use crate::ids::{Change, ClusterId, LogIndex, MemberId, Revision, Term};
use crate::lease::LeaseChange;
use crate::limits::READ_SLOTS_MAX;
use crate::page::disk::DiskError;
use crate::page::pin::Publisher;
use crate::page::{Epoch, NoSpace, PageFailure, PageFault, PageReader};
use crate::range::Progress;
use crate::store::Store;
use crate::system;
use crate::view::{ReadHandle, View};
use crate::working::{Need, Working};
use apply::{BatchRun, Step};
use checkpoint::Checkpoints;
use defrag::Defrag;
use install::Install;

pub use files::EngineFiles;
pub use import::{Founding, ImportRule, Imported, ImportedChange};
pub use install::{InstallState, InstallStep};
pub use membership::Membership;

/// What is fixed when a store is created or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Into how many shards the keys are hashed; fixed at creation, checked when opened.
    pub shards: u16,
    /// The most bytes a shard's file may grow to; as much address space is set aside.
    pub shard_size_bytes_max: u64,
}

impl Default for EngineConfig {
    /// One shard; eight times what etcd calls the practical end of a store.
    fn default() -> Self {
        Self { shards: 1, shard_size_bytes_max: 64 << 30 }
    }
}

/// Whose store it is; written into every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
}

/// The world, or the disk's content, refused.
#[derive(Debug)]
pub enum Failure {
    /// A page file could not be used.
    Page(PageFailure),
    /// The tree could not be read: damage, named by file and page.
    Fault(PageFault),
    /// The disk refused a checkpoint.
    Disk(DiskError),
    /// The first checkpoint does not count and there is no second: the text says why. Who has the
    /// log since the beginning may create the store anew.
    FirstCheckpointTorn(String),
    /// The stored state does not fit this program or its configuration; the text says how.
    State(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(failure) => failure.fmt(formatter),
            Self::Fault(fault) => fault.fmt(formatter),
            Self::Disk(error) => error.fmt(formatter),
            Self::FirstCheckpointTorn(fault) => {
                write!(formatter, "the only checkpoint does not count: {fault}")
            }
            Self::State(text) => formatter.write_str(text),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Page(failure) => Some(failure),
            Self::Fault(fault) => Some(fault),
            Self::Disk(error) => Some(error),
            Self::FirstCheckpointTorn(_) | Self::State(_) => None,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fault(fault) => Self::Fault(fault),
            ReadError::Rejection(rejection) => {
                unreachable!("the store's own reads are never refused: {rejection:?}")
            }
        }
    }
}

impl From<PageFailure> for Failure {
    fn from(failure: PageFailure) -> Self {
        Self::Page(failure)
    }
}

impl From<PageFault> for Failure {
    fn from(fault: PageFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// The writer half of the store.
pub struct Engine {
    identity: Identity,
    working: Working,
    compaction: Compaction,
    applied: LogIndex,
    term: Term,
    /// The epoch in which the trees are changed; the one before is the newest published.
    epoch: Epoch,
    local_reads: bool,
    /// Whether something was applied or swept since the last view.
    changed: bool,
    run: Option<BatchRun>,
    /// The batch under way cannot go on before there are more free pages.
    is_apply_starved: bool,
    /// Nor can the sweep.
    is_sweep_starved: bool,
    /// Set by the first fault: the trees may hold half a command.
    is_poisoned: bool,
    /// Bytes of batches that were admitted and not yet begun.
    admitted_size_bytes: usize,
    /// The last change that was taken over from another store.
    import_last: Change,
    publisher: Publisher<View>,
    readers: Arc<[PageReader]>,
    checkpoints: Checkpoints,
    defrag: Defrag,
    install: Option<Install>,
}

impl Engine {
    /// Makes an empty store. Nothing is on the disk before the first checkpoint.
    ///
    /// # Errors
    /// A file cannot be mapped, or the configuration is impossible.
    pub fn create(
        files: EngineFiles,
        config: EngineConfig,
        identity: Identity,
    ) -> Result<Self, Failure> {
        let shards = files::create(files, config)?;
        let working = Working::new(shards, Revision::EMPTY_STORE, Revision::NEVER_COMPACTED);
        let durable = checkpoint::Durable {
            epoch: Epoch(0),
            applied: LogIndex(0),
            term: Term(0),
            slot_next: 0,
        };
        Self::assemble(identity, working, Sweep::never(), Epoch(0), durable)
    }

    /// Opens the newest durable checkpoint of a store. Nothing is rebuilt: pages are read when
    /// they are first touched.
    ///
    /// # Errors
    /// A file cannot be mapped, no checkpoint counts, or it is of another configuration.
    pub fn open(files: EngineFiles, config: EngineConfig) -> Result<Self, Failure> {
        let opened = files::open(files, config)?;
        let first = &opened.shards[0];
        let sweep = system::sweep(&first.file, &first.roots)?;
        let alarms = AlarmGate::load(&first.file, &first.roots)?;
        let mut working = Working::new(opened.shards, opened.revision, sweep.target);
        working.alarms = alarms;
        let reach = working.size_bytes();
        working.size_bytes_noted = opened.size_bytes.filter(|noted| *noted < reach);
        Self::assemble(opened.identity, working, sweep, opened.epoch, opened.durable)
    }

    fn assemble(
        identity: Identity,
        working: Working,
        sweep: Sweep,
        published: Epoch,
        durable: checkpoint::Durable,
    ) -> Result<Self, Failure> {
        let readers: Arc<[PageReader]> =
            working.shards.iter().map(|shard| shard.file.reader()).collect();
        let (applied, term) = (durable.applied, durable.term);
        let compaction = Compaction::new(sweep);
        let view = view_of(&working, &compaction, &readers, published, (applied, term), false);
        let publisher = Publisher::new(Box::new(view), published, READ_SLOTS_MAX);
        for shard in &working.shards {
            assert_eq!(shard.file.working_epoch(), published.next());
        }
        Ok(Self {
            identity,
            working,
            compaction,
            applied,
            term,
            epoch: published.next(),
            local_reads: false,
            changed: false,
            run: None,
            is_apply_starved: false,
            is_sweep_starved: false,
            is_poisoned: false,
            admitted_size_bytes: 0,
            import_last: Change::default(),
            publisher,
            readers,
            checkpoints: Checkpoints::new(durable),
            defrag: Defrag::default(),
            install: None,
        })
    }

    /// Whose store it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The last entry that was applied; after `open`, the one the checkpoint holds.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.term)
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.working.revision
    }

    /// The compacted revision; -1 if the store was never compacted.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.compaction.target()
    }

    /// Asks whether a batch of this size may be admitted. Batches that were admitted and not yet
    /// begun are counted with it.
    ///
    /// This is what keeps a store from filling its disk. What a batch needs exactly depends on
    /// where its keys fall; apply looks again, slice by slice, and waits for growth where it must.
    ///
    /// # Errors
    /// The files have no room for it now. With `may_grow` the growth is among the disk operations,
    /// and asking again after it has ended is worthwhile.
    pub fn reserve_for(&mut self, batch_size_bytes: usize) -> Result<(), NoSpace> {
        self.reserve(batch_size_bytes, Need::Stores)
    }

    /// The same for a batch that deletes or compacts, or that the member cannot serve without: it
    /// may take the room that [`Engine::reserve_for`] leaves behind. In a tree that copies what it
    /// changes, making room takes room first.
    ///
    /// # Errors
    /// As above.
    pub fn reserve_last_for(&mut self, batch_size_bytes: usize) -> Result<(), NoSpace> {
        self.reserve(batch_size_bytes, Need::Frees)
    }

    fn reserve(&mut self, batch_size_bytes: usize, need: Need) -> Result<(), NoSpace> {
        let size_bytes = self.admitted_size_bytes.saturating_add(batch_size_bytes);
        let slice = (apply::SLICE_CHANGES_MAX, apply::SLICE_SIZE_BYTES_MAX);
        self.working.admit(slice, size_bytes, need)?;
        self.admitted_size_bytes = size_bytes;
        Ok(())
    }

    /// A batch that was admitted will not come after all.
    pub fn cancel_reservation(&mut self, batch_size_bytes: usize) {
        self.admitted_size_bytes = self.admitted_size_bytes.saturating_sub(batch_size_bytes);
    }

    /// What was admitted is no more this store's owner's business: another member decides now what
    /// is applied.
    pub fn cancel_reservations(&mut self) {
        self.admitted_size_bytes = 0;
    }

    /// Grows with every change of what the store says about its members, published or not.
    #[must_use]
    pub fn membership_number(&self) -> u64 {
        self.working.membership_number
    }

    /// Begins to apply a committed entry. The batch before must be done.
    pub fn begin_batch(&mut self, index: LogIndex, term: Term, batch: &Batch) {
        assert!(self.run.is_none(), "entry {index} begun inside entry {}", self.applied);
        self.note_entry(index, term);
        self.cancel_reservation(batch.bytes().len());
        self.run = Some(BatchRun::new(batch.clone(), term));
    }

    /// An entry without commands: raft's own. Moves `applied` and nothing else.
    pub fn apply_empty(&mut self, index: LogIndex, term: Term) {
        assert!(self.run.is_none(), "entry {index} inside entry {}", self.applied);
        self.note_entry(index, term);
    }

    /// A change of the cluster's configuration: raft's own state, kept for the next start.
    ///
    /// # Errors
    /// The tree could not be read or changed.
    pub fn apply_conf_state(
        &mut self,
        index: LogIndex,
        term: Term,
        conf_state: &[u8],
    ) -> Result<(), Failure> {
        self.apply_empty(index, term);
        system::put_conf_state(&mut self.working.shards[0], conf_state)?;
        Ok(())
    }

    /// What was last given to [`Engine::apply_conf_state`].
    ///
    /// # Errors
    /// The tree could not be read.
    pub fn conf_state(&self) -> Result<Option<Vec<u8>>, Failure> {
        let (pages, roots) = self.working.shard(0);
        Ok(system::conf_state(pages, roots)?)
    }

    fn note_entry(&mut self, index: LogIndex, term: Term) {
        assert!(!self.is_poisoned, "the trees may hold half a command");
        assert!(index > self.applied, "entry {index} applied after {}", self.applied);
        assert!(term >= self.term, "term {term} applied after {}", self.term);
        (self.applied, self.term) = (index, term);
        self.changed = true;
    }

    /// What the next published view says about reads that need nobody's consent.
    pub fn set_local_reads(&mut self, local_reads: bool) {
        self.changed |= self.local_reads != local_reads;
        self.local_reads = local_reads;
    }

    /// Makes all that was applied visible. Not inside a batch.
    pub fn publish(&mut self) {
        assert!(self.run.is_none(), "publishing inside entry {}", self.applied);
        assert!(self.working.is_between_commands());
        if !self.changed {
            return;
        }
        let (epoch, applied) = (self.epoch, (self.applied, self.term));
        let (working, compaction) = (&self.working, &self.compaction);
        let view = view_of(working, compaction, &self.readers, epoch, applied, self.local_reads);
        self.working.note_size(view.size_bytes);
        self.publisher.publish(Box::new(view), epoch);
        self.epoch = epoch.next();
        let protected = self.publisher.protected();
        for shard in &mut self.working.shards {
            shard.file.advance(self.epoch);
            shard.file.reclaim(&protected);
        }
        self.changed = false;
    }

    /// Whether events are to be kept, and whether with the records before.
    pub fn set_events_wanted(&mut self, wanted: bool, prev_wanted: bool) {
        let revision = self.working.revision;
        self.working.events.set_wanted(wanted, prev_wanted, revision);
    }

    /// The events since they were last taken; `None` if nothing changed or nobody wants any.
    pub fn take_events(&mut self) -> Option<Arc<EventBatch>> {
        assert!(self.run.is_none(), "a batch's events are told together");
        self.working.events.take(self.working.revision).map(Arc::new)
    }

    /// What happened to leases since it was last taken, in the order of the log.
    pub fn take_lease_changes(&mut self) -> Vec<LeaseChange> {
        std::mem::take(&mut self.working.lease_changes)
    }

    /// Works on a scheduled compaction, touching about `budget` changes, and publishes what it did.
    /// Not inside a batch. Says whether there is more to do.
    ///
    /// # Errors
    /// The tree could not be read or changed.
    pub fn background_step(&mut self, budget: usize) -> Result<bool, Failure> {
        assert!(self.run.is_none(), "sweeping inside entry {}", self.applied);
        assert!(!self.is_poisoned, "the trees may hold half a command");
        let mut budget = budget.clamp(1, apply::SLICE_CHANGES_MAX);
        self.is_sweep_starved = false;
        if self.compaction.is_finished() {
            return Ok(false);
        }
        // On a full disk the sweep goes on in smaller steps: it is what makes room.
        while self.working.reserve(budget, 0).is_err() {
            if budget == 1 {
                self.is_sweep_starved = true;
                return Ok(true);
            }
            budget = budget.div_ceil(4);
        }
        self.is_poisoned = true;
        let before = self.history_len();
        self.changed |= self.compaction.step(&mut self.working, budget)?;
        self.working.activity.swept_changes += before.saturating_sub(self.history_len());
        self.is_poisoned = false;
        self.publish();
        Ok(!self.compaction.is_finished())
    }

    /// What was applied and swept since the engine was made.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.working.activity
    }

    fn history_len(&self) -> u64 {
        self.working.shards.iter().map(|shard| shard.roots.revisions.count).sum()
    }

    /// Whether the batch under way waits for free pages: for a file to grow, or for a checkpoint
    /// that gives pages back. Until then a step changes nothing.
    #[must_use]
    pub fn is_apply_starved(&self) -> bool {
        self.is_apply_starved
    }

    /// Whether the sweep waits for free pages.
    #[must_use]
    pub fn is_sweep_starved(&self) -> bool {
        self.is_sweep_starved
    }

    /// Up to where history is swept away: a physical compaction is done when this has reached it.
    #[must_use]
    pub fn swept(&self) -> Revision {
        self.compaction.swept()
    }

    /// Whether the sweep of the last accepted compaction is finished.
    #[must_use]
    pub fn compaction_is_finished(&self) -> bool {
        self.compaction.is_finished()
    }

    /// A read half for another core.
    ///
    /// # Panics
    /// If more handles are in use than there are slots: cores are fewer.
    #[must_use]
    pub fn read_handle(&self) -> ReadHandle {
        ReadHandle::new(self.publisher.pins()).expect("there are more slots than cores")
    }

    /// The newest published state, for the writer's own questions.
    #[must_use]
    pub fn newest_view(&self) -> &View {
        self.publisher.current()
    }

    /// The addresses of the shards' pages, in their order: a memory fault there is a fault of the
    /// file.
    pub fn addresses(&self) -> impl Iterator<Item = Range<usize>> {
        self.working.shards.iter().map(|shard| shard.file.addresses())
    }

    /// Bytes that a checkpoint begun now would have to write, about.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.working.shards.iter().map(|shard| shard.file.dirty_size_bytes()).sum()
    }

    /// What the files take on the disk, with what they have grown by ahead of its use.
    #[must_use]
    pub fn file_size_bytes(&self) -> u64 {
        self.working.shards.iter().map(|shard| shard.file.size_bytes()).sum()
    }

    /// How far they were ever used, until they are shortened.
    #[must_use]
    pub fn reach_bytes(&self) -> u64 {
        self.working.shards.iter().map(|shard| shard.file.reach_bytes()).sum()
    }

    /// Goes on with the batch, touching about `budget` keys. Appends one answer a command, in
    /// order; a budget may end inside a command. May also stop because a file has to grow first:
    /// then the growth is among the disk operations, and [`Engine::is_apply_starved`] says so.
    ///
    /// # Errors
    /// The tree could not be read or changed. The engine refuses to go on afterwards.
    pub fn apply_step(
        &mut self,
        budget: usize,
        answers: &mut Vec<Answer>,
    ) -> Result<Progress, Failure> {
        assert!(!self.is_poisoned, "the trees may hold half a command");
        let Some(mut run) = self.run.take() else { return Ok(Progress::Done) };
        self.is_poisoned = true;
        let step = run.step(&mut self.working, &mut self.compaction, budget.max(1), answers)?;
        self.is_poisoned = false;
        self.is_apply_starved = step == Step::Starved;
        if step == Step::Done {
            return Ok(Progress::Done);
        }
        self.run = Some(run);
        Ok(Progress::More)
    }
}

fn view_of(
    working: &Working,
    compaction: &Compaction,
    readers: &Arc<[PageReader]>,
    epoch: Epoch,
    (applied, term): (LogIndex, Term),
    local_reads: bool,
) -> View {
    View {
        epoch,
        revision: working.revision,
        compacted: working.compacted,
        applied,
        term,
        local_reads,
        size_bytes: working.size_bytes(),
        in_use_bytes: working.shards.iter().map(|shard| shard.file.in_use_bytes()).sum(),
        roots: working.shards.iter().map(|shard| shard.roots).collect(),
        readers: Arc::clone(readers),
        compaction_hashes: Arc::clone(compaction.hashes()),
    }
}
