//! A log on a simulated disk, and what must be true of it after any crash.
//!
//! The model is a list of everything ever appended, and how far each life was told that it is
//! durable. After a recovery the list is cut to what came back; it must have kept all that was
//! durable, and everything that came back must be in it, in order.

// Each suite uses its own part of this.
#![allow(dead_code)]

use wal::sim::{Crash, Outcome, OwnedRecord, Random, SimDisk, recover};
use wal::{
    BLOCK_SIZE_BYTES, Config, DiskOp, Lsn, OpId, RecordKind, SegmentSequence, Start, Writer,
};

pub const SEGMENT_SIZE_BYTES: u64 = 32 << 10;

pub fn config() -> Config {
    Config {
        segment_size_bytes: SEGMENT_SIZE_BYTES,
        batch_size_bytes: 8 << 10,
        spares_max: 2,
        writes_in_flight_max: 4,
        backlog_size_bytes_max: 256 << 10,
        identity: b"member 1".to_vec(),
    }
}

pub fn start(boot_nonce: u64) -> Start {
    Start { replay_from: Lsn::ZERO, boot_nonce, may_create: true }
}

/// One batch as it went out.
#[derive(Clone, Debug)]
pub struct BatchSeen {
    pub segment: SegmentSequence,
    pub offset: u64,
    pub size_bytes: usize,
    /// How far the log was durable when the batch was handed to the disk: at least what it claims.
    pub durable: Lsn,
}

/// A log, its disk, and the model.
pub struct Log {
    pub disk: SimDisk,
    pub writer: Writer,
    pub config: Config,
    pub waiting: Vec<(OpId, DiskOp)>,
    pub batches: Vec<BatchSeen>,
    pub issued: Lsn,
    pub model: Model,
}

#[derive(Clone, Default)]
pub struct Model {
    pub appended: Vec<(Lsn, RecordKind, Vec<u8>)>,
    pub acknowledged: Lsn,
    pub released: Lsn,
    pub boots: u64,
    pub next: u64,
}

impl Model {
    pub fn state(&self) -> Option<&[u8]> {
        let newest = self.appended.iter().rev().find(|(_, kind, _)| *kind == RecordKind::STATE);
        newest.map(|(_, _, body)| body.as_slice())
    }

    /// What came back must be what was appended, and all that was acknowledged.
    pub fn check(&mut self, recovered: &[OwnedRecord], story: &str) {
        // Nothing came back: then nothing but released records may have been acknowledged.
        let durable = self.appended.iter().take_while(|(end, ..)| *end <= self.acknowledged);
        let first = recovered.first().map_or(durable.count(), |record| {
            let found = self.appended.iter().position(|(end, ..)| *end == record.end);
            found.unwrap_or_else(|| panic!("{story}: {record:?} was never appended"))
        });
        let lowest = Lsn(self.released.0 / SEGMENT_SIZE_BYTES * SEGMENT_SIZE_BYTES);
        for (end, kind, _) in &self.appended[..first] {
            let needed = *end >= lowest && *end <= self.acknowledged;
            assert!(!needed, "{story}: {kind:?} until {end} is lost from the start");
        }
        assert!(recovered.len() <= self.appended.len() - first, "{story}");
        for (index, record) in recovered.iter().enumerate() {
            let (end, kind, body) = &self.appended[first + index];
            assert_eq!((*end, *kind), (record.end, record.kind), "{story}");
            assert_eq!(*body, record.body, "{story}");
        }
        let last = first + recovered.len();
        for (end, kind, _) in &self.appended[last..] {
            assert!(*end > self.acknowledged, "{story}: acknowledged {kind:?} until {end} is lost");
        }
        self.appended.truncate(last);
    }
}

impl Log {
    pub fn create(seed: u64) -> Self {
        Self::create_with(seed, config())
    }

    pub fn create_with(seed: u64, config: Config) -> Self {
        let mut disk = SimDisk::new(seed);
        let Outcome::Open(writer, records) = recover(&mut disk, &config, start(seed), u64::MAX)
        else {
            panic!("a log is created in an empty directory");
        };
        assert!(records.is_empty());
        let model = Model { boots: seed, ..Model::default() };
        let (waiting, batches) = (Vec::new(), Vec::new());
        let issued = writer.durable();
        Self { disk, writer: *writer, config, waiting, batches, issued, model }
    }

    pub fn append(&mut self, size: usize) {
        let body = self.body(size);
        let kind = RecordKind::owned(7);
        let (left, right) = body.split_at(size / 3);
        let end = self.writer.append(kind, &[left, &[], right]).unwrap();
        self.model.appended.push((end, kind, body));
    }

    pub fn append_state(&mut self, size: usize) {
        let body = self.body(size);
        let end = self.writer.append_state(&body).unwrap();
        self.model.appended.push((end, RecordKind::STATE, body));
    }

    pub fn append_reset(&mut self) {
        let body = self.body(16);
        let end = self.writer.append_reset(&body).unwrap();
        self.model.appended.push((end, RecordKind::RESET, body));
    }

    // No two bodies are alike, so that no record can stand in for another.
    fn body(&mut self, size: usize) -> Vec<u8> {
        self.model.next += 1;
        let mut random = Random::new(self.model.next);
        (0..size).map(|_| random.number().to_le_bytes()[0]).collect()
    }

    pub fn issue(&mut self) {
        while let Some((id, op)) = self.writer.poll_op() {
            if let DiskOp::Write { segment, offset, buffer } = &op {
                let (segment, offset) = (*segment, *offset);
                let (size_bytes, durable) = (buffer.as_slice().len(), self.writer.durable());
                // One block at the head is the mark of a spare: a first batch has more.
                if offset > 0 || size_bytes > BLOCK_SIZE_BYTES {
                    // Batches go out in order and never over one another, nor over what was
                    // recovered.
                    let begin = segment.0 * self.config.segment_size_bytes + offset;
                    assert!(begin >= self.issued.0, "a block is written again at {begin:#x}");
                    self.issued = Lsn(begin + size_bytes as u64);
                    self.batches.push(BatchSeen { segment, offset, size_bytes, durable });
                }
            }
            self.waiting.push((id, op));
        }
    }

    pub fn complete(&mut self, index: usize) {
        let (id, op) = self.waiting.remove(index);
        let result = self.disk.perform(op);
        self.writer.handle_completion(id, result).unwrap();
        self.model.acknowledged = self.writer.durable();
    }

    pub fn settle(&mut self) {
        self.writer.flush();
        loop {
            self.issue();
            if self.waiting.is_empty() {
                return;
            }
            self.complete(0);
        }
    }

    pub fn release(&mut self, lsn: Lsn) {
        self.writer.release_before(lsn);
        self.model.released = self.model.released.max(lsn);
    }

    /// One random step of a random life.
    pub fn step(&mut self, random: &mut Random) {
        match random.below(16) {
            0..=4 => {
                let size = [0, 1, 7, 8, 100, 274, 1500, 5000][random.below(8)];
                self.append(size);
            }
            5 => {
                let size = if random.once_in(8) {
                    self.writer.record_size_bytes_max() - random.below(9)
                } else {
                    random.below(9000)
                };
                self.append(size);
            }
            6 => {
                let size = random.below(200);
                self.append_state(size);
            }
            7 if random.once_in(4) => self.append_reset(),
            8 => {
                // Anywhere in the durable part, mostly far behind.
                let durable = self.writer.durable().0;
                let back = random.below(usize::try_from(3 * SEGMENT_SIZE_BYTES).unwrap());
                self.release(Lsn(durable.saturating_sub(back as u64)));
            }
            9 | 10 => {
                self.writer.flush();
                self.issue();
            }
            _ if self.waiting.is_empty() => {
                self.writer.flush();
                self.issue();
            }
            _ => {
                let index = random.below(self.waiting.len());
                self.complete(index);
                self.issue();
            }
        }
        assert!(self.writer.durable() <= self.writer.sealed());
        assert!(self.writer.sealed() <= self.writer.appended());
    }

    /// Stop, recover (the recovery itself crashing after each count in `crashes`), and check.
    pub fn crash(self, crash: Crash, crashes: &[u64], story: &str) -> Self {
        let Self { mut disk, config, waiting, mut model, .. } = self;
        disk.crash(waiting.into_iter().map(|(_, op)| op), crash);
        for count in crashes {
            model.boots += 1;
            match recover(&mut disk, &config, start(model.boots), *count) {
                Outcome::Interrupted(op) => disk.crash(vec![op], crash),
                Outcome::Open(writer, records) => {
                    // What a finished recovery reported is durable, though nothing followed it.
                    model.check(&records, story);
                    model.acknowledged = writer.durable();
                    disk.crash(Vec::new(), crash);
                }
                Outcome::Failed(error) => panic!("{story}: {error}"),
            }
        }
        model.boots += 1;
        match recover(&mut disk, &config, start(model.boots), u64::MAX) {
            Outcome::Open(writer, records) => {
                let story = format!("{story}, {crash:?}");
                model.check(&records, &story);
                assert_eq!(writer.state(), model.state(), "{story}");
                model.acknowledged = writer.durable();
                let (waiting, batches) = (Vec::new(), Vec::new());
                let issued = writer.durable();
                Self { disk, writer: *writer, config, waiting, batches, issued, model }
            }
            Outcome::Failed(error) => panic!("{story}, {crash:?}: {error}"),
            Outcome::Interrupted(_) => unreachable!("no bound was set"),
        }
    }
}
