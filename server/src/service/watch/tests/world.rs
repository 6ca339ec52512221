//! A store with its log cut short: commands go in, events and views come out.

use std::sync::Arc;

use engine::command::{
    Batch, BatchHeader, CompactRef, DeleteRangeRef, FrameWriter, OperationRef, PutRef, TxnRef,
};
use engine::engine::{Engine, EngineConfig, EngineFiles, Identity};
use engine::events::EventBatch;
use engine::ids::{ClusterId, LogIndex, MemberId, Revision, Term};
use engine::range::Progress;
use engine::view::ReadHandle;

use crate::service::node_state::NodeState;
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
    engine: Engine,
    pub(super) reader: ReadHandle,
    index: u64,
    writer: FrameWriter,
}

pub(super) fn node() -> NodeState {
    NodeState {
        cluster_id: ClusterId(0xc1),
        member_id: MemberId(0xae),
        term: Term(3),
        ..NodeState::default()
    }
}

impl World {
    pub(super) fn new() -> Self {
        let config = EngineConfig { shards: 1, shard_size_bytes_max: 64 << 20 };
        let identity = Identity { cluster: ClusterId(0xc1), member: MemberId(0xae) };
        let mut engine = Engine::create(EngineFiles::new_in_memory(), config, identity).unwrap();
        engine.publish();
        let reader = engine.read_handle();
        Self { engine, reader, index: 0, writer: FrameWriter::new() }
    }

    pub(super) fn revision(&self) -> Revision {
        self.engine.revision()
    }

    pub(super) fn want(&mut self, wanted: EventsWanted) {
        self.engine.set_events_wanted(wanted.events, wanted.prevs);
    }

    /// Commits one batch. Gives the events that go through the ring.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Option<Arc<EventBatch>> {
        let mut frames = Vec::new();
        for change in changes {
            self.push(&mut frames, change);
        }
        let header = BatchHeader {
            member: MemberId(0xae),
            boot_nonce: 1,
            sequence_first: self.index * 1000,
            frame_count: u32::try_from(changes.len()).unwrap(),
        };
        let batch = Batch::validate([&header.to_bytes()[..], &frames].concat()).unwrap();
        self.index += 1;
        self.engine.begin_batch(LogIndex(self.index), Term(3), &batch);
        let mut answers = Vec::new();
        while self.engine.apply_step(100, &mut answers).unwrap() == Progress::More {}
        assert_eq!(answers.len(), changes.len());
        self.engine.publish();
        self.engine.take_events()
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
                let put = |(key, value): &'_ (Vec<u8>, Vec<u8>)| {
                    // The operations borrow from `puts`, which outlives the frame's encoding.
                    (key.clone(), value.clone())
                };
                let owned: Vec<_> = puts.iter().map(put).collect();
                let success = owned
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

    /// Lets the sweep of a compaction finish.
    pub(super) fn sweep(&mut self) {
        while self.engine.background_step(1000).unwrap() {}
        self.engine.publish();
    }
}
