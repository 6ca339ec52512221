//! Admission: which commands become an entry, and what becomes of them when there is no room.
//!
//! An entry that raft has taken must find a place in the log and pages in the store, whatever
//! happens to the disk meanwhile. So both are asked before, and a full disk refuses writes instead
//! of ending the member.
//!
//! Invariants:
//! - No accepted batch reaches the end of the last segment that is ready.
//! - A batch that stores something leaves room for one that deletes or compacts, and that one for
//!   what the member itself writes: hard states, releases, its introduction after the next start.

use std::time::Duration;

use engine::Batch;
use engine::page::NoSpace;

use super::{Introduced, LogCore};
use crate::mail::Unavailable;
use crate::node::failure::Failure;
use crate::raft::record::ENTRY_HEAD_SIZE_BYTES;

/// A batch that stores something leaves this part of a segment behind it: 4 MiB.
const LOG_PART_FOR_FREEING: u64 = 16;
/// One that frees space leaves this: 1 MiB, which is fifty starts on a full disk.
const LOG_PART_FOR_ITSELF: u64 = 64;

/// What a batch is good for decides how much of the last room it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It stores something.
    Stores,
    /// It only deletes and compacts.
    Frees,
    /// Without it the member cannot serve.
    Serves,
}

/// Whether there is room for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Yes,
    /// It is being made: the commands wait, and more join them.
    Soon,
    /// There is none, and the disk refused to give more.
    No,
}

impl LogCore {
    pub(super) fn propose(&mut self, now: Duration) -> Result<(), Failure> {
        self.propose_for_peers()?;
        self.propose_changes(now)?;
        if self.batcher.has_waiting() && !self.consensus.is_leader() {
            // Without a leader commands wait for one, as long as anybody waits for them.
            if let Some(leader) = self.leader_to_ask() {
                self.forward(leader, now);
            }
            self.meter.handle_none_waiting();
            return Ok(());
        }
        while let Some(size_bytes) = self.batcher.peek_batch(self.writes_unsynced) {
            let need = self.need_of_next();
            match (self.room_for(size_bytes, need), need) {
                (Room::Yes, _) => {}
                // Nobody has asked for the introduction, so nobody can be told: it waits.
                (Room::Soon, _) | (Room::No, Need::Serves) => return Ok(()),
                (Room::No, Need::Stores) => {
                    for ticket in self.batcher.refuse_storing() {
                        self.refuse(ticket, Unavailable::NoSpace);
                    }
                    continue;
                }
                (Room::No, Need::Frees) => {
                    drop(self.batcher.take_batch());
                    self.refuse_taken(Unavailable::NoSpace);
                    continue;
                }
            }
            match self.consensus.propose(self.batcher.take_batch()) {
                Ok((index, term)) => {
                    self.meter.handle_proposed(self.batcher.taken_count());
                    self.batcher.handle_proposed(index, term);
                }
                Err(_) => {
                    // Too much is uncommitted, or leadership moves: nothing was appended.
                    self.engine.cancel_reservation(size_bytes);
                    self.refuse_taken(Unavailable::LeaderChanged);
                }
            }
            // At once, so that each batch is a write of its own.
            while let Some(work) = self.consensus.poll_work() {
                self.write(work)?;
            }
        }
        if !self.batcher.has_waiting() {
            self.meter.handle_none_waiting();
        }
        Ok(())
    }

    /// Until the member has introduced itself no client is let in.
    fn need_of_next(&self) -> Need {
        if self.introduced != Introduced::Done {
            Need::Serves
        } else if self.batcher.frees_space() {
            Need::Frees
        } else {
            Need::Stores
        }
    }

    fn room_for(&mut self, size_bytes: usize, need: Need) -> Room {
        match self.room_in_log(size_bytes, need) {
            Room::Yes => {}
            other => return other,
        }
        if self.engine.is_apply_starved() {
            // What is applied now already waits for pages.
            return if self.engine.growth_failure().is_some() { Room::No } else { Room::Soon };
        }
        let reserved = match need {
            Need::Stores => self.engine.reserve_for(size_bytes),
            Need::Frees | Need::Serves => self.engine.reserve_last_for(size_bytes),
        };
        match reserved {
            Ok(()) => Room::Yes,
            // The files grow on the disk helper.
            Err(NoSpace { may_grow: true, .. }) if self.engine.growth_failure().is_none() => {
                Room::Soon
            }
            Err(_) => {
                self.store_wants_room = true;
                Room::No
            }
        }
    }

    /// Whether there is room for a peer's batch; why not, if there never will be.
    pub(super) fn room_for_peer(&mut self, batch: &Batch) -> Result<bool, Unavailable> {
        let need = if batch.frees_space() { Need::Frees } else { Need::Stores };
        self.room_now(batch.bytes().len(), need)
    }

    /// The same for a change of the members. It may take as much of the last room as what frees
    /// space: a member whose disk is full may have to be replaced.
    pub(super) fn room_for_change(&mut self, size_bytes: usize) -> Result<bool, Unavailable> {
        self.room_now(size_bytes, Need::Frees)
    }

    fn room_now(&mut self, size_bytes: usize, need: Need) -> Result<bool, Unavailable> {
        match self.room_for(size_bytes, need) {
            Room::Yes => Ok(true),
            Room::Soon => Ok(false),
            Room::No => Err(Unavailable::NoSpace),
        }
    }

    /// Whether entries of the leader's have a place in the log. What frees space here is not theirs
    /// to say, so they leave only what the member needs for itself.
    pub(super) fn has_room_for_entries(&self, size_bytes: usize) -> bool {
        let left_min = self.wal.segment_size_bytes() / LOG_PART_FOR_ITSELF;
        let left = self.wal.room_behind(size_bytes.min(self.wal.record_size_bytes_max()));
        left.is_some_and(|left| left >= left_min || !self.wal.is_in_last_segment())
    }

    fn room_in_log(&self, size_bytes: usize, need: Need) -> Room {
        let record_size_bytes = ENTRY_HEAD_SIZE_BYTES + size_bytes;
        assert!(record_size_bytes <= self.wal.record_size_bytes_max(), "{record_size_bytes}");
        let segment_size_bytes = self.wal.segment_size_bytes();
        let left_min = match need {
            Need::Stores => segment_size_bytes / LOG_PART_FOR_FREEING,
            Need::Frees => segment_size_bytes / LOG_PART_FOR_ITSELF,
            Need::Serves => 0,
        };
        let is_starved = self.wal.starvation().is_some();
        match self.wal.room_behind(record_size_bytes) {
            Some(left) if left >= left_min => Room::Yes,
            // With its opening the segment after the spare will be prepared.
            Some(_) if !is_starved && !self.wal.is_in_last_segment() => Room::Yes,
            _ if is_starved => Room::No,
            _ => Room::Soon,
        }
    }

    pub(super) fn refuse_taken(&mut self, reason: Unavailable) {
        for ticket in self.batcher.handle_refused() {
            self.refuse(ticket, reason);
        }
    }
}
