//! The working state: what the writer has applied and not yet published.
//!
//! Invariants:
//! - `changes` counts those of the command being applied; between commands it is zero.
//! - A command's changes share the revision after `revision` and are numbered in the order in which
//!   they are made; the revision is used up only if there was a change.

use crate::activity::Activity;
use crate::alarm::AlarmGate;
use crate::answer::OwnedRecord;
use crate::command::PutRef;
use crate::events::EventBuilder;
use crate::ids::{Change, LeaseId, Revision};
use crate::lease::{self, LeaseChange};
use crate::page::{NoSpace, PageFault, PageFile};
use crate::shard::Shard;
use crate::store::{ShardRoots, Store, shard_of};

/// What waits in the ordinary course of things: one part in so many of what is in use, and some.
const WAITING_PART: u64 = 8;
const WAITING_SIZE_BYTES_MIN: u64 = 1 << 20;

/// What a batch that asks for room is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It stores something. Room for a batch that frees some is left behind.
    Stores,
    /// It frees something, and may take the last room for it.
    Frees,
}

/// The state commands are applied to.
pub(crate) struct Working {
    pub(crate) shards: Vec<Shard>,
    /// The revision of the last command that changed something.
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) events: EventBuilder,
    /// What happened to leases since it was last taken.
    pub(crate) lease_changes: Vec<LeaseChange>,
    /// What the alarms that stand refuse.
    pub(crate) alarms: AlarmGate,
    pub(crate) activity: Activity,
    /// What the store counts while files have a second store that is built beside it; and at
    /// least, until a defragmentation has made them shorter by one that is gone. To count either
    /// would stop the cluster's writes to bring one member up.
    pub(crate) size_bytes_noted: Option<u64>,
    /// A second store is built.
    pub(crate) is_installing: bool,
    /// Grows with every change of what the store says about its members.
    pub(crate) membership_number: u64,
    changes: i64,
}

impl Working {
    pub(crate) fn new(shards: Vec<Shard>, revision: Revision, compacted: Revision) -> Self {
        let events = EventBuilder::new(revision);
        Self {
            shards,
            revision,
            compacted,
            events,
            lease_changes: Vec::new(),
            alarms: AlarmGate::default(),
            activity: Activity::default(),
            size_bytes_noted: None,
            is_installing: false,
            membership_number: 0,
            changes: 0,
        }
    }

    /// Stores a value as the next change of the command.
    pub(crate) fn put(&mut self, put: &PutRef<'_>) -> Result<Option<OwnedRecord>, PageFault> {
        let shard = self.shard_of(put.key);
        let change = self.next_change();
        let prev = self.shards[shard].put(put, change, &mut self.events)?;
        self.activity.note_put(put);
        self.changes += 1;
        Ok(prev)
    }

    /// Deletes a key as the next change of the command; `None` and no change if there is none.
    pub(crate) fn delete(
        &mut self,
        key: &[u8],
        prev_kv: bool,
    ) -> Result<Option<Option<OwnedRecord>>, PageFault> {
        let shard = self.shard_of(key);
        let change = self.next_change();
        let deleted = self.shards[shard].delete(key, prev_kv, change, &mut self.events)?;
        if deleted.is_some() {
            self.changes += 1;
        }
        Ok(deleted)
    }

    /// Ends a command; answers with the store's revision after it.
    pub(crate) fn finish_command(&mut self) -> Revision {
        if self.changes > 0 {
            self.revision = self.revision.next();
            self.changes = 0;
        }
        self.revision
    }

    /// Whether a key may be attached to a lease: to none, or to one that exists.
    pub(crate) fn lease_is_known(&self, lease: LeaseId) -> Result<bool, PageFault> {
        if lease == LeaseId(0) {
            return Ok(true);
        }
        let shard = &self.shards[0];
        Ok(lease::get(&shard.file, &shard.roots, lease)?.is_some())
    }

    /// What the quota bounds.
    pub(crate) fn size_bytes(&self) -> u64 {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum::<u64>();
        let reach = sum(|shard| shard.file.reach_bytes());
        let Some(noted) = self.size_bytes_noted else { return reach };
        if self.is_installing {
            return reach.min(noted);
        }
        let held =
            sum(|shard| shard.file.in_use_bytes().saturating_sub(shard.file.waiting_size_bytes()));
        reach.min(noted.max(held))
    }

    /// A view tells this size. What was told once is not taken back before the files are shorter.
    pub(crate) fn note_size(&mut self, size_bytes: u64) {
        if self.size_bytes_noted.is_none() || self.is_installing {
            return;
        }
        // A file that is being cut off may have to stay as it is.
        if self.shards.iter().any(|shard| shard.file.is_shortening()) {
            return;
        }
        let reach = self.shards.iter().map(|shard| shard.file.reach_bytes()).sum::<u64>();
        self.size_bytes_noted = (size_bytes < reach).then_some(size_bytes);
    }

    /// Whether the files may be longer for a store that is gone, and hardly anything in them waits
    /// for a reader or a checkpoint to let it go: a defragmentation can put an end to that.
    pub(crate) fn is_owed_defrag(&self) -> bool {
        let waits_little = |shard: &Shard| {
            let (waiting, in_use) = (shard.file.waiting_size_bytes(), shard.file.in_use_bytes());
            waiting <= in_use / WAITING_PART + WAITING_SIZE_BYTES_MIN
        };
        let is_noted = self.size_bytes_noted.is_some() && !self.is_installing;
        is_noted && self.shards.iter().all(waits_little)
    }

    /// Looks whether every shard has the free pages that so many changes, of commands of this size,
    /// can need at most. What is left behind them is enough to begin a checkpoint, which gives
    /// pages back.
    pub(crate) fn reserve(&mut self, changes: usize, size_bytes: usize) -> Result<(), NoSpace> {
        let reserve = |shard: &mut Shard| {
            let needed = shard.pages_needed(changes, size_bytes);
            shard.file.reserve(needed.plus(shard.checkpoint_need()))
        };
        self.shards.iter_mut().try_for_each(reserve)
    }

    /// Looks for room for the worst slice of so many changes and bytes, and for the usual needs of
    /// commands that wait behind it. Behind what stores, room for a slice that frees is left.
    pub(crate) fn admit(
        &mut self,
        (changes, size_bytes): (usize, usize),
        waiting_size_bytes: usize,
        need: Need,
    ) -> Result<(), NoSpace> {
        let admit = |shard: &mut Shard| {
            let mut needed = shard.pages_needed(changes, size_bytes);
            needed = needed.plus(Shard::pages_usually_needed(waiting_size_bytes));
            if need == Need::Stores {
                needed = needed.plus(shard.pages_needed(changes, 0));
            }
            shard.file.reserve(needed.plus(shard.checkpoint_need()))
        };
        self.shards.iter_mut().try_for_each(admit)
    }

    /// Whether no command is half done.
    pub(crate) fn is_between_commands(&self) -> bool {
        self.changes == 0
    }

    pub(crate) fn shard_of(&self, key: &[u8]) -> usize {
        shard_of(key, self.shards.len())
    }

    fn next_change(&self) -> Change {
        Change { main: self.revision.next(), sub: self.changes }
    }
}

impl Store for Working {
    type Pages = PageFile;

    fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn shard(&self, shard: usize) -> (&PageFile, &ShardRoots) {
        let shard = &self.shards[shard];
        (&shard.file, &shard.roots)
    }

    fn revision(&self) -> Revision {
        if self.changes > 0 { self.revision.next() } else { self.revision }
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }
}
