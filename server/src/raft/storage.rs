//! The part of the raft log that is in memory: what is not yet applied, and what was applied
//! lately, for followers that lag.
//!
//! raft-rs reads through this; the bytes on disk are the log's (`wal`) business. [`LogStore`] is
//! told what was appended and what may be forgotten. A follower that needs what is forgotten gets
//! a snapshot.
//!
//! Invariants:
//! - Entries are contiguous, from `first` to `last`; the term of `first - 1` is known.
//! - Nothing beyond the applied index is ever released.
//! - A snapshot is offered only at an index that the store has applied, and with what the
//!   configuration was there.

use std::collections::VecDeque;

use engine::ids::{LogIndex, MemberId, Term};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// The term in which every cluster begins.
pub const BOOTSTRAP_TERM: Term = Term(1);

/// Where a new cluster of so many members begins: one entry stands for each, as in etcd.
#[must_use]
pub fn bootstrap_of(members: usize) -> (LogIndex, Term) {
    (LogIndex(members as u64), BOOTSTRAP_TERM)
}

/// Where a cluster of one member begins.
pub const BOOTSTRAP: (LogIndex, Term) = (LogIndex(1), BOOTSTRAP_TERM);

/// What an entry takes in memory beside its payload, about.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// How much of what is applied stays in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Entries, `--snapshot-catchup-entries`.
    pub entries_max: usize,
    /// What they take.
    pub size_bytes_max: usize,
}

/// The in-memory window of the log.
#[derive(Debug)]
pub struct LogStore {
    hard_state: HardState,
    /// The configuration at the applied index.
    conf_state: ConfState,
    /// Index and term just before the first entry held.
    base: (LogIndex, Term),
    entries: VecDeque<Entry>,
    applied: LogIndex,
    window: Window,
    /// What the applied entries take.
    applied_size_bytes: usize,
}

impl LogStore {
    /// The log of a new cluster of `voters`.
    #[must_use]
    pub fn bootstrap(voters: &[MemberId]) -> Self {
        let (index, term) = bootstrap_of(voters.len());
        let hard_state =
            HardState { term: term.0, vote: 0, commit: index.0, ..HardState::default() };
        Self::resume(hard_state, conf_state_of(voters), (index, term))
    }

    /// A log that begins after `base`, which the engine has applied; the configuration is the one
    /// that stood there.
    #[must_use]
    pub fn resume(hard_state: HardState, conf_state: ConfState, base: (LogIndex, Term)) -> Self {
        Self {
            hard_state,
            conf_state,
            base,
            entries: VecDeque::new(),
            applied: base.0,
            window: Window::default(),
            applied_size_bytes: 0,
        }
    }

    /// Says how much of what is applied stays; nothing at first.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
        self.shrink();
    }

    /// Adds entries; one whose index is already there replaces it and all that followed.
    pub fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        for entry in entries {
            let first = self.base.0.0 + 1;
            assert!(entry.index >= first, "entry {} lies before the window", entry.index);
            let place = usize::try_from(entry.index - first).expect("the window fits in memory");
            assert!(place <= self.entries.len(), "entry {} leaves a gap", entry.index);
            assert!(entry.index > self.applied.0, "entry {} was applied", entry.index);
            self.entries.truncate(place);
            self.entries.push_back(entry.clone());
        }
    }

    /// Remembers the newest hard state.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The configuration has changed with the entry that is being applied.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Makes the hard state fit an engine that has applied more than it says is committed.
    pub fn restart(&mut self, applied: LogIndex) {
        self.hard_state.commit = self.hard_state.commit.max(applied.0);
        self.release(applied);
    }

    /// Entries up to and including `applied` are in the engine: those may be forgotten.
    pub fn release(&mut self, applied: LogIndex) {
        assert!(applied >= self.applied && applied <= self.last(), "{applied}");
        let first = self.base.0.0 + 1;
        for index in self.applied.0 + 1..=applied.0 {
            let place = usize::try_from(index - first).expect("the window fits in memory");
            self.applied_size_bytes += size_bytes(&self.entries[place]);
        }
        self.applied = applied;
        self.shrink();
    }

    /// A snapshot has replaced the engine: the log begins anew behind it.
    pub fn reset(&mut self, base: (LogIndex, Term), conf_state: ConfState) {
        self.entries.clear();
        self.applied_size_bytes = 0;
        (self.base, self.applied, self.conf_state) = (base, base.0, conf_state);
        self.hard_state.commit = self.hard_state.commit.max(base.0.0);
    }

    fn shrink(&mut self) {
        // A member alone has nobody who could lag.
        let is_alone = self.conf_state.voters.len() + self.conf_state.learners.len() < 2;
        let window = if is_alone { Window::default() } else { self.window };
        while self.base.0 < self.applied {
            let held = self.applied.0 - self.base.0.0;
            let is_within = held <= window.entries_max as u64
                && self.applied_size_bytes <= window.size_bytes_max;
            if is_within {
                break;
            }
            let entry = self.entries.pop_front().expect("what is applied was appended");
            self.applied_size_bytes -= size_bytes(&entry);
            self.base = (LogIndex(entry.index), Term(entry.term));
        }
    }

    /// How many entries are in memory.
    #[must_use]
    pub fn held_entries(&self) -> usize {
        self.entries.len()
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

fn size_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

/// A configuration of voters only.
#[must_use]
pub fn conf_state_of(voters: &[MemberId]) -> ConfState {
    let voters: Vec<u64> = voters.iter().map(|voter| voter.0).collect();
    ConfState { voters, ..ConfState::default() }
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

    /// Only tells where the engine stands; its content goes to the peer beside raft's messages.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let unavailable = StorageError::SnapshotTemporarilyUnavailable;
        if self.applied.0 < request_index.max(1) {
            return Err(raft::Error::Store(unavailable));
        }
        let mut snapshot = Snapshot::default();
        let term = self.term(self.applied.0)?;
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.applied.0, term);
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
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
    fn what_followers_may_need_stays_within_bounds() {
        let mut store = LogStore::bootstrap(&[MemberId(1), MemberId(2), MemberId(3)]);
        assert_eq!(store.first_index().unwrap(), 4);
        store.set_window(Window { entries_max: 3, size_bytes_max: 400 });
        store.append(&[entry(4, 1), entry(5, 1), entry(6, 1), entry(7, 1), entry(8, 1)]);
        store.release(LogIndex(4));
        store.release(LogIndex(5));
        // Two entries of 196 bytes fit, three do not.
        assert_eq!(store.first_index().unwrap(), 4);
        store.release(LogIndex(7));
        assert_eq!(store.first_index().unwrap(), 6);
        assert_eq!(store.term(5).unwrap(), 1);
        // What is not applied is never forgotten, however much it is.
        assert_eq!(store.last(), LogIndex(8));
        store.set_window(Window { entries_max: 1, size_bytes_max: 4000 });
        assert_eq!(store.first_index().unwrap(), 7);
        // Who is left alone keeps nothing for others.
        store.set_conf_state(conf_state_of(&[MemberId(1)]));
        store.release(LogIndex(8));
        assert_eq!(store.first_index().unwrap(), 9);
    }

    #[test]
    fn a_snapshot_is_of_what_is_applied() {
        let mut store = LogStore::bootstrap(&[MemberId(1), MemberId(2)]);
        store.append(&[entry(3, 4), entry(4, 4)]);
        store.release(LogIndex(3));
        store.set_conf_state(conf_state_of(&[MemberId(1)]));
        let snapshot = store.snapshot(0, 2).unwrap();
        let metadata = snapshot.get_metadata();
        assert_eq!((metadata.index, metadata.term), (3, 4));
        assert_eq!(metadata.get_conf_state().voters, [1]);
        assert!(store.snapshot(4, 2).is_err());
    }

    #[test]
    fn a_reset_forgets_all_but_the_vote() {
        let mut store = LogStore::bootstrap(&[MemberId(1), MemberId(2)]);
        store.set_hard_state(HardState { term: 9, vote: 2, commit: 2, ..HardState::default() });
        store.append(&[entry(3, 4), entry(4, 4)]);
        store.reset((LogIndex(50), Term(8)), conf_state_of(&[MemberId(2)]));
        assert_eq!((store.first_index().unwrap(), store.last()), (51, LogIndex(50)));
        assert_eq!(store.term(50).unwrap(), 8);
        let state = store.hard_state();
        assert_eq!((state.term, state.vote, state.commit), (9, 2, 50));
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
