//! The end of etcd's log: what its database had not taken in when it stopped.
//!
//! A member that voted alone has committed whatever its log holds, said so or not. With others, what
//! lies behind the last commit it heard of may have been given up by them, and is left out, as
//! etcd's own `--force-new-cluster` does.
//!
//! Invariants:
//! - Entries are applied in order, each once, from the one behind the database on; a hole, or a
//!   commit beyond the log's end, is refused.
//! - Entries are applied as soon as they are known to be committed; with several voters, those that
//!   are not are kept, as many as raft lets be open.

use std::collections::VecDeque;
use std::path::Path;

use engine::Batch;
use engine::bbolt::schema::{Alarm, AlarmKind};
use engine::command::{BatchHeader, frame_count};
use engine::ids::{LogIndex, MemberId, Term};

use super::Failure;
use super::content::{Filling, Found};
use super::etcd_log::{EntryKind, EtcdLog, LogEntry, LogRecord};
use super::member::voter_count;
use crate::node::failure::Failure as MemberFailure;
use crate::node::start::apply_batch;
use crate::service::replay::{AlarmChange, AlarmsRaised, Replay, Replayed};
use crate::service::wire::{Fields, Value};

/// etcd's numbers of the kinds of alarms.
const ALARM_NONE: i32 = 0;
const ALARM_NO_SPACE: i32 = 1;
const ALARM_CORRUPT: i32 = 2;
/// Entries that a cluster's log may hold behind its last commit. etcd bounds them by 512 messages a
/// follower; what is beyond this is no such log.
const OPEN_ENTRIES_MAX: usize = 1 << 20;

/// The end of a log being applied.
pub struct Tail {
    /// The last entry that the store holds.
    applied: u64,
    /// Members that vote.
    voters: usize,
    /// Entries behind `applied`, in order, that are not known to be committed.
    open: VecDeque<LogEntry>,
    committed: u64,
    alarms: Vec<Alarm>,
    replay: Replay,
    frames: Vec<u8>,
    /// Entries that were applied.
    pub entries: u64,
    /// What the user had better know.
    pub notes: Vec<String>,
}

impl Tail {
    /// Behind a database.
    pub fn new(found: &Found) -> Self {
        Self {
            applied: found.meta.consistent_index.map_or(0, |index| index.0),
            voters: voter_count(&found.members),
            open: VecDeque::new(),
            committed: 0,
            alarms: found.alarms.clone(),
            replay: Replay::new(),
            frames: Vec::new(),
            entries: 0,
            notes: Vec::new(),
        }
    }

    /// The alarms that are raised in the end.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.clone()
    }

    /// Applies what the log in a directory holds.
    ///
    /// # Errors
    /// Damage, and what cannot be taken over.
    pub fn take(&mut self, directory: &Path, filling: &mut Filling<'_>) -> Result<(), Failure> {
        let mut log = EtcdLog::open(directory)?;
        let mut last = 0;
        while let Some(record) = log.next()? {
            match record {
                LogRecord::Owner { .. } => {}
                LogRecord::Commit(index) => self.committed = self.committed.max(index),
                LogRecord::Snapshot(index) if index > self.applied => {
                    let text = format!(
                        "{}: the log goes on from a snapshot at entry {index} that was received \
                         from another member, and the database ends with entry {}: start etcd on it \
                         once, and stop it",
                        directory.display(),
                        self.applied
                    );
                    return Err(Failure::Refused(text));
                }
                LogRecord::Snapshot(_) => {}
                LogRecord::Entry(entry) => {
                    last = entry.index;
                    self.enter(directory, entry)?;
                }
            }
            self.apply_committed(directory, filling)?;
        }
        if self.committed > last.max(self.applied) {
            let (directory, committed) = (directory.display(), self.committed);
            return Err(Failure::Refused(format!(
                "{directory}: entry {committed} was committed, and the log ends with entry {last}"
            )));
        }
        if let Some((path, offset)) = log.torn() {
            let path = path.display();
            self.notes.push(format!(
                "{path}: the log ends at offset {offset} in a frame that a crash has torn"
            ));
        }
        if !self.open.is_empty() {
            let count = self.open.len();
            self.notes.push(format!(
                "{count} entries at the log's end are not known to be committed and were left out"
            ));
        }
        Ok(())
    }

    /// An entry takes the place of all from its index on.
    fn enter(&mut self, directory: &Path, entry: LogEntry) -> Result<(), Failure> {
        let refuse = |what: String| {
            Err(Failure::Refused(format!("{}: entry {} {what}", directory.display(), entry.index)))
        };
        if entry.index <= self.applied {
            if self.entries > 0 {
                return refuse("comes again after it was committed".to_owned());
            }
            return Ok(());
        }
        while self.open.pop_back_if(|open| open.index >= entry.index).is_some() {}
        let before = self.open.back().map_or(self.applied, |open| open.index);
        if entry.index != before + 1 {
            return refuse(format!("follows entry {before}: what lies between is missing"));
        }
        if self.open.len() >= OPEN_ENTRIES_MAX {
            return refuse("is too far behind the last commit".to_owned());
        }
        self.open.push_back(entry);
        Ok(())
    }

    fn apply_committed(
        &mut self,
        directory: &Path,
        filling: &mut Filling<'_>,
    ) -> Result<(), Failure> {
        while let Some(entry) =
            self.open.pop_front_if(|entry| self.voters <= 1 || entry.index <= self.committed)
        {
            self.applied = entry.index;
            self.entries += 1;
            match entry.kind {
                EntryKind::ConfChange => self.follow_members(directory, &entry)?,
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => self.apply(directory, &entry, filling)?,
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        directory: &Path,
        entry: &LogEntry,
        filling: &mut Filling<'_>,
    ) -> Result<(), Failure> {
        let LogEntry { index, term, .. } = *entry;
        let refuse = |what: &dyn std::fmt::Display| {
            Failure::Refused(format!(
                "{}: entry {index} {what}: start etcd on it once and stop it, so that the entry is \
                 in the database",
                directory.display()
            ))
        };
        self.frames.clear();
        let alarms = self.alarms_raised();
        let replayed = self.replay.push(&entry.data, alarms, &mut self.frames);
        match replayed.map_err(|error| refuse(&error))? {
            Replayed::Nothing => return Ok(()),
            Replayed::Alarm(change) => return self.follow_alarm(change).map_err(|e| refuse(&e)),
            Replayed::Frames => {}
        }
        let header = BatchHeader {
            member: MemberId(0),
            boot_nonce: 0,
            sequence_first: self.entries,
            frame_count: frame_count(&self.frames).map_err(|error| refuse(&error))?,
        };
        let bytes = [&header.to_bytes()[..], &self.frames].concat();
        let at = (LogIndex(index), Term(term));
        let batch = Batch::validate(bytes)
            .map_err(|cause| MemberFailure::InvalidEntry { index: at.0, cause })?;
        let (engine, disk) = filling.parts();
        Ok(apply_batch(engine, disk, at, &batch)?)
    }

    fn alarms_raised(&self) -> AlarmsRaised {
        let is_raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        AlarmsRaised {
            no_space: is_raised(AlarmKind::NoSpace),
            corrupt: is_raised(AlarmKind::Corrupt),
        }
    }

    fn follow_alarm(&mut self, change: AlarmChange) -> Result<(), &'static str> {
        let kind = match change.kind {
            ALARM_NONE => return Ok(()),
            ALARM_NO_SPACE => AlarmKind::NoSpace,
            ALARM_CORRUPT => AlarmKind::Corrupt,
            _ => return Err("raises an alarm of an unknown kind"),
        };
        let alarm = Alarm { member: change.member, kind };
        self.alarms.retain(|raised| *raised != alarm);
        if change.is_raised {
            self.alarms.push(alarm);
        }
        Ok(())
    }

    /// Only how many vote counts: the new member is alone. A change is `type` and a member's id.
    fn follow_members(&mut self, directory: &Path, entry: &LogEntry) -> Result<(), Failure> {
        const ADD: u64 = 0;
        const REMOVE: u64 = 1;
        const UPDATE: u64 = 2;
        const ADD_LEARNER: u64 = 3;
        let mut kind = Some(ADD);
        let mut fields = Fields::of(&entry.data);
        loop {
            match fields.next() {
                Ok(Some((2, Value::Varint(number)))) => kind = Some(number),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => kind = None,
            }
            if kind.is_none() {
                break;
            }
        }
        match kind {
            Some(ADD) => self.voters += 1,
            Some(REMOVE) => self.voters = self.voters.saturating_sub(1),
            Some(UPDATE | ADD_LEARNER) => {}
            Some(_) | None => {
                let (directory, index) = (directory.display(), entry.index);
                let text = format!("{directory}: entry {index} is no change of members");
                return Err(Failure::Refused(text));
            }
        }
        Ok(())
    }
}
