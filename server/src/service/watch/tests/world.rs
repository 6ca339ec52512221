//! A store with its log cut short: changes go in, events and views come out.

use std::sync::Arc;

use engine::command::{CompactRef, DeleteRangeRef, FrameWriter, OperationRef, PutRef, TxnRef};
use engine::events::EventBatch;
use engine::ids::Revision;

use crate::service::test_store::TestStore;
use crate::service::watch::EventsWanted;

/// A change to be made.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    /// Key and range end.
    Delete(Vec<u8>, Vec<u8>),
    /// Several keys in one revision.
    PutAll(Vec<(Vec<u8>, Vec<u8>)>),
    Compact(i64),
}

pub(super) struct World {
    pub(super) store: TestStore,
    writer: FrameWriter,
}

impl World {
    pub(super) fn new() -> Self {
        Self { store: TestStore::new(), writer: FrameWriter::new() }
    }

    pub(super) fn revision(&self) -> Revision {
        self.store.revision()
    }

    pub(super) fn want(&mut self, wanted: EventsWanted) {
        self.store.engine.set_events_wanted(wanted.events, wanted.prevs);
    }

    /// Commits one batch. Gives the events that go through the ring.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Option<Arc<EventBatch>> {
        let mut frames = Vec::new();
        for change in changes {
            self.push(&mut frames, change);
        }
        self.store.commit(&frames).1
    }

    fn push(&mut self, frames: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Put(key, value) => {
                self.writer.push_put(frames, &PutRef { key, value, ..PutRef::default() });
            }
            Change::Delete(key, range_end) => {
                let delete = DeleteRangeRef { key, range_end, prev_kv: false };
                self.writer.push_delete_range(frames, &delete);
            }
            Change::PutAll(puts) => {
                let success = puts
                    .iter()
                    .map(|(key, value)| OperationRef::Put(PutRef { key, value, ..<_>::default() }))
                    .collect();
                self.writer.push_txn(frames, &TxnRef { success, ..TxnRef::default() });
            }
            Change::Compact(revision) => {
                let revision = Revision(*revision);
                self.writer.push_compact(frames, CompactRef { revision, physical: false });
            }
        }
    }
}
