//! Recovery: from files of any state to a log whose end is certain.
//!
//! Driven like everything here: perform what `poll_op` hands out, take what `poll_record` yields,
//! until both have nothing; `poll_done` then says whether the log is ready. One operation at a
//! time; the order is list, heads, records, survivors behind the end, repair.
//!
//! How it decides: records are read until one does not continue the chain. That is the end, unless
//! anything behind it claims that the log was durable beyond: a frame, the head of a later
//! segment, or the owner's own position. The cells are in `verdict`.
//!
//! Invariants:
//! - Nothing is written before the verdict, and nothing at all when it is a refusal.
//! - The end depends on whole batches only, which repair does not touch: a crash in the middle of
//!   recovery leads the next one to the same end.
//! - Nothing recovered is called durable before a sync of this life: it may have been read from
//!   what the last life had written but not synced.

use std::collections::BTreeMap;

use crate::disk::{
    AlignedBuffer, BLOCK_SIZE_BYTES, BufferPool, Cause, Completion, DiskError, DiskOp, Failure,
    ListedFile, OpId, OpKind,
};
use crate::record::{Lsn, Record, RecordKind, Release, Seed};
use crate::refusal::{RecoveryError, Refusal};
use crate::repair::Repair;
use crate::scan::{CHUNK_SIZE_BYTES, Position, Progress, Scan};
use crate::segment::{Geometry, Head, SegmentSequence, UncheckedHead, parse_file_name};
use crate::survivors::Survivors;
use crate::verdict::{Claim, Found, Place, Verdict, decide};
use crate::writer::{Recovered, Writer};
use crate::{Config, in_memory};

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Records from the segment of this position on are handed out; the owner knows that the log
    /// was durable up to here. [`Lsn::ZERO`] for all there are.
    pub replay_from: Lsn,
    /// A number that no other start of any process has used.
    pub boot_nonce: u64,
    /// Whether an empty directory is a log to be created, rather than one that was lost.
    pub may_create: bool,
}

/// A log being opened.
pub struct Recovery {
    config: Config,
    start: Start,
    geometry: Geometry,
    files: BTreeMap<SegmentSequence, File>,
    phase: Phase,
    // Of the first segment read; all others must agree.
    salt: u64,
    released: Lsn,
    state: Option<Vec<u8>>,
    claimed: Lsn,
    created: bool,
    issued: Option<(OpId, Issued)>,
    op_last: u64,
    pool: BufferPool,
}

/// One segment's file as it was found.
pub(crate) struct File {
    pub(crate) size_bytes: u64,
    pub(crate) head: UncheckedHead,
}

enum Phase {
    List,
    // The next head to read.
    Heads(SegmentSequence),
    // Whether the first segment holds anything but zeros, from this offset on.
    Blankness { segment: SegmentSequence, offset: u64 },
    Records(Box<Scan>),
    Survivors { end: Position, found: Found, survivors: Survivors },
    Repair { tail: Position, repair: Repair },
    Done { tail: Position, ready: SegmentSequence },
    Failed(RecoveryError),
}

struct Issued {
    place: (OpKind, SegmentSequence, u64),
    wanted_bytes: usize,
}

impl Recovery {
    /// Nothing is known yet.
    pub fn new(config: Config, start: Start) -> Self {
        config.check();
        let geometry = Geometry { segment_size_bytes: config.segment_size_bytes };
        Self {
            config,
            start,
            geometry,
            files: BTreeMap::new(),
            phase: Phase::List,
            salt: start.boot_nonce,
            released: Lsn::ZERO,
            state: None,
            claimed: start.replay_from,
            created: false,
            issued: None,
            op_last: 0,
            pool: BufferPool::new(in_memory(CHUNK_SIZE_BYTES.min(geometry.segment_size_bytes)), 1),
        }
    }

    /// An operation ended.
    pub fn handle_completion(&mut self, id: OpId, result: Result<Completion, DiskError>) {
        let (issued_id, issued) = self.issued.take().expect("completions come after operations");
        assert_eq!(id, issued_id);
        if let Some(cause) = cause_of(&issued, &result) {
            let (operation, segment, offset) = issued.place;
            let failure = Failure { operation, segment, offset, cause };
            self.phase = Phase::Failed(RecoveryError::Disk(failure));
            return;
        }
        let completion = result.expect("its error was a cause");
        if let Err(refusal) = self.handle(&completion) {
            self.refuse(refusal);
        }
        if let Completion::Read { buffer, .. } = completion {
            self.pool.put(buffer);
        }
    }

    fn handle(&mut self, completion: &Completion) -> Result<(), Refusal> {
        match (&mut self.phase, completion) {
            (Phase::List, Completion::Listed(files)) => self.handle_list(files),
            (Phase::Heads(segment), Completion::Read { buffer, .. }) => {
                let segment = *segment;
                self.handle_head(segment, buffer.as_slice())
            }
            (Phase::Blankness { segment, offset }, Completion::Read { buffer, .. }) => {
                let segment = *segment;
                *offset += buffer.as_slice().len() as u64;
                let blank = buffer.as_slice().iter().all(|byte| *byte == 0);
                if blank { Ok(()) } else { Err(Refusal::HeadLost { segment }) }
            }
            (Phase::Records(scan), Completion::Read { buffer, .. }) => {
                scan.handle_read(buffer.as_slice());
                Ok(())
            }
            (Phase::Survivors { survivors, .. }, Completion::Read { buffer, .. }) => {
                survivors.handle_read(buffer.as_slice());
                Ok(())
            }
            (Phase::Repair { repair, .. }, Completion::Done | Completion::Written { .. }) => {
                repair.handle_done();
                Ok(())
            }
            (_, other) => panic!("an operation completed as {other:?}"),
        }
    }

    /// The next operation.
    pub fn poll_op(&mut self) -> Option<(OpId, DiskOp)> {
        if self.issued.is_some() {
            return None;
        }
        if let Err(refusal) = self.settle() {
            self.refuse(refusal);
        }
        let (op, wanted_bytes) = self.next_op()?;
        self.op_last += 1;
        let id = OpId(self.op_last);
        self.issued = Some((id, Issued { place: op.place(), wanted_bytes }));
        Some((id, op))
    }

    /// The next record, in order. Records of before `replay_from` may be among the first.
    pub fn poll_record(&mut self) -> Option<Record<'_>> {
        let Self { phase: Phase::Records(scan), released, state, .. } = self else { return None };
        loop {
            let kind = scan.peek_kind()?;
            if !kind.is_reserved() || kind == RecordKind::RESET || kind == RecordKind::STATE {
                let record = scan.poll_record()?;
                if kind == RecordKind::STATE {
                    *state = Some(record.body.to_vec());
                }
                return Some(record);
            }
            let record = scan.poll_record()?;
            if kind == RecordKind::RELEASE {
                // Its checksum was right, so a body of another shape is of another version; the
                // position it names is missed at the end, not acted upon.
                let before = Release::before(record.body).unwrap_or(Lsn::ZERO);
                *released = before.max(*released);
            }
        }
    }

    /// Whether the log is ready, or why it never will be.
    pub fn poll_done(&self) -> Result<bool, RecoveryError> {
        match &self.phase {
            Phase::Done { .. } => Ok(true),
            Phase::Failed(error) => Err(error.clone()),
            _ => Ok(false),
        }
    }

    /// Whether there was no log, and one was created.
    pub fn is_created(&self) -> bool {
        self.created
    }

    /// The newest hard state among the records taken so far, or from the head where they began.
    pub fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    /// The writer behind the last whole batch. Only when `poll_done` said so.
    pub fn finish(self) -> Writer {
        let Phase::Done { tail, ready } = self.phase else {
            panic!("finished before recovery was done");
        };
        let first = self.files.keys().next().copied().unwrap_or(tail.segment);
        Writer::new(Recovered {
            config: self.config,
            salt: self.salt,
            boot_nonce: self.start.boot_nonce,
            tail,
            first,
            ready,
            released: self.released,
            state: self.state,
        })
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.phase = Phase::Failed(RecoveryError::Refused(refusal));
    }

    fn next_op(&mut self) -> Option<(DiskOp, usize)> {
        let (segment, offset, size) = match &mut self.phase {
            Phase::List => return Some((DiskOp::List, 0)),
            Phase::Heads(segment) => (*segment, 0, BLOCK_SIZE_BYTES as u64),
            Phase::Blankness { segment, offset } => {
                let size = readable(self.files.get(segment), self.geometry) - *offset;
                (*segment, *offset, size.min(CHUNK_SIZE_BYTES))
            }
            Phase::Records(scan) => {
                let segment = scan.whole().segment;
                let (offset, size) = scan.poll_read()?;
                (segment, offset, size)
            }
            Phase::Survivors { survivors, .. } => survivors.poll_read()?,
            Phase::Repair { repair, .. } => return repair.poll_op(),
            Phase::Done { .. } | Phase::Failed(_) => return None,
        };
        let size = in_memory(size);
        let mut buffer = self.pool.take(size);
        buffer.set_len(size);
        Some((DiskOp::Read { segment, offset, buffer }, size))
    }

    // Move on where a phase has nothing more to ask.
    fn settle(&mut self) -> Result<(), Refusal> {
        loop {
            match &mut self.phase {
                Phase::Heads(segment) => {
                    // A file without a whole block has no head to read.
                    let segment = *segment;
                    if readable(self.files.get(&segment), self.geometry) > 0 {
                        return Ok(());
                    }
                    self.handle_head(segment, &[])?;
                }
                Phase::Blankness { segment, offset } => {
                    if *offset < readable(self.files.get(segment), self.geometry) {
                        return Ok(());
                    }
                    self.create();
                }
                Phase::Records(scan) => match scan.progress() {
                    Progress::Open => return Ok(()),
                    Progress::Ended => {
                        self.claimed = self.claimed.max(scan.claimed());
                        let end = scan.whole();
                        self.handle_end(end)?;
                    }
                    Progress::KindUnknown(kind, offset) => {
                        let segment = scan.whole().segment;
                        return Err(Refusal::KindUnknown { segment, offset, kind: kind.get() });
                    }
                },
                Phase::Survivors { survivors, .. } => {
                    if !survivors.is_done() {
                        return Ok(());
                    }
                    self.handle_survivors()?;
                }
                Phase::Repair { tail, repair } => {
                    if !repair.is_done() {
                        return Ok(());
                    }
                    self.phase = Phase::Done { tail: *tail, ready: repair.ready() };
                }
                Phase::List | Phase::Done { .. } | Phase::Failed(_) => return Ok(()),
            }
        }
    }

    fn handle_list(&mut self, listed: &[ListedFile]) -> Result<(), Refusal> {
        for file in listed {
            let Some(segment) = parse_file_name(&file.name) else {
                // What is not named like a segment is not ours to judge.
                if file.name.ends_with(".wal") {
                    return Err(Refusal::NameUnknown { name: file.name.clone() });
                }
                continue;
            };
            if segment.0 > self.geometry.sequence_max() {
                return Err(Refusal::NameUnknown { name: file.name.clone() });
            }
            let head = UncheckedHead::Blank;
            self.files.insert(segment, File { size_bytes: file.size_bytes, head });
        }
        let (Some((first, _)), Some((last, _))) =
            (self.files.first_key_value(), self.files.last_key_value())
        else {
            if !self.start.may_create || self.start.replay_from > Lsn::ZERO {
                return Err(Refusal::Absent);
            }
            self.create();
            return Ok(());
        };
        let (first, last) = (*first, *last);
        let mut expected = first;
        for segment in self.files.keys() {
            if *segment != expected {
                return Err(Refusal::SegmentMissing { segment: expected });
            }
            expected = expected.next();
        }
        assert_eq!(expected, last.next());
        self.phase = Phase::Heads(first);
        Ok(())
    }

    fn handle_head(&mut self, segment: SegmentSequence, block: &[u8]) -> Result<(), Refusal> {
        let head = UncheckedHead::decode(segment, block);
        let expected_bytes = self.geometry.segment_size_bytes;
        let file = self.files.get_mut(&segment).expect("heads are read of listed files");
        match &head {
            UncheckedHead::Unversioned(version) => {
                return Err(Refusal::VersionUnknown { segment, version: *version });
            }
            UncheckedHead::Alien => return Err(Refusal::Misplaced { segment }),
            UncheckedHead::Open(head, _) if head.identity != self.config.identity => {
                return Err(Refusal::Foreign { segment });
            }
            UncheckedHead::Open(head, _) if head.segment_size_bytes != expected_bytes => {
                let found_bytes = head.segment_size_bytes;
                return Err(Refusal::SizeWrong { segment, found_bytes, expected_bytes });
            }
            _ => {}
        }
        // A head is written only when the whole file is durable: one that has become shorter has
        // lost its end, and nothing need be left that claims what was there.
        let found_bytes = file.size_bytes;
        let is_open = matches!(head, UncheckedHead::Open(..));
        if found_bytes > expected_bytes || (is_open && found_bytes < expected_bytes) {
            return Err(Refusal::SizeWrong { segment, found_bytes, expected_bytes });
        }
        file.head = head;
        if self.files.contains_key(&segment.next()) {
            self.phase = Phase::Heads(segment.next());
            return Ok(());
        }
        self.begin()
    }

    // All heads are known: find the segment where replay begins.
    fn begin(&mut self) -> Result<(), Refusal> {
        let lowest = *self.files.keys().next().expect("an empty log is created instead");
        let (mut first, offset) = self.geometry.split(self.start.replay_from);
        if offset == 0 && first > lowest {
            // The very end of the segment before: the one named may never have been opened.
            first = SegmentSequence(first.0 - 1);
        }
        if self.start.replay_from > Lsn::ZERO && first < lowest {
            return Err(Refusal::SegmentMissing { segment: first });
        }
        let first = first.max(lowest);
        let Some(file) = self.files.get(&first) else {
            let end = self.geometry.lsn(*self.files.keys().next_back().expect("as above"), 0);
            return Err(Refusal::EndsBefore { end, needed: self.start.replay_from });
        };
        let head = file.head.clone();
        self.check_salts()?;
        // Another file, a higher number, or an owner who knows better: creation had ended.
        let alone = self.files.len() == 1 && first.0 == 1;
        let fresh = alone && self.start.may_create && self.start.replay_from == Lsn::ZERO;
        let claim = if fresh { Claim::None } else { Claim::Made };
        match decide(Place::First, Found::of(&head, true), claim) {
            Verdict::Scan => {
                self.scan(first);
                Ok(())
            }
            Verdict::Create => {
                let offset = BLOCK_SIZE_BYTES as u64;
                self.phase = Phase::Blankness { segment: first, offset };
                Ok(())
            }
            Verdict::HeadLost => Err(Refusal::HeadLost { segment: first }),
            verdict @ (Verdict::Cut | Verdict::Rot) => unreachable!("{verdict:?} for the first"),
        }
    }

    // The oldest head that can be read names the salt; the others must agree.
    fn check_salts(&mut self) -> Result<(), Refusal> {
        let mut salt = None;
        for (segment, file) in &self.files {
            let UncheckedHead::Open(head, _) = &file.head else { continue };
            if *salt.get_or_insert(head.salt) != head.salt {
                return Err(Refusal::Foreign { segment: *segment });
            }
        }
        self.salt = salt.unwrap_or(self.salt);
        Ok(())
    }

    fn scan(&mut self, segment: SegmentSequence) {
        let file = &self.files[&segment];
        let UncheckedHead::Open(head, chain) = &file.head else {
            panic!("a segment is scanned for its head's sake");
        };
        if self.state.is_none() {
            self.state = head.state.clone();
        }
        self.released = self.released.max(Lsn(head.released));
        self.claimed = self.claimed.max(Lsn(head.durable));
        let offset = BLOCK_SIZE_BYTES as u64;
        let start = Position { segment, offset, chain: *chain, number: 0 };
        let readable = readable(Some(file), self.geometry);
        let seed = Seed::of_salt(self.salt);
        let scan = Scan::new(self.geometry, seed, start, Some(*chain), readable);
        self.phase = Phase::Records(Box::new(scan));
    }

    // The records of a segment ended: in the next one, or for good?
    fn handle_end(&mut self, end: Position) -> Result<(), Refusal> {
        let next = end.segment.next();
        let end_lsn = self.geometry.lsn(end.segment, end.offset);
        let found = self.files.get(&next).map_or(Found::Missing, |file| {
            let continues = matches!(&file.head, UncheckedHead::Open(head, _)
                if head.previous_end == end_lsn.0 && head.previous_chain == end.chain.0);
            Found::of(&file.head, continues)
        });
        if found == Found::Continues {
            // With the claim of every later batch known, a hole here would have been one.
            assert_eq!(decide(Place::Next, found, Claim::None), Verdict::Scan);
            self.scan(next);
            return Ok(());
        }
        let seed = Seed::of_salt(self.salt);
        let survivors = Survivors::new(self.geometry, seed, end, &self.files);
        self.phase = Phase::Survivors { end, found, survivors };
        Ok(())
    }

    fn handle_survivors(&mut self) -> Result<(), Refusal> {
        let Phase::Survivors { end, found, survivors } = &self.phase else {
            panic!("survivors are judged after they were read");
        };
        let (end, found) = (*end, *found);
        let end_lsn = self.geometry.lsn(end.segment, end.offset);
        let (claimed, claimed_at) = survivors.claimed();
        let claim = if claimed > end_lsn { Claim::Made } else { Claim::None };
        match decide(Place::Next, found, claim) {
            Verdict::Rot => {
                return Err(Refusal::Rot {
                    segment: end.segment,
                    offset: end.offset,
                    record: end.number + 1,
                    claimed,
                    claimed_at,
                });
            }
            Verdict::Cut => {}
            verdict => unreachable!("{verdict:?} behind the last whole batch"),
        }
        if self.claimed > end_lsn {
            return Err(Refusal::EndsBefore { end: end_lsn, needed: self.claimed });
        }
        // Every segment from the released position on must have been here.
        let oldest = self.geometry.split(self.released).0.max(SegmentSequence(1));
        let lowest = *self.files.keys().next().expect("the log was read from files");
        if lowest > oldest {
            return Err(Refusal::SegmentMissing { segment: oldest });
        }
        let unsynced = self.geometry.split(self.claimed).0.max(lowest).min(end.segment);
        let repair = Repair::cut(self.geometry, end, unsynced, survivors, &self.files);
        self.phase = Phase::Repair { tail: end, repair };
        Ok(())
    }

    fn create(&mut self) {
        let segment = SegmentSequence(1);
        let head = Head {
            segment_size_bytes: self.geometry.segment_size_bytes,
            salt: self.salt,
            boot_nonce: self.start.boot_nonce,
            previous_end: 0,
            previous_chain: 0,
            durable: 0,
            released: 0,
            identity: self.config.identity.clone(),
            state: None,
        };
        let mut buffer = AlignedBuffer::new(BLOCK_SIZE_BYTES);
        let chain = head.encode(segment, buffer.as_mut_slice());
        let offset = BLOCK_SIZE_BYTES as u64;
        let tail = Position { segment, offset, chain, number: 0 };
        self.created = true;
        self.phase = Phase::Repair { tail, repair: Repair::create(self.geometry, segment, buffer) };
    }
}

/// How much of a segment's file can be read, in whole blocks.
pub(crate) fn readable(file: Option<&File>, geometry: Geometry) -> u64 {
    let block = BLOCK_SIZE_BYTES as u64;
    let size = file.map_or(0, |file| file.size_bytes.min(geometry.segment_size_bytes));
    size / block * block
}

fn cause_of(issued: &Issued, result: &Result<Completion, DiskError>) -> Option<Cause> {
    let found_bytes = match result {
        Err(error) => return Some(Cause::Error(*error)),
        Ok(Completion::Read { size_bytes, .. } | Completion::Written { size_bytes, .. }) => {
            *size_bytes
        }
        Ok(Completion::Done | Completion::Listed(_)) => 0,
    };
    let wanted_bytes = issued.wanted_bytes;
    (found_bytes != wanted_bytes).then_some(Cause::Short { wanted_bytes, found_bytes })
}
