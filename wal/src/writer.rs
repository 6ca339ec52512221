//! Group commit: many appends, few writes.
//!
//! Appends gather in one aligned buffer: each body is copied once and checksummed once, where it
//! lies. `flush` pads the buffer to a whole block and seals it; sealed batches go to the disk in
//! order, several at a time, and may complete in any order.
//!
//! A batch and the record that does not fit its segment any more open the next one: its head block
//! and its first batch are one write. The segment itself was prepared long before; if it was not,
//! the batch waits.
//!
//! Invariants:
//! - `durable <= sealed <= appended`; only `handle_completion` moves `durable`, and only over a
//!   prefix of batches that are all written.
//! - A batch lies in one segment, begins and ends at whole blocks, and is written once.
//! - A failed or short write, or a failed sync, poisons the writer. The kernel may already have
//!   dropped the dirty pages, so a later sync that succeeds proves nothing.

use std::collections::VecDeque;
use std::fmt;

use crate::disk::{
    AlignedBuffer, BLOCK_SIZE_BYTES, BufferPool, Cause, Completion, DiskError, DiskErrorKind,
    DiskOp, Failure, OpId, OpKind,
};
use crate::reader::Reader;
use crate::record::{Boot, FRAME_SIZE_BYTES, Frame, Lsn, RecordKind, Release, Seed, record_span};
use crate::scan::{BATCH_SIZE_BYTES_MAX, Position};
use crate::segment::{Geometry, Head, STATE_SIZE_BYTES_MAX, SegmentSequence};
use crate::spares::Spares;
use crate::{Config, RECORD_SIZE_BYTES_MAX, in_memory};

/// The end of the log, appended to.
pub struct Writer {
    config: Config,
    geometry: Geometry,
    salt: u64,
    seed: Seed,
    boot_nonce: u64,
    tail: Position,
    pending: Option<Pending>,
    outbox: VecDeque<Batch>,
    in_flight: VecDeque<InFlight>,
    pool: BufferPool,
    backlog_size_bytes: usize,
    durable: Lsn,
    sealed: Lsn,
    state: Option<Vec<u8>>,
    released: Lsn,
    // Releases that are appended, with where each ends: they count once they are durable.
    releases: VecDeque<(Lsn, SegmentSequence)>,
    spares: Spares,
    spares_op: Option<Issued>,
    op_last: u64,
    failure: Option<Failure>,
}

/// Why a record was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Larger than a segment or [`RECORD_SIZE_BYTES_MAX`] allows.
    TooLarge {
        /// The body's size.
        size_bytes: usize,
        /// What is allowed.
        size_bytes_max: usize,
    },
    /// Too much is not yet durable; append again after a completion.
    Backlog,
    /// The disk failed earlier; this log accepts nothing more.
    Poisoned(Failure),
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size_bytes, size_bytes_max } => {
                write!(formatter, "wal: a record of {size_bytes} bytes exceeds {size_bytes_max}")
            }
            Self::Backlog => formatter.write_str("wal: too much is not yet durable"),
            Self::Poisoned(failure) => failure.fmt(formatter),
        }
    }
}

impl std::error::Error for AppendError {}

// The batch being gathered: `used` bytes of the buffer, which goes to `offset` of the segment.
struct Pending {
    buffer: AlignedBuffer,
    used: usize,
    segment: SegmentSequence,
    offset: u64,
}

struct Batch {
    segment: SegmentSequence,
    offset: u64,
    buffer: AlignedBuffer,
    end: Lsn,
}

struct InFlight {
    id: OpId,
    segment: SegmentSequence,
    offset: u64,
    size_bytes: usize,
    end: Lsn,
    done: bool,
}

#[derive(Clone, Copy)]
struct Issued {
    id: OpId,
    place: (OpKind, SegmentSequence, u64),
    size_bytes: usize,
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub(crate) config: Config,
    pub(crate) salt: u64,
    pub(crate) boot_nonce: u64,
    pub(crate) tail: Position,
    pub(crate) first: SegmentSequence,
    pub(crate) ready: SegmentSequence,
    pub(crate) released: Lsn,
    pub(crate) state: Option<Vec<u8>>,
}

impl Writer {
    /// Go on behind the last whole batch. A boot record is sealed at once: it tells this life's
    /// records from whatever an earlier one may have left, and claims all before it as durable.
    pub(crate) fn new(recovered: Recovered) -> Self {
        let Recovered { config, salt, boot_nonce, tail, first, ready, released, state } = recovered;
        config.check();
        let geometry = Geometry { segment_size_bytes: config.segment_size_bytes };
        let batch_size = config.batch_size_bytes.next_multiple_of(BLOCK_SIZE_BYTES);
        let batch_capacity_bytes = batch_size + 2 * BLOCK_SIZE_BYTES;
        assert!(batch_capacity_bytes <= BATCH_SIZE_BYTES_MAX);
        let end = geometry.lsn(tail.segment, tail.offset);
        // Read from disk, where a checksum is no proof: no log releases what it has not reached.
        let released = released.min(end);
        let segments = (first, tail.segment, ready);
        let mut spares = Spares::new(config.segment_size_bytes, config.spares_max, segments);
        spares.release(geometry.split(released).0.min(tail.segment));
        let mut writer = Self {
            geometry,
            salt,
            seed: Seed::of_salt(salt),
            boot_nonce,
            tail,
            pending: None,
            outbox: VecDeque::new(),
            in_flight: VecDeque::with_capacity(config.writes_in_flight_max),
            pool: BufferPool::new(batch_capacity_bytes, config.writes_in_flight_max + 2),
            backlog_size_bytes: 0,
            durable: end,
            sealed: end,
            state,
            released,
            releases: VecDeque::new(),
            spares,
            spares_op: None,
            op_last: 0,
            failure: None,
            config,
        };
        let boot = Boot { nonce: boot_nonce }.to_bytes();
        writer.push(RecordKind::BOOT, &[&boot], boot.len());
        writer.flush();
        writer
    }

    /// Append one record, gathered from parts, and return where it ends: it is durable as soon as
    /// `durable` is there. Nothing goes to the disk before `flush`, unless the batch is full.
    pub fn append(&mut self, kind: RecordKind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        assert!(!kind.is_reserved(), "kind {kind:?} is the log's own");
        self.append_checked(kind, parts)
    }

    /// Append a hard state. It replaces the one before, and is repeated at the head of each later
    /// segment, so that no recycling loses it.
    pub fn append_state(&mut self, body: &[u8]) -> Result<Lsn, AppendError> {
        if body.len() > STATE_SIZE_BYTES_MAX {
            let (size_bytes, size_bytes_max) = (body.len(), STATE_SIZE_BYTES_MAX);
            return Err(AppendError::TooLarge { size_bytes, size_bytes_max });
        }
        let end = self.append_checked(RecordKind::STATE, &[body])?;
        let state = self.state.get_or_insert_default();
        state.clear();
        state.extend_from_slice(body);
        Ok(end)
    }

    /// Declare every record before this one void. The hard state stays: a vote outlives entries.
    pub fn append_reset(&mut self, body: &[u8]) -> Result<Lsn, AppendError> {
        self.append_checked(RecordKind::RESET, &[body])
    }

    /// Seal what is pending into one write.
    pub fn flush(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.seal(pending);
        }
    }

    /// Segments wholly before this position may be recycled. Takes effect once a record that says
    /// so is durable; that record goes out with the next `flush`.
    pub fn release_before(&mut self, lsn: Lsn) {
        assert!(lsn <= self.durable, "release of {lsn} beyond durable {}", self.durable);
        let before = self.geometry.split(lsn).0;
        if self.failure.is_some() || before <= self.geometry.split(self.released).0 {
            return;
        }
        let body = Release { before: lsn.0 }.to_bytes();
        let end = self.push(RecordKind::RELEASE, &[&body], body.len());
        self.released = lsn;
        self.releases.push_back((end, before));
    }

    /// Try again to prepare a segment after the disk was full.
    pub fn retry_spare(&mut self) {
        self.spares.retry();
    }

    /// An operation ended.
    pub fn handle_completion(
        &mut self,
        id: OpId,
        result: Result<Completion, DiskError>,
    ) -> Result<(), Failure> {
        if let Some(issued) = self.spares_op.take_if(|issued| issued.id == id) {
            self.handle_spares(issued, result);
        } else {
            self.handle_written(id, result);
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// The next operation. Nothing more once the writer is poisoned.
    pub fn poll_op(&mut self) -> Option<(OpId, DiskOp)> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(write) = self.poll_write() {
            return Some(write);
        }
        let op = self.spares.poll_op()?;
        let id = self.next_id();
        let size_bytes = match &op {
            DiskOp::Write { buffer, .. } => buffer.as_slice().len(),
            _ => 0,
        };
        self.spares_op = Some(Issued { id, place: op.place(), size_bytes });
        Some((id, op))
    }

    /// Re-read the log from where a record begins or ends, up to what is durable now. `None` if
    /// that part was released.
    pub fn reader(&self, from: Lsn) -> Option<Reader> {
        let first = self.geometry.lsn(self.spares.first(), 0);
        let released = self.geometry.lsn(self.geometry.split(self.released).0, 0);
        if from < first.max(released) {
            return None;
        }
        Some(Reader::new(self.geometry, self.salt, from, self.durable))
    }

    /// Where the last appended record ends.
    pub fn appended(&self) -> Lsn {
        self.geometry.lsn(self.tail.segment, self.tail.offset)
    }

    /// Where the last sealed batch ends.
    pub fn sealed(&self) -> Lsn {
        self.sealed
    }

    /// Everything before is durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// How much the next `flush` would write, without its padding.
    pub fn pending_size_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.used)
    }

    /// How much is appended and not yet durable.
    pub fn backlog_size_bytes(&self) -> usize {
        self.backlog_size_bytes + self.pending_size_bytes()
    }

    /// How many writes are at the disk.
    pub fn writes_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Why the disk has no room for a further segment, if it has none; until there is one. What is
    /// left of the prepared segments is all that can be written: see [`Writer::room_behind`].
    pub fn starvation(&self) -> Option<DiskError> {
        self.spares.starvation()
    }

    /// How much of the prepared segments would be left behind a record of this size, written as a
    /// batch of its own. `None` if they cannot hold it: the owner appends it when a further segment
    /// is ready. A log whose next write has no segment, on a disk that is full, is at its end.
    pub fn room_behind(&self, body_size_bytes: usize) -> Option<u64> {
        let size = self.geometry.segment_size_bytes;
        let block = BLOCK_SIZE_BYTES as u64;
        let batch = (record_span(body_size_bytes) + FRAME_SIZE_BYTES) as u64;
        let mut segment = self.tail.segment;
        // What is being gathered may be sealed before.
        let mut offset = match self.pending {
            Some(_) => (self.tail.offset + FRAME_SIZE_BYTES as u64).next_multiple_of(block),
            None => self.tail.offset,
        };
        while segment <= self.spares.ready() {
            let end = (offset + batch).next_multiple_of(block);
            if end <= size {
                let further = self.spares.ready().0 - segment.0;
                return Some(size - end + further * (size - block));
            }
            (segment, offset) = (segment.next(), block);
            if offset + batch > size {
                return None;
            }
        }
        None
    }

    /// Whether no further segment is ready behind the one in use.
    pub fn is_in_last_segment(&self) -> bool {
        self.spares.ready() <= self.tail.segment
    }

    /// Whether a segment exists that a release could turn into a further one.
    pub fn has_old_segment(&self) -> bool {
        self.spares.first() < self.tail.segment
    }

    /// The size of each segment's file.
    pub fn segment_size_bytes(&self) -> u64 {
        self.geometry.segment_size_bytes
    }

    /// The oldest position that can still be re-read.
    pub fn first(&self) -> Lsn {
        self.geometry.lsn(self.spares.first(), 0)
    }

    /// Whether the log still begins with its first record: no segment was ever given away.
    pub fn is_whole(&self) -> bool {
        self.spares.first() == SegmentSequence(1)
    }

    /// The newest hard state appended.
    pub fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    /// The largest body that fits a segment.
    pub fn record_size_bytes_max(&self) -> usize {
        let frames = 2 * FRAME_SIZE_BYTES + BLOCK_SIZE_BYTES;
        RECORD_SIZE_BYTES_MAX.min(in_memory(self.config.segment_size_bytes) - frames)
    }

    fn append_checked(&mut self, kind: RecordKind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        if let Some(failure) = self.failure {
            return Err(AppendError::Poisoned(failure));
        }
        let size_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let size_bytes_max = self.record_size_bytes_max();
        if size_bytes > size_bytes_max {
            return Err(AppendError::TooLarge { size_bytes, size_bytes_max });
        }
        let backlog = self.backlog_size_bytes();
        // A single record larger than the bound passes when nothing else waits.
        if backlog > 0 && backlog + size_bytes > self.config.backlog_size_bytes_max {
            return Err(AppendError::Backlog);
        }
        Ok(self.push(kind, parts, size_bytes))
    }

    fn push(&mut self, kind: RecordKind, parts: &[&[u8]], body_size: usize) -> Lsn {
        let span = record_span(body_size);
        let lsn_durable = self.durable;
        let (mut pending, seed) = (self.take_pending(span), self.seed);
        let lsn = self.appended();
        let record = &mut pending.buffer.as_mut_slice()[pending.used..pending.used + span];
        let (frame, body) = record.split_at_mut(FRAME_SIZE_BYTES);
        let mut at = 0;
        for part in parts {
            body[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        assert_eq!(at, body_size);
        body[at..].fill(0);
        let header = Frame {
            body_size: u32::try_from(body_size).expect("bounded by RECORD_SIZE_BYTES_MAX"),
            body_crc: crc32fast::hash(body),
            previous: self.tail.chain,
            lsn,
            durable: lsn_durable,
            number: self.tail.number + 1,
            kind,
        };
        self.tail.chain = header.encode(seed, frame);
        self.tail.number += 1;
        self.tail.offset += span as u64;
        pending.used += span;
        self.pending = Some(pending);
        self.appended()
    }

    // The batch that takes a record of this span: the one being gathered, a new one in the same
    // segment, or the first of the next segment. The seal that ends each batch must fit too.
    fn take_pending(&mut self, span: usize) -> Pending {
        let needed = span + FRAME_SIZE_BYTES;
        let fits_segment = self.tail.offset + needed as u64 <= self.geometry.segment_size_bytes;
        if let Some(pending) = self.pending.take() {
            if fits_segment && pending.used + needed <= pending.buffer.capacity() {
                return pending;
            }
            self.seal(pending);
        }
        // Asked again: the seal has moved the tail to the next whole block.
        if self.tail.offset + needed as u64 > self.geometry.segment_size_bytes {
            return self.open_segment(needed);
        }
        let buffer = self.pool.take(needed);
        Pending { buffer, used: 0, segment: self.tail.segment, offset: self.tail.offset }
    }

    fn open_segment(&mut self, needed: usize) -> Pending {
        let segment = self.tail.segment.next();
        assert!(segment.0 <= self.geometry.sequence_max());
        let head = Head {
            segment_size_bytes: self.geometry.segment_size_bytes,
            salt: self.salt,
            boot_nonce: self.boot_nonce,
            previous_end: self.appended().0,
            previous_chain: self.tail.chain.0,
            durable: self.durable.0,
            released: self.released.0,
            identity: self.config.identity.clone(),
            state: self.state.clone(),
        };
        let mut buffer = self.pool.take(BLOCK_SIZE_BYTES + needed);
        let chain = head.encode(segment, &mut buffer.as_mut_slice()[..BLOCK_SIZE_BYTES]);
        self.tail = Position { segment, offset: BLOCK_SIZE_BYTES as u64, chain, number: 0 };
        self.spares.open(segment);
        Pending { buffer, used: BLOCK_SIZE_BYTES, segment, offset: 0 }
    }

    // The seal's body fills the batch up to a whole block. Recovery takes a batch whole or not at
    // all, and knows by the seal that it is whole.
    fn seal(&mut self, pending: Pending) {
        let Pending { mut buffer, used, segment, offset } = pending;
        let size = (used + FRAME_SIZE_BYTES).next_multiple_of(BLOCK_SIZE_BYTES);
        buffer.set_len(size);
        let (frame, fill) = buffer.as_mut_slice()[used..].split_at_mut(FRAME_SIZE_BYTES);
        fill.fill(0);
        let header = Frame {
            body_size: u32::try_from(fill.len()).expect("less than a block"),
            body_crc: crc32fast::hash(fill),
            previous: self.tail.chain,
            lsn: self.appended(),
            durable: self.durable,
            number: self.tail.number + 1,
            kind: RecordKind::SEAL,
        };
        self.tail.chain = header.encode(self.seed, frame);
        self.tail.number += 1;
        self.tail.offset = offset + size as u64;
        self.sealed = self.appended();
        assert_eq!(segment, self.tail.segment);
        self.backlog_size_bytes += size;
        self.outbox.push_back(Batch { segment, offset, buffer, end: self.sealed });
    }

    fn poll_write(&mut self) -> Option<(OpId, DiskOp)> {
        if self.in_flight.len() >= self.config.writes_in_flight_max {
            return None;
        }
        if !self.spares.is_ready(self.outbox.front()?.segment) {
            return None;
        }
        let Batch { segment, offset, buffer, end } = self.outbox.pop_front()?;
        let id = self.next_id();
        let size_bytes = buffer.as_slice().len();
        self.in_flight.push_back(InFlight { id, segment, offset, size_bytes, end, done: false });
        Some((id, DiskOp::Write { segment, offset, buffer }))
    }

    fn handle_written(&mut self, id: OpId, result: Result<Completion, DiskError>) {
        let write = self
            .in_flight
            .iter_mut()
            .find(|write| write.id == id && !write.done)
            .expect("each operation completes once, and only after it was handed out");
        let place = (OpKind::Write, write.segment, write.offset);
        match result {
            Ok(Completion::Written { buffer, size_bytes }) if size_bytes == write.size_bytes => {
                write.done = true;
                self.pool.put(buffer);
                self.advance();
            }
            Ok(Completion::Written { size_bytes, .. }) => {
                let wanted_bytes = write.size_bytes;
                self.poison(place, Cause::Short { wanted_bytes, found_bytes: size_bytes });
            }
            Ok(other) => panic!("a write completed as {other:?}"),
            Err(error) => self.poison(place, Cause::Error(error)),
        }
    }

    fn advance(&mut self) {
        // What completes behind a failure proves nothing about the prefix.
        if self.failure.is_some() {
            return;
        }
        while let Some(write) = self.in_flight.pop_front_if(|write| write.done) {
            assert!(write.end > self.durable);
            self.durable = write.end;
            self.backlog_size_bytes -= write.size_bytes;
        }
        while let Some((_, before)) = self.releases.pop_front_if(|(end, _)| *end <= self.durable) {
            self.spares.release(before);
        }
    }

    fn handle_spares(&mut self, issued: Issued, result: Result<Completion, DiskError>) {
        let result = match result {
            Ok(Completion::Written { size_bytes, .. }) if size_bytes != issued.size_bytes => {
                let (wanted_bytes, found_bytes) = (issued.size_bytes, size_bytes);
                self.poison(issued.place, Cause::Short { wanted_bytes, found_bytes });
                return;
            }
            Ok(Completion::Done | Completion::Written { .. }) => Ok(()),
            Ok(other) => panic!("an operation on a spare completed as {other:?}"),
            Err(error) => Err(error),
        };
        if let Err(error) = self.spares.handle_completion(result) {
            self.poison(issued.place, Cause::Error(error));
            return;
        }
        let waits = self.outbox.front().is_some_and(|batch| !self.spares.is_ready(batch.segment));
        if waits && self.spares.is_stuck() {
            let no_space = DiskError { kind: DiskErrorKind::NoSpace, os_code: None };
            let place = (OpKind::Create, self.tail.segment, 0);
            self.poison(place, Cause::Error(no_space));
        }
    }

    fn poison(&mut self, place: (OpKind, SegmentSequence, u64), cause: Cause) {
        let (operation, segment, offset) = place;
        // The first failure is the one to tell; those that follow are its consequences.
        self.failure.get_or_insert(Failure { operation, segment, offset, cause });
    }

    fn next_id(&mut self) -> OpId {
        self.op_last += 1;
        OpId(self.op_last)
    }
}
