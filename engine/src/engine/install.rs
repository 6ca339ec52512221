//! A store that comes from another member, built beside the one that is served.
//!
//! The owner begins with the entry that raft announced, hands over the stream as it comes
//! ([`crate::transfer`]), and finishes or gives up. Meanwhile the store is served, published and
//! checkpointed as it is. The new trees are built in the same files, out of pages that no view and
//! no checkpoint counts; inside a step they stand where the working trees stand. Finishing puts
//! them there for good, gives up everything else, and publishes.
//!
//! Invariants:
//! - Whatever is wrong with a stream, and a disk without room for it, is a refusal by rule; the
//!   served store is as it was.
//! - A file that is opened after a crash holds the old store or the new one, whole: what is built
//!   counts for a checkpoint only once it is published.
//! - The memory of an install is bounded: what it has changed goes to the disk with checkpoints,
//!   and beyond a bound a step waits for one.

use std::mem;

use crate::alarm::AlarmGate;
use crate::compaction::{Compaction, Sweep};
use crate::hash::KeyValueHash;
use crate::ids::{Change, LeaseId, LogIndex, Revision, Term};
use crate::limits::{COMPACTION_HASHES_MAX, keys_for_bytes};
use crate::page::{Epoch, PageFault};
use crate::range::Record;
use crate::store::ShardRoots;
use crate::system;
use crate::transfer::{
    self, Beginning, InstallRule, PutRecord, TransferRecord, crc_with, fact_key, put_fact,
};
use crate::working::Working;

use super::files::empty_roots;
use super::{Engine, Failure};

/// Changed pages are private memory until a checkpoint has written them: beyond this much a step
/// waits for it. The less it is the sooner the same memory is used again, which is in the
/// processor's caches then, and on a virtual machine in the host's memory; twenty-odd megabytes are
/// several writes and a sync ahead of the disk.
const DIRTY_SIZE_BYTES_MAX: u64 = 24 << 20;
/// And beyond this much one is to begin, so that the disk writes what was built while the rest is.
const DIRTY_SIZE_BYTES_SOON: u64 = DIRTY_SIZE_BYTES_MAX / 2;
/// Records for which room is looked for at once, and their bytes; a longer one stands alone.
const SLICE_RECORDS_MAX: usize = 64;
const SLICE_SIZE_BYTES_MAX: usize = 64 << 10;
/// What raft says of itself: some ten bytes for each member.
const CONF_STATE_SIZE_BYTES_MAX: usize = 64 << 10;
/// Entries that the end of a stream brings besides: the state of compaction, raft's own, and the
/// entry of the log.
const END_CHANGES: usize = 3;

/// How a step of an install ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallStep {
    /// Bytes of whole records that were taken off the front; the rest is to be given again, with
    /// what follows it.
    pub taken_size_bytes: usize,
    /// Why it ended.
    pub state: InstallState,
}

/// Why a step of an install ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallState {
    /// The budget is used up, or the next record is not there as a whole.
    More,
    /// The stream is at its end: [`Engine::finish_install`] is next.
    Complete,
    /// A file has to grow first, or a checkpoint has to be begun or to end
    /// ([`Engine::install_wants_checkpoint`]). Then the same bytes are to be given again.
    Waiting,
    /// The stream cannot be installed: it is to be given up.
    Refused(InstallRule),
}

/// An install under way.
pub(super) struct Install {
    /// The entry it stands for, and raft's state as of it.
    applied: LogIndex,
    term: Term,
    conf_state: Vec<u8>,
    /// The trees being built.
    roots: Vec<ShardRoots>,
    beginning: Option<Beginning>,
    hashes: Vec<KeyValueHash>,
    /// The key of the last fact.
    fact_last: Vec<u8>,
    change_last: Option<Change>,
    changes: u64,
    crc: u32,
    is_complete: bool,
    /// Why nothing more is taken.
    refused: Option<InstallRule>,
    /// The epoch that a checkpoint has to reach before the next step.
    awaits: Option<Epoch>,
    /// There were not enough pages, so that the checkpoint has to be durable to be of use.
    is_starved: bool,
}

impl Engine {
    /// Begins to install the store of another member, as it was after this entry of the log.
    /// `conf_state` is raft's own state as of that entry. The install before must be at an end.
    ///
    /// # Errors
    /// Nothing can be installed there.
    pub fn begin_install(
        &mut self,
        index: LogIndex,
        term: Term,
        conf_state: &[u8],
    ) -> Result<(), InstallRule> {
        assert!(self.install.is_none(), "an install inside of another");
        if index <= self.applied || term < self.term {
            return Err(InstallRule::Position);
        }
        if conf_state.len() > CONF_STATE_SIZE_BYTES_MAX {
            return Err(InstallRule::ConfState);
        }
        // What is built beside the store does not count for the quota.
        self.working.size_bytes_noted = Some(self.newest_view().size_bytes);
        self.working.is_installing = true;
        for shard in &mut self.working.shards {
            shard.file.begin_aside();
        }
        self.install = Some(Install {
            applied: index,
            term,
            conf_state: conf_state.to_vec(),
            roots: vec![empty_roots(); self.working.shards.len()],
            beginning: None,
            hashes: Vec::new(),
            fact_last: Vec::new(),
            change_last: None,
            changes: 0,
            crc: 0,
            is_complete: false,
            refused: None,
            awaits: None,
            is_starved: false,
        });
        Ok(())
    }

    /// The entry of the install under way.
    #[must_use]
    pub fn installing(&self) -> Option<(LogIndex, Term)> {
        self.install.as_ref().map(|install| (install.applied, install.term))
    }

    /// The entry up to which this store came from another member, if it did: what the log holds
    /// before it is not the history of this store.
    ///
    /// # Errors
    /// The tree could not be read.
    pub fn installed(&self) -> Result<Option<(LogIndex, Term)>, Failure> {
        let shard = &self.working.shards[0];
        Ok(system::installed(&shard.file, &shard.roots)?)
    }

    /// Whether the install cannot go on for long without a checkpoint; the owner begins it.
    #[must_use]
    pub fn install_wants_checkpoint(&self) -> bool {
        let Some(install) = &self.install else { return false };
        let waits = install.awaits.is_some_and(|epoch| self.durable_epoch() < epoch);
        waits && self.install_waits() && !self.is_checkpointing() && !self.has_copies_to_drop()
    }

    /// Whether steps will soon change nothing, or do so now.
    fn install_waits(&self) -> bool {
        let is_starved = self.install.as_ref().is_some_and(|install| install.is_starved);
        is_starved || self.dirty_bytes() >= DIRTY_SIZE_BYTES_SOON
    }

    /// Goes on with the install, touching about `budget` records. Not inside a batch. The bytes
    /// begin where those that were taken before have ended.
    ///
    /// # Errors
    /// The trees could not be read or changed.
    pub fn install_records(&mut self, bytes: &[u8], budget: usize) -> Result<InstallStep, Failure> {
        assert!(self.run.is_none(), "installing inside entry {}", self.applied);
        assert!(!self.is_poisoned, "the trees may hold half a command");
        let (mut taken, mut left) = (0, budget.max(1));
        let state = loop {
            if let Some(state) = self.install_end() {
                break state;
            }
            if left == 0 {
                break InstallState::More;
            }
            let mut slice = match Slice::read(&bytes[taken..], left) {
                Ok(slice) if slice.records.is_empty() => break InstallState::More,
                Ok(slice) => slice,
                Err(rule) => break self.refuse(rule),
            };
            let mut end = self.install_slice(&slice)?;
            if end == SliceEnd::Starved {
                // One record may fit where many do not.
                slice.cut_to_first();
                end = self.install_slice(&slice)?;
            }
            match end {
                SliceEnd::Taken => {}
                SliceEnd::Starved => break self.starve(),
                SliceEnd::Refused(rule) => break self.refuse(rule),
            }
            taken += slice.size_bytes;
            left = left.saturating_sub(slice.cost());
        };
        Ok(InstallStep { taken_size_bytes: taken, state })
    }

    /// Why a step ends before it has looked at a record, if it does.
    fn install_end(&mut self) -> Option<InstallState> {
        let install = self.install();
        if let Some(rule) = install.refused {
            return Some(InstallState::Refused(rule));
        }
        if install.is_complete {
            return Some(InstallState::Complete);
        }
        let dirty_bytes = self.dirty_bytes();
        if dirty_bytes >= DIRTY_SIZE_BYTES_SOON {
            self.await_checkpoint();
        }
        (dirty_bytes >= DIRTY_SIZE_BYTES_MAX).then_some(InstallState::Waiting)
    }

    fn refuse(&mut self, rule: InstallRule) -> InstallState {
        self.install().refused = Some(rule);
        InstallState::Refused(rule)
    }

    fn install(&mut self) -> &mut Install {
        self.install.as_mut().expect("an install is under way")
    }

    /// Publishes, so that a checkpoint writes what was built so far.
    fn await_checkpoint(&mut self) {
        let durable = self.durable_epoch();
        if self.install().awaits.is_none_or(|epoch| durable >= epoch) {
            self.changed = true;
            self.publish();
            self.install().awaits = Some(self.publisher.current().epoch);
        }
    }

    /// There are not enough pages. Whether waiting is of use: for growth, or for a checkpoint that
    /// gives back what was given up until now.
    fn starve(&mut self) -> InstallState {
        let durable = self.durable_epoch();
        let is_growing = self.working.shards.iter().any(|shard| shard.file.is_growing());
        // After a growth that failed another try may be under way, as often as the owner likes.
        if is_growing && self.growth_failure().is_none() {
            return InstallState::Waiting;
        }
        let was_starved = mem::replace(&mut self.install().is_starved, true);
        if was_starved && self.install().awaits.is_some_and(|epoch| durable >= epoch) {
            return self.refuse(InstallRule::NoSpace);
        }
        if !was_starved {
            self.install().awaits = None;
        }
        self.await_checkpoint();
        InstallState::Waiting
    }

    fn install_slice(&mut self, slice: &Slice<'_>) -> Result<SliceEnd, Failure> {
        let install = self.install.as_mut().expect("an install is under way");
        let conf_state = install.conf_state.len();
        swap_trees(&mut self.working, install, true);
        let count = slice.records.len() + END_CHANGES;
        let end = match self.working.reserve(count, slice.size_bytes + conf_state) {
            Err(_) => Ok(SliceEnd::Starved),
            Ok(()) => install.take_slice(slice, &mut self.working),
        };
        swap_trees(&mut self.working, install, false);
        let end = end.inspect_err(|_| self.is_poisoned = true)?;
        if end == SliceEnd::Taken {
            install.is_starved = false;
        }
        Ok(end)
    }

    /// Ends the install: the store is the one that came, and its view is published. The leases are
    /// to be read anew by whoever keeps their clocks, watches find a gap. A defragmentation is to
    /// follow, for the files hold the pages of the store that is gone. Until one has dealt with
    /// them, what the quota bounds is what the store holds, and as much as the one that came at
    /// least.
    ///
    /// A crash finds the old store until a checkpoint of this view is durable.
    ///
    /// # Errors
    /// The trees could not be read.
    pub fn finish_install(&mut self) -> Result<Result<(), InstallRule>, Failure> {
        assert!(self.run.is_none(), "installing inside entry {}", self.applied);
        assert!(!self.is_poisoned, "the trees may hold half a command");
        let install = self.install.as_ref().expect("an install is under way");
        let Some(beginning) = install.beginning.filter(|_| install.is_complete) else {
            return Ok(Err(install.refused.unwrap_or(InstallRule::Unfinished)));
        };
        if install.applied <= self.applied || install.term < self.term {
            return Ok(Err(InstallRule::Position));
        }
        let alarms = AlarmGate::load(&self.working.shards[0].file, &install.roots[0])?;
        let install = self.install.take().expect("it was there a moment ago");
        // The pages of the store that is gone still make the files longer.
        let built_bytes = self.working.shards.iter().map(|shard| shard.file.aside_bytes()).sum();
        self.working.size_bytes_noted = Some(built_bytes);
        self.working.is_installing = false;
        for (shard, roots) in self.working.shards.iter_mut().zip(install.roots) {
            shard.roots = roots;
            shard.file.keep_aside();
        }
        let Beginning { revision, compacted } = beginning;
        self.working.revision = revision;
        self.working.compacted = compacted;
        self.working.alarms = alarms;
        self.working.membership_number += 1;
        self.working.events.lose();
        self.working.lease_changes.clear();
        self.compaction = Compaction::with_hashes(sweep_to(compacted), &install.hashes);
        (self.applied, self.term) = (install.applied, install.term);
        (self.is_sweep_starved, self.changed) = (false, true);
        self.publish();
        Ok(Ok(()))
    }

    /// Gives an install up; without one it does nothing.
    pub fn abort_install(&mut self) {
        if self.install.take().is_none() {
            return;
        }
        for shard in &mut self.working.shards {
            shard.file.drop_aside();
        }
        self.working.is_installing = false;
        // What views say of sizes has changed.
        self.changed = true;
    }
}

/// The state of a compaction whose sweep was finished on the way.
fn sweep_to(compacted: Revision) -> Sweep {
    Sweep::imported(compacted, compacted).expect("a stream's revisions were compared")
}

/// Puts the trees of the install where the working trees stand, or back.
fn swap_trees(working: &mut Working, install: &mut Install, is_inside: bool) {
    for (shard, roots) in working.shards.iter_mut().zip(&mut install.roots) {
        mem::swap(&mut shard.roots, roots);
        shard.file.set_noting_aside(is_inside);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SliceEnd {
    Taken,
    /// There were not enough pages for all of it; nothing was changed.
    Starved,
    Refused(InstallRule),
}

/// Some records, and where in the stream they stand.
struct Slice<'a> {
    bytes: &'a [u8],
    records: Vec<(TransferRecord<'a>, usize)>,
    size_bytes: usize,
}

impl<'a> Slice<'a> {
    /// Reads whole records off the front; none if the first is not there as a whole.
    fn read(bytes: &'a [u8], records_max: usize) -> Result<Self, InstallRule> {
        let mut slice = Self { bytes, records: Vec::new(), size_bytes: 0 };
        while slice.records.len() < records_max.min(SLICE_RECORDS_MAX) {
            let Some((record, size_bytes)) = TransferRecord::decode(&bytes[slice.size_bytes..])?
            else {
                break;
            };
            if !slice.records.is_empty() && slice.size_bytes + size_bytes > SLICE_SIZE_BYTES_MAX {
                break;
            }
            slice.size_bytes += size_bytes;
            let is_last = matches!(record, TransferRecord::End { .. });
            slice.records.push((record, size_bytes));
            if is_last {
                break;
            }
        }
        Ok(slice)
    }

    fn cut_to_first(&mut self) {
        self.records.truncate(1);
        self.size_bytes = self.records.iter().map(|(_, size_bytes)| size_bytes).sum();
    }

    fn cost(&self) -> usize {
        self.records.len() + keys_for_bytes(self.size_bytes)
    }
}

impl Install {
    fn take_slice(
        &mut self,
        slice: &Slice<'_>,
        working: &mut Working,
    ) -> Result<SliceEnd, PageFault> {
        let mut at = 0;
        for (record, size_bytes) in &slice.records {
            if let Err(rule) = self.take(record, working)? {
                return Ok(SliceEnd::Refused(rule));
            }
            self.crc = crc_with(self.crc, &slice.bytes[at..at + size_bytes]);
            at += size_bytes;
        }
        Ok(SliceEnd::Taken)
    }

    /// Takes a record over. The working trees are those of the install.
    fn take(
        &mut self,
        record: &TransferRecord<'_>,
        working: &mut Working,
    ) -> Result<Result<(), InstallRule>, PageFault> {
        if self.is_complete {
            return Ok(Err(InstallRule::Order));
        }
        let Some(beginning) = self.beginning else {
            let checked = Beginning::check(record, (self.applied, self.term));
            return Ok(checked.map(|beginning| self.beginning = Some(beginning)));
        };
        match record {
            TransferRecord::Put(PutRecord { change, .. })
            | TransferRecord::Delete { change, .. } => {
                let change = *change;
                if self.change_last.is_some_and(|last| change <= last) {
                    return Ok(Err(InstallRule::Order));
                }
                if change.main > beginning.revision {
                    return Ok(Err(InstallRule::Revision));
                }
                let taken = take_change(record, working)?;
                (self.change_last, self.changes) = (Some(change), self.changes + 1);
                Ok(taken)
            }
            TransferRecord::End { changes, crc } => {
                if (*changes, *crc) != (self.changes, self.crc) {
                    return Ok(Err(InstallRule::Checksum));
                }
                self.end(beginning, working)?;
                Ok(Ok(()))
            }
            TransferRecord::Begin { .. } => Ok(Err(InstallRule::Order)),
            TransferRecord::CompactionHash(hash) => Ok(self.take_hash(*hash, beginning)),
            _ => self.take_fact(record, working),
        }
    }

    fn take_hash(&mut self, hash: KeyValueHash, beginning: Beginning) -> Result<(), InstallRule> {
        if !self.fact_last.is_empty() || self.change_last.is_some() {
            return Err(InstallRule::Order);
        }
        if self.hashes.len() == COMPACTION_HASHES_MAX || hash.revision > beginning.revision {
            return Err(InstallRule::Fact);
        }
        self.hashes.push(hash);
        Ok(())
    }

    fn take_fact(
        &mut self,
        record: &TransferRecord<'_>,
        working: &mut Working,
    ) -> Result<Result<(), InstallRule>, PageFault> {
        let key = fact_key(record).expect("what is nothing else is a fact");
        if self.change_last.is_some() || key <= self.fact_last {
            return Ok(Err(InstallRule::Order));
        }
        let taken = put_fact(record, &key, working)?;
        self.fact_last = key;
        Ok(taken)
    }

    fn end(&mut self, beginning: Beginning, working: &mut Working) -> Result<(), PageFault> {
        let shard = &mut working.shards[0];
        if beginning.compacted > Revision::NEVER_COMPACTED {
            system::put_sweep(shard, &sweep_to(beginning.compacted))?;
        }
        system::put_conf_state(shard, &self.conf_state)?;
        system::put_installed(shard, self.applied, self.term)?;
        self.is_complete = true;
        Ok(())
    }
}

fn take_change(
    record: &TransferRecord<'_>,
    working: &mut Working,
) -> Result<Result<(), InstallRule>, PageFault> {
    let taken = match record {
        TransferRecord::Put(put) => {
            if put.is_attached && (put.lease == LeaseId(0) || !working.lease_is_known(put.lease)?) {
                return Ok(Err(InstallRule::Lease));
            }
            // What no put has written is empty everywhere, its number included.
            let mod_revision = if put.version == 0 { Revision(0) } else { put.change.main };
            let record = Record {
                key: put.key,
                value: put.value,
                create_revision: put.create_revision,
                mod_revision,
                version: put.version,
                lease: put.lease,
            };
            let shard = working.shard_of(put.key);
            working.shards[shard].import_put(&record, put.change, put.is_attached)?
        }
        TransferRecord::Delete { change, key } => {
            let shard = working.shard_of(key);
            working.shards[shard].import_delete(key, *change)?
        }
        _ => unreachable!("only these are changes"),
    };
    Ok(taken.map_err(InstallRule::Change))
}

const _: () = assert!(SLICE_SIZE_BYTES_MAX < transfer::CHUNK_SIZE_BYTES);
