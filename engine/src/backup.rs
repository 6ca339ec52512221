//! A view as a backup in etcd's format, resumable.
//!
//! The view is walked twice: the first time for sizes only, because the front of the file, which
//! leaves first, names its last page ([`crate::bbolt`]). Then the same pairs come as bytes. All
//! steps must be given the same view, and the same facts stand for what the store does not know.
//!
//! A compaction that is being swept is finished in the file: what the sweep has still to remove is
//! left out. So a file never depends on how far a sweep has come.
//!
//! Invariants:
//! - Both walks are one function over two targets, so that they cannot come to differ.
//! - A step is bounded by what it touches: bytes, look-ups and changes that bring nothing count
//!   too. One record is never cut, so a step may be longer by the largest of them.

use crate::alarm::Alarm;
use crate::answer::ReadError;
use crate::bbolt::schema::{self, ConfState, Member, Meta, RevisionKey};
use crate::bbolt::{Backup, LengthError, Measure};
use crate::compaction;
use crate::ids::{Change, LeaseId, MemberId, Revision};
use crate::layout::ChangeKind;
use crate::lease;
use crate::limits::keys_for_bytes;
use crate::membership;
use crate::page::{PageFault, Pages};
use crate::range::{Progress, Record};
use crate::store::{Changes, Front, ShardRoots, Store};
use crate::system;
use crate::view::View;

/// What a look-up costs that a walk in order does not have; see [`crate::hash`].
const LOOK_UP_KEYS: usize = 4;
/// Leases that are read at once.
const LEASES_MAX: usize = 64;

/// What stands in a backup and is not the store's to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupFacts {
    /// The members, with what raft and the bootstrap know of them, for a store that does not say
    /// who belongs to the cluster. Names and clients' URLs come from the store.
    pub members: Vec<Member>,
}

/// A backup being made.
#[derive(Debug)]
pub struct BackupScan {
    facts: BackupFacts,
    /// Whether history below the compacted revision is as a finished sweep leaves it.
    is_swept: bool,
    position: Position,
    target: Target,
    scratch: Vec<u8>,
}

/// Where a walk is.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// The bucket, by its place among all.
    bucket: usize,
    is_begun: bool,
    change: Change,
    lease: LeaseId,
}

#[derive(Debug)]
enum Target {
    Measure(Measure),
    Write(Box<Backup>),
    /// All pairs are in.
    Written(Box<Backup>),
}

impl Target {
    fn begin_bucket(&mut self, name: &[u8]) {
        let begun = match self {
            Self::Measure(measure) => measure.begin_bucket(name),
            Self::Write(backup) => backup.begin_bucket(name),
            Self::Written(_) => unreachable!("no bucket follows the last"),
        };
        begun.expect("the names of etcd's buckets are short");
    }

    fn add(&mut self, (key, value): &(Vec<u8>, Vec<u8>)) -> Result<(), LengthError> {
        match self {
            Self::Measure(measure) => measure.add(key.len(), value.len()),
            Self::Write(backup) => backup.add(key, value),
            Self::Written(_) => unreachable!("no pair follows the last"),
        }
    }
}

impl BackupScan {
    /// Begins a backup.
    #[must_use]
    pub fn new(facts: BackupFacts) -> Self {
        Self {
            facts,
            is_swept: true,
            position: Position::default(),
            target: Target::Measure(Measure::new()),
            scratch: Vec::new(),
        }
    }

    /// Goes on, touching about `budget` records. It is done when all bytes can be polled. The view
    /// is the same in every step.
    pub fn step(&mut self, view: &View, budget: &mut usize) -> Result<Progress, ReadError> {
        if matches!(self.target, Target::Written(_)) {
            return Ok(Progress::Done);
        }
        *budget = (*budget).max(1);
        while *budget > 0 {
            let Some(&name) = schema::BUCKETS.get(self.position.bucket) else {
                self.end_walk();
                if matches!(self.target, Target::Written(_)) {
                    return Ok(Progress::Done);
                }
                continue;
            };
            if !self.position.is_begun {
                self.position.is_begun = true;
                if self.position.bucket == 0 {
                    self.is_swept = is_swept(view)?;
                }
                self.target.begin_bucket(name);
            }
            let progress = match name {
                schema::KEY => self.add_changes(view, budget)?,
                schema::LEASE => self.add_leases(view, budget)?,
                _ => self.add_small(name, view, budget)?,
            };
            if progress == Progress::Done {
                self.position.bucket += 1;
                self.position.is_begun = false;
            }
        }
        Ok(Progress::More)
    }

    /// The size of the file without the digest behind it, as soon as it is known: before the first
    /// byte can be polled.
    #[must_use]
    pub fn file_size_bytes(&self) -> Option<u64> {
        match &self.target {
            Target::Measure(_) => None,
            Target::Write(backup) | Target::Written(backup) => Some(backup.file_size_bytes()),
        }
    }

    /// The next bytes, in the order of the file; `None` when there are none now.
    pub fn poll_bytes(&mut self) -> Option<Vec<u8>> {
        match &mut self.target {
            Target::Measure(_) => None,
            Target::Write(backup) | Target::Written(backup) => backup.poll_bytes(),
        }
    }

    fn end_walk(&mut self) {
        self.position = Position::default();
        let target = std::mem::replace(&mut self.target, Target::Measure(Measure::new()));
        self.target = match target {
            Target::Measure(measure) => Target::Write(Box::new(Backup::new(measure.finish()))),
            Target::Write(mut backup) => {
                backup.finish();
                Target::Written(backup)
            }
            Target::Written(_) => unreachable!("the second walk is the last"),
        };
    }

    fn add_changes(&mut self, view: &View, budget: &mut usize) -> Result<Progress, ReadError> {
        let mut changes = Changes::new(view, self.position.change)?;
        while let Some(front) = changes.front() {
            if *budget == 0 {
                self.position.change = front.change();
                return Ok(Progress::More);
            }
            let (pages, roots) = view.shard(front.shard);
            let cost = self.add_change(view, pages, roots, &front)?;
            *budget = budget.saturating_sub(cost);
            changes.advance(&front)?;
        }
        Ok(Progress::Done)
    }

    /// Adds a change, if it stays; answers with what that cost, in keys.
    fn add_change<P: Pages>(
        &mut self,
        view: &View,
        pages: &P,
        roots: &ShardRoots,
        front: &Front<'_>,
    ) -> Result<usize, ReadError> {
        let change = front.change();
        let is_tombstone = front.logged.kind == ChangeKind::Tombstone;
        let mut cost = 1;
        if change.main <= view.compacted && !self.is_swept {
            cost += LOOK_UP_KEYS;
            if !compaction::outlives_sweep(pages, roots, front, view.compacted)? {
                return Ok(cost);
            }
        }
        let key = RevisionKey { change, is_tombstone };
        if is_tombstone {
            let record = Record { key: front.key, ..Record::default() };
            self.add_record(key, &record, record.value.len());
            return Ok(cost);
        }
        if front.logged.value_at.is_none() {
            cost += LOOK_UP_KEYS;
        }
        let found = front.version(pages, roots)?;
        let is_measured = matches!(self.target, Target::Measure(_));
        let value_len = found.value_size_bytes();
        let value = if is_measured { &[][..] } else { found.value(pages)? };
        let mut record = found.version.record(front.key, value);
        // What was never written by a put is empty in etcd, its number included.
        if found.version.version == 0 {
            record.mod_revision = Revision(0);
        }
        self.add_record(key, &record, value_len);
        let size_bytes = if is_measured { 0 } else { front.key.len() + value_len };
        Ok(cost + keys_for_bytes(size_bytes))
    }

    /// When measuring, the record has no value, only its length counts.
    fn add_record(&mut self, key: RevisionKey, record: &Record<'_>, value_len: usize) {
        let added = match &mut self.target {
            Target::Measure(measure) => {
                measure.add(key.size_bytes(), schema::record_len(record, value_len))
            }
            Target::Write(backup) => {
                self.scratch.clear();
                schema::record_into(record, &mut self.scratch);
                backup.add(&key.to_bytes()[..key.size_bytes()], &self.scratch)
            }
            Target::Written(_) => unreachable!("no pair follows the last"),
        };
        added.expect("a frame of the log is shorter than what bbolt takes");
    }

    fn add_leases(&mut self, view: &View, budget: &mut usize) -> Result<Progress, ReadError> {
        let mut leases = Vec::new();
        let (pages, roots) = view.shard(0);
        let count_max = LEASES_MAX.min(*budget);
        let next = lease::list(pages, roots, self.position.lease, count_max, &mut leases)?;
        *budget = budget.saturating_sub(leases.len().max(1));
        for lease in leases {
            let lease = schema::Lease {
                id: lease.id,
                ttl_seconds: lease.ttl_seconds,
                remaining_ttl_seconds: lease.remaining_seconds,
            };
            self.target.add(&lease.to_pair()).expect("a lease is a few bytes");
        }
        let Some(next) = next else { return Ok(Progress::Done) };
        self.position.lease = next;
        Ok(Progress::More)
    }

    /// A bucket that is small whatever the store holds.
    fn add_small(
        &mut self,
        name: &'static [u8],
        view: &View,
        budget: &mut usize,
    ) -> Result<Progress, ReadError> {
        *budget -= 1;
        let (pages, roots) = view.shard(0);
        let pairs = match name {
            schema::CLUSTER => {
                let version = view.cluster_version()?;
                let downgrade = view
                    .downgrade_target()?
                    .map(|target_version| schema::Downgrade { target_version, enabled: true });
                schema::Cluster { version, downgrade }.to_pairs()
            }
            schema::ALARM => {
                let alarms = view.alarms()?;
                let pair = |alarm: &Alarm| schema::alarm_pair(alarm.member, alarm.kind.0);
                let mut pairs: Vec<schema::Pair> = alarms.iter().map(pair).collect();
                pairs.sort_unstable();
                pairs
            }
            schema::MEMBERS => {
                let members = self.members(view)?;
                let mut pairs: Vec<schema::Pair> = members.iter().map(Member::to_pair).collect();
                pairs.sort_unstable();
                pairs
            }
            schema::MEMBERS_REMOVED => {
                let removed = view.removed_members()?;
                let pair = |id: &MemberId| (schema::member_key(*id), schema::REMOVED.to_vec());
                let mut pairs: Vec<schema::Pair> = removed.iter().map(pair).collect();
                pairs.sort_unstable();
                pairs
            }
            schema::META => self.meta(view)?.to_pairs(),
            _ => system::carried(pages, roots, name)?,
        };
        for pair in &pairs {
            self.target.add(pair).expect("what the store keeps of itself is short");
        }
        Ok(Progress::Done)
    }

    fn members(&self, view: &View) -> Result<Vec<Member>, ReadError> {
        if view.knows_members()? {
            let member = |member: membership::Member| {
                let membership::Member { id, peer_urls, is_learner, name, client_urls } = member;
                Member { id, peer_urls, is_learner, name, client_urls }
            };
            return Ok(view.cluster_members()?.into_iter().map(member).collect());
        }
        let published = view.members()?;
        let member = |member: &Member| {
            let mut member = member.clone();
            if let Some(found) = published.iter().find(|found| found.id == member.id) {
                member.name.clone_from(&found.name);
                member.client_urls.clone_from(&found.client_urls);
            }
            member
        };
        Ok(self.facts.members.iter().map(member).collect())
    }

    fn meta(&self, view: &View) -> Result<Meta, ReadError> {
        let members = self.members(view)?;
        let of = |is_learner: bool| {
            let members = members.iter();
            members.filter(move |member| member.is_learner == is_learner).map(|member| member.id)
        };
        let compacted = Some(view.compacted).filter(|revision| revision.0 >= 0);
        Ok(Meta {
            consistent_index: Some(view.applied),
            term: Some(view.term),
            conf_state: Some(ConfState {
                voters: of(false).collect(),
                learners: of(true).collect(),
                auto_leave: Some(false),
                ..ConfState::default()
            }),
            compact_scheduled: compacted,
            compact_finished: compacted,
            storage_version: view.cluster_version()?,
        })
    }
}

/// Whether history below the compacted revision is as a finished sweep leaves it.
fn is_swept(view: &View) -> Result<bool, PageFault> {
    let (pages, roots) = view.shard(0);
    Ok(system::sweep(pages, roots)?.is_finished())
}
