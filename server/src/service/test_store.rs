//! A store in memory for the services' tests: frames go in, answers, events and views come out.

use std::sync::Arc;

use engine::answer::Answer;
use engine::command::{self, Batch, BatchHeader, FrameWriter, PutRef};
use engine::engine::{Engine, EngineConfig, EngineFiles, Identity};
use engine::events::EventBatch;
use engine::ids::{ClusterId, LogIndex, MemberId, Revision, Term};
use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskOpKind};
use engine::range::Progress;
use engine::view::ReadHandle;

use super::node_state::{MemberEntry, NodeState};

/// The node whose store it is.
pub(crate) fn node() -> NodeState {
    let member_id = MemberId(0xae);
    let peer_urls = vec!["http://localhost:2380".to_owned()];
    NodeState {
        cluster_id: ClusterId(0xc1),
        member_id,
        term: Term(3),
        leader: Some(member_id),
        committed: LogIndex(0),
        members: vec![MemberEntry { id: member_id, peer_urls, learner: false }],
        quota_bytes: 2 << 30,
        learner: false,
    }
}

/// One shard, nothing on a disk.
pub(crate) struct TestStore {
    pub(crate) engine: Engine,
    pub(crate) reader: ReadHandle,
    index: u64,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let config = EngineConfig { shards: 1, shard_size_bytes_max: 64 << 20 };
        let identity = Identity { cluster: ClusterId(0xc1), member: MemberId(0xae) };
        let mut engine = Engine::create(EngineFiles::new_in_memory(), config, identity).unwrap();
        engine.publish();
        let reader = engine.read_handle();
        Self { engine, reader, index: 0 }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.engine.revision()
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let mut frames = Vec::new();
        FrameWriter::new().push_put(&mut frames, &PutRef { key, value, ..PutRef::default() });
        self.commit(&frames);
    }

    /// Commits frames as one batch.
    pub(crate) fn commit(&mut self, frames: &[u8]) -> (Vec<Answer>, Option<Arc<EventBatch>>) {
        let header = BatchHeader {
            member: MemberId(0xae),
            boot_nonce: 1,
            sequence_first: self.index * 1000,
            frame_count: command::frame_count(frames).unwrap(),
        };
        let batch = Batch::validate([&header.to_bytes()[..], frames].concat()).unwrap();
        self.index += 1;
        self.engine.begin_batch(LogIndex(self.index), Term(3), &batch);
        let mut answers = Vec::new();
        while self.engine.apply_step(100, &mut answers).unwrap() == Progress::More {
            self.serve_disk();
        }
        assert_eq!(answers.len(), batch.len());
        self.engine.publish();
        (answers, self.engine.take_events())
    }

    /// A disk that does everything at once: a batch may wait for a file to grow.
    fn serve_disk(&mut self) {
        while let Some(op) = self.engine.poll_disk_op() {
            let buffer = match op.kind {
                DiskOpKind::Write { bytes, .. } => bytes,
                DiskOpKind::Sync | DiskOpKind::Allocate { .. } | DiskOpKind::Shorten { .. } => {
                    PageBuffer::default()
                }
            };
            let completion = Completion { token: op.token, buffer, result: Ok(()) };
            self.engine.handle_disk_completion(completion).unwrap();
        }
    }

    /// Lets the sweep of a compaction finish.
    pub(crate) fn sweep(&mut self) {
        while self.engine.background_step(1000).unwrap() {}
        self.engine.publish();
    }
}
