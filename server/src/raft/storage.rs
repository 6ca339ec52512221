//! The part of the raft log that is in memory: what is not yet applied, and a little before.
//!
//! raft-rs reads through this; the bytes on disk are the log's (`wal`) business. [`LogStore`] is
//! told what was appended and what may be forgotten.
//!
//! Invariants:
//! - Entries are contiguous, from `first` to `last`; the term of `first - 1` is known.
//! - Nothing beyond the applied index is ever released.

use std::collections::VecDeque;

use engine::ids::{LogIndex, MemberId, Term};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// The index and the term at which every cluster begins: one entry stands for each initial member,
/// as in etcd, and ours has one member.
pub const BOOTSTRAP: (LogIndex, Term) = (LogIndex(1), Term(1));

/// The in-memory window of the log.
#[derive(Debug)]
pub struct LogStore {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index and term just before the first entry held.
    base: (LogIndex, Term),
    entries: VecDeque<Entry>,
}

impl LogStore {
    /// The log of a new cluster of `voters`.
    #[must_use]
    pub fn bootstrap(voters: &[MemberId]) -> Self {
        let (index, term) = BOOTSTRAP;
        let hard_state =
            HardState { term: term.0, vote: 0, commit: index.0, ..HardState::default() };
        Self::resume(hard_state, voters, BOOTSTRAP)
    }

    /// A log that begins after `base`, which the engine has applied.
    #[must_use]
    pub fn resume(hard_state: HardState, voters: &[MemberId], base: (LogIndex, Term)) -> Self {
        let voters: Vec<u64> = voters.iter().map(|voter| voter.0).collect();
        let conf_state = ConfState { voters, ..ConfState::default() };
        Self { hard_state, conf_state, base, entries: VecDeque::new() }
    }

    /// Adds entries; one whose index is already there replaces it and all that followed.
    pub fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        for entry in entries {
            let first = self.base.0.0 + 1;
            assert!(entry.index >= first, "entry {} lies before the window", entry.index);
            let place = usize::try_from(entry.index - first).expect("the window fits in memory");
            assert!(place <= self.entries.len(), "entry {} leaves a gap", entry.index);
            self.entries.truncate(place);
            self.entries.push_back(entry.clone());
        }
    }

    /// Remembers the newest hard state.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Makes the hard state fit an engine that has applied more than it says is committed.
    pub fn restart(&mut self, applied: LogIndex) {
        self.hard_state.commit = self.hard_state.commit.max(applied.0);
        self.release(applied);
    }

    /// Forgets entries up to and including `applied`.
    pub fn release(&mut self, applied: LogIndex) {
        while let Some(entry) = self.entries.front() {
            if entry.index > applied.0 {
                break;
            }
            self.base = (LogIndex(entry.index), Term(entry.term));
            self.entries.pop_front();
        }
    }

    /// The voters and learners.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// The newest hard state.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// The last entry's index.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        self.entries.back().map_or(self.base.0, |entry| LogIndex(entry.index))
    }

    fn place(&self, index: u64) -> Result<usize, raft::Error> {
        let first = self.base.0.0 + 1;
        if index < first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        Ok(usize::try_from(index - first).expect("the window fits in memory"))
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let low = self.place(low)?;
        let high = self.place(high)?;
        if high > self.entries.len() {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::with_capacity(high - low);
        for entry in self.entries.range(low..high) {
            let size = entry.data.len() as u64 + 32;
            // At least one entry, however large: raft could make no progress otherwise.
            if size > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0.0 {
            return Ok(self.base.1.0);
        }
        let place = self.place(index)?;
        let entry = self.entries.get(place);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Only a peer asks for one, and the peer links of a later change stream it.
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 100].into(), ..Entry::default() }
    }

    #[test]
    fn a_later_entry_of_the_same_index_replaces_the_tail() {
        let mut store = LogStore::bootstrap(&[MemberId(1)]);
        store.append(&[entry(2, 1), entry(3, 1), entry(4, 1)]);
        store.append(&[entry(3, 2)]);
        assert_eq!(store.last(), LogIndex(3));
        assert_eq!(store.term(3).unwrap(), 2);
        assert!(store.term(4).is_err());
    }

    #[test]
    fn a_size_limit_still_yields_one_entry() {
        let mut store = LogStore::bootstrap(&[MemberId(1)]);
        store.append(&[entry(2, 1), entry(3, 1), entry(4, 1)]);
        let context = || GetEntriesContext::empty(false);
        assert_eq!(store.entries(2, 5, Some(0), context()).unwrap().len(), 1);
        assert_eq!(store.entries(2, 5, Some(264), context()).unwrap().len(), 2);
        assert_eq!(store.entries(2, 5, None, context()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_released_keeps_its_last_term() {
        let mut store = LogStore::bootstrap(&[MemberId(1)]);
        store.append(&[entry(2, 1), entry(3, 5), entry(4, 5)]);
        store.release(LogIndex(3));
        assert_eq!(store.first_index().unwrap(), 4);
        assert_eq!(store.term(3).unwrap(), 5);
        assert!(matches!(store.term(2), Err(raft::Error::Store(StorageError::Compacted))));
    }
}
