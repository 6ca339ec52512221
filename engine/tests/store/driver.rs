//! Drives an engine as the log core does, with a disk that is a few byte vectors.

use engine::command::{
    AlarmRef, BATCH_HEADER_SIZE_BYTES, CompactRef, DeleteRangeRef, LeaseGrantRef, LeaseRemaining,
    LeaseRevokeRef, MemberAddRef, MemberPublishRef, MemberUpdateRef, PutRef, TxnRef,
};
use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskError, DiskOpKind, FileId};
use engine::{
    Answer, Batch, BatchHeader, Engine, EngineConfig, EngineFiles, EventBatch, FrameWriter,
    HeldView, Identity, LogIndex, MemberId, OwnedRecord, Progress, RangeQuery, RangeScan,
    RangeSummary, ReadError, ReadHandle, Rejection, Term,
};
use std::sync::Arc;

use crate::random::Random;

/// Frames on their way into a batch.
#[derive(Default)]
pub struct Frames {
    writer: FrameWriter,
    bytes: Vec<u8>,
    count: u32,
}

impl Frames {
    pub fn new() -> Self {
        Self { bytes: vec![0; BATCH_HEADER_SIZE_BYTES], ..Self::default() }
    }

    pub fn put(mut self, put: &PutRef<'_>) -> Self {
        self.writer.push_put(&mut self.bytes, put);
        self.count += 1;
        self
    }

    pub fn delete(mut self, delete: &DeleteRangeRef<'_>) -> Self {
        self.writer.push_delete_range(&mut self.bytes, delete);
        self.count += 1;
        self
    }

    pub fn txn(mut self, txn: &TxnRef<'_>) -> Self {
        self.writer.push_txn(&mut self.bytes, txn);
        self.count += 1;
        self
    }

    pub fn compact(mut self, compact: CompactRef) -> Self {
        self.writer.push_compact(&mut self.bytes, compact);
        self.count += 1;
        self
    }

    pub fn grant(mut self, grant: LeaseGrantRef) -> Self {
        self.writer.push_lease_grant(&mut self.bytes, grant);
        self.count += 1;
        self
    }

    pub fn revoke(mut self, revoke: LeaseRevokeRef) -> Self {
        self.writer.push_lease_revoke(&mut self.bytes, revoke);
        self.count += 1;
        self
    }

    pub fn note(mut self, leases: &[LeaseRemaining]) -> Self {
        self.writer.push_lease_checkpoint(&mut self.bytes, leases);
        self.count += 1;
        self
    }

    pub fn member(mut self, member: &MemberPublishRef<'_>) -> Self {
        self.writer.push_member_publish(&mut self.bytes, member);
        self.count += 1;
        self
    }

    pub fn alarm(mut self, alarm: AlarmRef) -> Self {
        self.writer.push_alarm(&mut self.bytes, alarm);
        self.count += 1;
        self
    }

    pub fn downgrade(mut self, target: Option<&str>) -> Self {
        self.writer.push_downgrade(&mut self.bytes, target);
        self.count += 1;
        self
    }

    pub fn member_add(mut self, add: &MemberAddRef<'_>) -> Self {
        self.writer.push_member_add(&mut self.bytes, add);
        self.count += 1;
        self
    }

    pub fn member_remove(mut self, id: MemberId) -> Self {
        self.writer.push_member_remove(&mut self.bytes, id);
        self.count += 1;
        self
    }

    pub fn member_promote(mut self, id: MemberId) -> Self {
        self.writer.push_member_promote(&mut self.bytes, id);
        self.count += 1;
        self
    }

    pub fn member_update(mut self, update: &MemberUpdateRef<'_>) -> Self {
        self.writer.push_member_update(&mut self.bytes, update);
        self.count += 1;
        self
    }

    pub fn cluster_version(mut self, version: &str) -> Self {
        self.writer.push_cluster_version_set(&mut self.bytes, version);
        self.count += 1;
        self
    }

    pub fn into_batch(mut self) -> Batch {
        let header = BatchHeader {
            member: MemberId(7),
            boot_nonce: 11,
            sequence_first: 1,
            frame_count: self.count,
        };
        self.bytes[..BATCH_HEADER_SIZE_BYTES].copy_from_slice(&header.to_bytes());
        Batch::validate(self.bytes).expect("own frames are sound")
    }
}

pub const IDENTITY: Identity =
    Identity { cluster: engine::ClusterId(0xc1), member: MemberId(0x3e) };

/// An engine, its disk, and how it is driven.
pub struct Driver {
    pub engine: Engine,
    pub handle: ReadHandle,
    config: EngineConfig,
    meta: Vec<u8>,
    shards: Vec<Vec<u8>>,
    /// What was written since its file was synced: where, and the bytes.
    unsynced: Vec<(FileId, usize, Vec<u8>)>,
    /// Operations until the disk does nothing any more.
    pub ops_left: usize,
    /// Operations that were done.
    pub ops: usize,
    /// Keys a step may touch.
    pub budget: usize,
    /// The disk does not cut files off.
    pub refuses_to_shorten: bool,
    /// Bytes that were written without being read soon.
    pub cold_bytes: usize,
}

pub fn config(shards: u16) -> EngineConfig {
    EngineConfig { shards, shard_size_bytes_max: 1 << 30 }
}

impl Driver {
    pub fn new(shards: u16) -> Self {
        Self::with_config(config(shards))
    }

    pub fn with_config(config: EngineConfig) -> Self {
        let shards = config.shards;
        let files = EngineFiles::new_in_memory();
        let engine = Engine::create(files, config, IDENTITY).unwrap();
        let handle = engine.read_handle();
        let disk = vec![Vec::new(); usize::from(shards)];
        Self {
            engine,
            handle,
            config,
            meta: Vec::new(),
            shards: disk,
            unsynced: Vec::new(),
            ops_left: usize::MAX,
            ops: 0,
            budget: usize::MAX,
            refuses_to_shorten: false,
            cold_bytes: 0,
        }
    }

    /// Applies and publishes a batch as the next entry.
    pub fn apply(&mut self, frames: Frames) -> Vec<Answer> {
        self.apply_batch(&frames.into_batch())
    }

    pub fn apply_batch(&mut self, batch: &Batch) -> Vec<Answer> {
        let (applied, term) = self.engine.applied();
        self.engine.reserve_for(batch.bytes().len()).unwrap();
        self.engine.begin_batch(LogIndex(applied.0 + 1), Term(term.0.max(1)), batch);
        let mut answers = Vec::new();
        while self.engine.apply_step(self.budget, &mut answers).unwrap() == Progress::More {}
        self.engine.publish();
        assert_eq!(answers.len(), batch.len());
        answers
    }

    /// Sweeps until nothing is left.
    pub fn sweep(&mut self) {
        while self.engine.background_step(self.budget.min(1000)).unwrap() {}
    }

    /// Performs a whole checkpoint.
    pub fn checkpoint(&mut self) {
        self.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
        assert!(self.engine.begin_checkpoint());
        self.pump();
        assert!(!self.engine.is_checkpointing());
    }

    /// Takes a step of the defragmentation under way; whether it took a checkpoint.
    pub fn defrag_step(&mut self, budget: usize) -> bool {
        self.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
        let wants_checkpoint = self.engine.defrag_wants_checkpoint();
        if wants_checkpoint {
            self.checkpoint();
        }
        self.engine.defrag_step(budget).unwrap();
        self.pump();
        wants_checkpoint
    }

    /// Defragments until that is done.
    pub fn defrag(&mut self) {
        self.engine.begin_defrag();
        for _ in 0..1_000_000 {
            if !self.engine.is_defragmenting() {
                return;
            }
            self.defrag_step(50);
        }
        panic!("a defragmentation without an end");
    }

    /// Performs what the engine has for the disk, until that does nothing any more.
    pub fn pump(&mut self) {
        while self.ops_left > 0
            && let Some(op) = self.engine.poll_disk_op()
        {
            self.ops_left -= 1;
            self.ops += 1;
            let (mut buffer, mut result) = (PageBuffer::default(), Ok(()));
            match op.kind {
                DiskOpKind::Write { offset, bytes, is_cold } => {
                    self.cold_bytes += if is_cold { bytes.len() } else { 0 };
                    let start = usize::try_from(offset).unwrap();
                    self.unsynced.push((op.file, start, bytes.to_vec()));
                    buffer = bytes;
                }
                DiskOpKind::Sync => self.sync(op.file),
                DiskOpKind::Shorten { .. } if self.refuses_to_shorten => {
                    let cause = std::io::Error::from_raw_os_error(5);
                    result = Err(DiskError { file: op.file, operation: "shorten", cause });
                }
                DiskOpKind::Shorten { size_bytes } => {
                    self.file(op.file).truncate(usize::try_from(size_bytes).unwrap());
                }
                DiskOpKind::Allocate { size_bytes } => {
                    let size = usize::try_from(size_bytes).unwrap();
                    let file = self.file(op.file);
                    file.resize(file.len().max(size), 0);
                }
            }
            let completion = Completion { token: op.token, buffer, result };
            self.engine.handle_disk_completion(completion).unwrap();
        }
    }

    fn file(&mut self, file: FileId) -> &mut Vec<u8> {
        match file {
            FileId::Meta => &mut self.meta,
            FileId::Shard(shard) => &mut self.shards[usize::from(shard)],
        }
    }

    fn sync(&mut self, synced: FileId) {
        for (file, start, bytes) in std::mem::take(&mut self.unsynced) {
            if file == synced {
                self.put_bytes(file, start, &bytes);
            } else {
                self.unsynced.push((file, start, bytes));
            }
        }
    }

    fn put_bytes(&mut self, file: FileId, start: usize, bytes: &[u8]) {
        let file = self.file(file);
        if file.len() < start + bytes.len() {
            file.resize(start + bytes.len(), 0);
        }
        file[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// The power goes: of what was not synced some sectors reached the medium.
    pub fn crash(&mut self, random: &mut Random) {
        for (file, start, bytes) in std::mem::take(&mut self.unsynced) {
            for (place, sector) in bytes.chunks(512).enumerate() {
                if random.one_in(2) {
                    self.put_bytes(file, start + 512 * place, sector);
                }
            }
        }
        self.ops_left = usize::MAX;
        self.reopen();
    }

    /// Loses the process and opens what is on the disk.
    pub fn reopen(&mut self) {
        self.unsynced.clear();
        let files = EngineFiles::Memory { meta: self.meta.clone(), shards: self.shards.clone() };
        self.engine = Engine::open(files, self.config).unwrap();
        self.handle = self.engine.read_handle();
    }

    pub fn shard_count(&self) -> u16 {
        self.config.shards
    }

    pub fn hold(&self) -> HeldView {
        self.handle.hold().expect("a slot is free")
    }

    pub fn events(&mut self) -> Option<Arc<EventBatch>> {
        self.engine.take_events()
    }

    pub fn range(
        &mut self,
        query: &RangeQuery<'_>,
    ) -> Result<(Vec<OwnedRecord>, RangeSummary), Rejection> {
        let mut scan = RangeScan::new(query);
        let mut records = Vec::new();
        loop {
            let view = self.handle.pin();
            match scan.step(&view, self.budget, &mut records) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => return Ok((records, scan.summary())),
                Err(ReadError::Rejection(rejection)) => return Err(rejection),
                Err(ReadError::Fault(fault)) => panic!("{fault}"),
            }
        }
    }
}
