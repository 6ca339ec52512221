//! What the log's records add to the store, one after the other.
//!
//! Invariants:
//! - Entries are applied in their order, each once, and only when a hard state of the log says that
//!   they are committed.
//! - The log begins with the segment of the first entry that counts, and so perhaps with the tail
//!   of a leader of before, whose first entries went with an earlier segment. Entries that follow
//!   put others in their place, or the log is damaged.
//! - A record that the log begins anew makes all before it void. Until the log is seen to reach the
//!   entry of the last install, or to begin behind it, what it holds is the tail of another
//!   history.

use std::collections::VecDeque;

use engine::engine::Membership;
use engine::ids::{LogIndex, Term};
use engine::{Batch, Engine, Outcome};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};
use wal::{Lsn, RecordKind};

use super::{
    Failure, StartConfig, StoreDoor, apply_batch, cannot_remake, conf_state_of, decode_conf_state,
    decode_state, encode_conf_state, make_room,
};
use crate::node::checkpoint::Tail;
use crate::raft::change::decode_change;
use crate::raft::conf;
use crate::raft::record::{KIND_ENTRY, decode_entry, decode_reset};
use crate::raft::storage::BOOTSTRAP_TERM;

/// The records so far.
pub(super) struct Replay {
    pub(super) hard_state: Option<HardState>,
    /// Who votes at the applied index.
    pub(super) conf_state: ConfState,
    /// Entries behind the applied index, contiguous.
    pub(super) pending: VecDeque<Entry>,
    /// Where entries begin in the log.
    pub(super) retained: VecDeque<(LogIndex, Lsn)>,
    pub(super) applied: LogIndex,
    /// See [`super::Store::remade`].
    pub(super) store_remade: Option<String>,
    /// What was applied.
    pub(super) tail: Tail,
    /// What the store held when it was opened.
    checkpointed: (LogIndex, Term),
    /// The entry that the store was installed at, if it ever was.
    installed: Option<(LogIndex, Term)>,
    /// The term that the log's entry of that index has, if the log has one.
    installed_term: Option<Term>,
    /// Where the log last began anew.
    reset: Option<LogIndex>,
    /// Whether an entry was read that the store has, or that is the next.
    is_joined: bool,
    /// The entry with which the log began, if that was another one.
    begun_behind: Option<LogIndex>,
}

impl Replay {
    pub(super) fn new(engine: &Engine, store_remade: Option<String>) -> Result<Self, Failure> {
        let checkpointed = engine.applied();
        let conf_state = match engine.conf_state()? {
            Some(bytes) => decode_conf_state(&bytes)
                .map_err(|error| Failure::Mismatch(format!("the store is damaged: {error}")))?,
            // A store of a time in which every member was alone.
            None => conf_state_of(&[engine.identity().member]),
        };
        Ok(Self {
            hard_state: None,
            conf_state,
            pending: VecDeque::new(),
            retained: VecDeque::new(),
            applied: checkpointed.0,
            store_remade,
            tail: Tail::default(),
            checkpointed,
            installed: engine.installed()?,
            installed_term: None,
            reset: None,
            is_joined: false,
            begun_behind: None,
        })
    }

    pub(super) fn store_remade(&self) -> Option<&str> {
        self.store_remade.as_deref()
    }

    pub(super) fn handle_record<S: StoreDoor>(
        &mut self,
        engine: &mut Engine,
        disk: &mut S,
        record: &wal::Record<'_>,
    ) -> Result<(), Failure> {
        if record.kind == RecordKind::STATE {
            let state = decode_state(record.body)?;
            let commit = LogIndex(state.commit);
            self.hard_state = Some(state);
            return self.apply_through(engine, disk, commit);
        }
        if record.kind == RecordKind::RESET {
            return self.handle_reset(decode_reset(record.body)?, record.start);
        }
        if record.kind != RecordKind::owned(KIND_ENTRY) {
            let kind = record.kind.get();
            return Err(Failure::Mismatch(format!("the log holds a record of kind {kind}")));
        }
        self.handle_entry(decode_entry(record.body)?, record.start)
    }

    /// As if the store had been installed, and checkpointed, at this entry.
    #[cfg(test)]
    pub(super) fn install_for_test(&mut self, place: (LogIndex, Term)) {
        (self.installed, self.checkpointed, self.applied) = (Some(place), place, place.0);
    }

    pub(super) fn handle_reset(
        &mut self,
        (index, term): (LogIndex, Term),
        start: Lsn,
    ) -> Result<(), Failure> {
        if index > self.applied {
            // What was installed was durable before the log was told.
            return Err(Failure::Mismatch(format!(
                "the log begins anew behind entry {index} of term {term}, but the store has only \
                 applied entry {}",
                self.applied
            )));
        }
        self.pending.clear();
        self.retained.clear();
        // It stands for the entry that it names, until another one follows.
        self.retained.push_back((index, start));
        self.installed_term = None;
        self.reset = Some(index);
        self.is_joined = true;
        Ok(())
    }

    pub(super) fn handle_entry(&mut self, entry: Entry, start: Lsn) -> Result<(), Failure> {
        let index = LogIndex(entry.index);
        while self.retained.pop_back_if(|last| last.0 >= index).is_some() {}
        self.retained.push_back((index, start));
        self.note_installed(index, Term(entry.term));
        if index <= self.applied {
            // What came before and is of a later index was an earlier leader's tail, even if
            // nothing has taken its place: this entry is committed, and the tail does not go on
            // from it.
            self.pending.clear();
            self.is_joined = true;
            return Ok(());
        }
        // A later entry of an index replaces it and all behind it: an earlier leader's tail.
        while self.pending.pop_back_if(|last| last.index >= entry.index).is_some() {}
        let last = self.pending.back().map_or(self.applied, |last| LogIndex(last.index));
        if index.0 != last.0 + 1 {
            if self.is_joined {
                return Err(gap(index, last));
            }
            self.begun_behind.get_or_insert(index);
            return Ok(());
        }
        self.is_joined = true;
        self.pending.push_back(entry);
        Ok(())
    }

    fn note_installed(&mut self, index: LogIndex, term: Term) {
        if let Some((installed, _)) = self.installed
            && index <= installed
        {
            self.installed_term = (index == installed).then_some(term);
        }
    }

    /// The entry behind which the log has to begin anew, as far as it is known by now.
    fn must_reset(&self) -> Option<(LogIndex, Term)> {
        let (index, term) = self.installed?;
        let has_begun_anew = self.reset.is_some_and(|reset| reset >= index);
        // The record may be gone with its segment, which went because the log had gone on.
        let begins_behind = self.retained.front().is_some_and(|first| first.0 > index);
        let reaches = self.installed_term == Some(term);
        (!has_begun_anew && !begins_behind && !reaches).then_some((index, term))
    }

    pub(super) fn apply_through<S: StoreDoor>(
        &mut self,
        engine: &mut Engine,
        disk: &mut S,
        commit: LogIndex,
    ) -> Result<(), Failure> {
        if self.must_reset().is_some() {
            return Ok(());
        }
        while let Some(entry) = self.pending.pop_front_if(|first| first.index <= commit.0) {
            let index = LogIndex(entry.index);
            self.tail.size_bytes += entry.data.len() as u64;
            self.tail.entries += 1;
            self.tail.commands += apply(engine, disk, entry, &mut self.conf_state)?;
            self.applied = index;
        }
        Ok(())
    }

    /// The log was read to its end. Answers with the entry behind which it has to begin anew, if
    /// so.
    pub(super) fn finish(
        &mut self,
        config: &StartConfig,
    ) -> Result<Option<(LogIndex, Term)>, Failure> {
        if let Some(entry) = self.must_reset() {
            self.pending.clear();
            self.retained.clear();
            return Ok(Some(entry));
        }
        let (checkpointed, term) = self.checkpointed;
        if let Some(first) = self.begun_behind.filter(|_| !self.is_joined) {
            return Err(match &self.store_remade {
                Some(fault) => cannot_remake(fault),
                None => gap(first, self.applied),
            });
        }
        let founded = if term <= BOOTSTRAP_TERM { checkpointed } else { LogIndex(0) };
        let log_end = self.retained.back().map_or(founded, |last| last.0);
        if log_end < checkpointed {
            // What the store has applied was durable in the log first.
            return Err(Failure::Mismatch(format!(
                "the log in {} ends with entry {log_end}, but the store has applied entry \
                 {checkpointed}: the log has lost its end",
                config.log_dir.display()
            )));
        }
        Ok(None)
    }
}

fn gap(index: LogIndex, last: LogIndex) -> Failure {
    Failure::Mismatch(format!("the log goes on with entry {index} behind entry {last}"))
}

/// Applies an entry; answers with the number of its commands.
pub(super) fn apply<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    entry: Entry,
    conf_state: &mut ConfState,
) -> Result<u64, Failure> {
    let (index, term) = (LogIndex(entry.index), Term(entry.term));
    if entry.get_entry_type() != EntryType::EntryNormal {
        return apply_change(engine, disk, &entry, conf_state);
    }
    if entry.data.is_empty() {
        engine.apply_empty(index, term);
        return Ok(0);
    }
    let batch =
        Batch::validate(entry.data).map_err(|cause| Failure::InvalidEntry { index, cause })?;
    apply_batch(engine, disk, (index, term), &batch)?;
    Ok(batch.len() as u64)
}

/// A change of the members: the store decides about it, and raft's configuration follows.
fn apply_change<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    entry: &Entry,
    conf_state: &mut ConfState,
) -> Result<u64, Failure> {
    let (index, term) = (LogIndex(entry.index), Term(entry.term));
    let (batch, change) = decode_change(entry).map_err(|error| {
        Failure::Mismatch(format!("log entry {index} cannot be applied: {error}"))
    })?;
    let answer = loop {
        match engine.apply_membership(index, term, &batch)? {
            Membership::Answered(answer) => break answer,
            Membership::Starved => make_room(engine, disk)?,
            Membership::Foreign => return Err(Failure::UnknownEntry { index }),
        }
    };
    if !matches!(answer.outcome, Outcome::Rejected(_)) {
        *conf_state = conf::changed(conf_state, &change)?;
        engine.put_conf_state(&encode_conf_state(conf_state))?;
    }
    engine.publish();
    Ok(batch.len() as u64)
}
