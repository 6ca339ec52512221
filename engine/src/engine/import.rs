//! A store made from the history of another: changes come with the numbers they have had there.
//!
//! Who imports owns an engine that was just created and serves nobody. Leases come first, then all
//! changes in their order, then how far that store was compacted; commands may follow as batches.
//! [`Engine::finish_import`] ends it.
//!
//! Invariants:
//! - What is given is input: an order or a number that cannot be is refused by rule, and the store
//!   is not to be used afterwards.
//! - What is made is what commands would have made: a compacted history only lacks its beginning.

use std::fmt;

use crate::alarm::{self, Alarm};
use crate::answer::ReadError;
use crate::compaction::{Compaction, Sweep};
use crate::downgrade::{self, ClusterVersion};
use crate::ids::{Change, LogIndex, Revision, Term};
use crate::lease::{self, Lease};
use crate::membership::{self, Member};
use crate::page::PageFault;
use crate::range::Record;
use crate::system;

use super::{Engine, Failure};

/// A number or an order that no history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportRule {
    /// The change is not after the one before it.
    ChangeOrder,
    /// The record says another revision than its place.
    ModRevision,
    /// A record without a key has content.
    KeyEmpty,
    /// The version or the create revision does not follow the key's version before.
    Version,
    /// A key is deleted that was deleted before.
    Deleted,
    /// The compacted revision is behind what was swept, or there is none.
    Compacted,
    /// A lease's id is zero, or there are two of it.
    LeaseId,
    /// What a downgrade goes back to is no version.
    DowngradeTarget,
    /// A member's id is zero, or taken.
    MemberId,
}

impl fmt::Display for ImportRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ChangeOrder => "the change is not after the one before it",
            Self::ModRevision => "the record names another revision than its key",
            Self::KeyEmpty => "a record without a key has content",
            Self::Version => "the version does not follow the one before it",
            Self::Deleted => "a key is deleted twice",
            Self::Compacted => "the compacted revision does not fit the history",
            Self::LeaseId => "a lease has no id, or one that is taken",
            Self::DowngradeTarget => "a downgrade goes back to what is no version",
            Self::MemberId => "a member has no id, or one that is taken",
        })
    }
}

/// What became of a piece of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is in.
    Done,
    /// There are not enough free pages for it: a file has to grow first, or a checkpoint has to
    /// give pages back. Nothing was changed.
    Starved,
    /// It cannot be part of any history.
    Refused(ImportRule),
}

/// A change of a history.
#[derive(Clone, Copy, Debug)]
pub enum ImportedChange<'a> {
    /// The key has this record from then on.
    Put(Record<'a>),
    /// The key ends.
    Delete(&'a [u8]),
}

/// What the members of a new cluster agree on before its log begins.
#[derive(Clone, Copy, Debug)]
pub struct Founding<'a> {
    /// The members; none if somebody else's store is to be installed.
    pub members: &'a [Member],
    /// Raft's own state of who votes.
    pub conf_state: &'a [u8],
    /// The entry behind which the log begins.
    pub applied: LogIndex,
    /// That entry's term.
    pub term: Term,
}

/// What the store's entries for a member take, about.
fn member_size_bytes(member: &Member) -> usize {
    let urls = member.peer_urls.iter().chain(&member.client_urls);
    urls.map(|url| url.len() + 16).sum::<usize>() + member.name.len() + 128
}

impl Engine {
    /// Takes over a change.
    ///
    /// # Errors
    /// The trees could not be read or changed.
    pub fn import_change(
        &mut self,
        change: Change,
        imported: &ImportedChange<'_>,
    ) -> Result<Imported, Failure> {
        assert!(self.run.is_none() && !self.is_poisoned);
        if change.main < self.working.revision || change <= self.import_last {
            return Ok(Imported::Refused(ImportRule::ChangeOrder));
        }
        let (key, value) = match imported {
            ImportedChange::Put(record) => (record.key, record.value),
            ImportedChange::Delete(key) => (*key, &[][..]),
        };
        if self.working.reserve(1, key.len() + value.len()).is_err() {
            return Ok(Imported::Starved);
        }
        let index = self.working.shard_of(key);
        let has_lease = match imported {
            ImportedChange::Put(record) => self.working.lease_is_known(record.lease)?,
            ImportedChange::Delete(_) => false,
        };
        let shard = &mut self.working.shards[index];
        let result = match imported {
            ImportedChange::Put(record) => shard.import_put(record, change, has_lease),
            ImportedChange::Delete(key) => shard.import_delete(key, change),
        };
        let result = result.inspect_err(|_| self.is_poisoned = true)?;
        if let Err(rule) = result {
            return Ok(Imported::Refused(rule));
        }
        self.import_last = change;
        self.working.revision = change.main;
        self.changed = true;
        Ok(Imported::Done)
    }

    /// Takes over a lease.
    ///
    /// # Errors
    /// As above.
    pub fn import_lease(&mut self, lease: Lease) -> Result<Imported, Failure> {
        if lease.id.0 == 0 || self.working.lease_is_known(lease.id)? {
            return Ok(Imported::Refused(ImportRule::LeaseId));
        }
        self.import_system(64, |engine| lease::import(lease, &mut engine.working))
    }

    /// Takes over the cluster's version.
    ///
    /// # Errors
    /// As above.
    pub fn import_cluster_version(&mut self, version: &str) -> Result<Imported, Failure> {
        self.import_system(version.len(), |engine| {
            system::put_cluster_version(&mut engine.working.shards[0], version)
        })
    }

    /// Takes over a downgrade that is on: it goes on here.
    ///
    /// # Errors
    /// As above.
    pub fn import_downgrade(&mut self, target: &str) -> Result<Imported, Failure> {
        if ClusterVersion::from_text(target).is_none() {
            return Ok(Imported::Refused(ImportRule::DowngradeTarget));
        }
        self.import_system(target.len(), |engine| downgrade::import(target, &mut engine.working))
    }

    /// Takes over a member of the cluster, with its name and its clients' URLs if it has told them.
    ///
    /// # Errors
    /// As above.
    pub fn import_member(&mut self, member: &Member) -> Result<Imported, Failure> {
        if member.id.0 == 0 || membership::is_taken(member.id, &self.working)? {
            return Ok(Imported::Refused(ImportRule::MemberId));
        }
        let size_bytes = member_size_bytes(member);
        self.import_system(size_bytes, |engine| membership::import(member, &mut engine.working))
    }

    /// Makes a store that was just created that of a new cluster's member: it names all members,
    /// and counts as one that has applied what the cluster's log begins behind. The view is
    /// published.
    ///
    /// A file may have to grow first; then nothing was changed, and it is to be called again.
    ///
    /// # Errors
    /// As above.
    pub fn found(&mut self, founding: &Founding<'_>) -> Result<Imported, Failure> {
        let Founding { members, conf_state, applied, term } = *founding;
        let size_bytes: usize = members.iter().map(member_size_bytes).sum();
        // An entry or two for each member, and raft's own.
        let needed = (2 * members.len() + 1, size_bytes + conf_state.len());
        if self.working.reserve(needed.0, needed.1).is_err() {
            return Ok(Imported::Starved);
        }
        for member in members {
            match self.import_member(member)? {
                Imported::Done => {}
                other => return Ok(other),
            }
        }
        system::put_conf_state(&mut self.working.shards[0], conf_state)
            .inspect_err(|_| self.is_poisoned = true)?;
        self.finish_import(applied, term);
        Ok(Imported::Done)
    }

    /// Keeps a pair of one of etcd's buckets as it is, for a version that knows its meaning, and
    /// for backups.
    ///
    /// # Errors
    /// As above.
    pub fn import_carried(
        &mut self,
        bucket: &[u8],
        key: &[u8],
        value: &[u8],
    ) -> Result<Imported, Failure> {
        self.import_system(bucket.len() + key.len() + value.len(), |engine| {
            system::carry(&mut engine.working.shards[0], bucket, key, value)
        })
    }

    /// Takes an alarm over, which refuses here what it refused there.
    ///
    /// # Errors
    /// As above.
    pub fn import_alarm(&mut self, alarm: Alarm) -> Result<Imported, Failure> {
        self.import_system(0, |engine| match alarm::import(alarm, &mut engine.working) {
            Ok(()) => Ok(()),
            Err(ReadError::Fault(fault)) => Err(fault),
            Err(ReadError::Rejection(_)) => unreachable!("alarms are read at no revision"),
        })
    }

    /// Takes over that history was compacted to a revision, and how far it was swept. The sweep of
    /// what is left goes on here.
    ///
    /// # Errors
    /// As above.
    pub fn import_compaction(
        &mut self,
        target: Revision,
        finished: Revision,
    ) -> Result<Imported, Failure> {
        // Where all keys were deleted before, the store's revision is only known from this.
        let revision = self.working.revision.max(target);
        let Some(sweep) = Sweep::imported(target, finished) else {
            return Ok(Imported::Refused(ImportRule::Compacted));
        };
        let imported = self
            .import_system(64, |engine| system::put_sweep(&mut engine.working.shards[0], &sweep))?;
        if imported == Imported::Done {
            self.working.revision = revision;
            self.working.compacted = target;
            self.compaction = Compaction::new(sweep);
        }
        Ok(imported)
    }

    /// Ends an import: the store counts as one that has applied this entry and none behind it. The
    /// view is published.
    pub fn finish_import(&mut self, index: LogIndex, term: Term) {
        assert!(self.run.is_none() && !self.is_poisoned, "the import is not at an end");
        (self.applied, self.term) = (index, term);
        // Whoever keeps the clocks reads all leases when it begins.
        self.working.lease_changes.clear();
        self.changed = true;
        self.publish();
    }

    fn import_system(
        &mut self,
        size_bytes: usize,
        put: impl FnOnce(&mut Self) -> Result<(), PageFault>,
    ) -> Result<Imported, Failure> {
        assert!(self.run.is_none() && !self.is_poisoned);
        if self.working.reserve(1, size_bytes).is_err() {
            return Ok(Imported::Starved);
        }
        put(self).inspect_err(|_| self.is_poisoned = true)?;
        self.changed = true;
        Ok(Imported::Done)
    }
}
