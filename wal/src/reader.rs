//! Re-reading old positions, for a follower that lags.
//!
//! The owner keeps the end of each record; a reader begins there and yields what follows, in
//! order, until the position that was durable when it was made. It checks everything that
//! recovery checks, and holds at most one read and two chunks of memory: whoever has read enough
//! drops it.
//!
//! Invariants:
//! - What it yields was durable; a hole before that is damage, not an end.
//! - The owner does not release the segments that a reader of its own still reads.

use std::fmt;

use crate::disk::{
    BLOCK_SIZE_BYTES, BufferPool, Cause, Completion, DiskError, DiskOp, Failure, OpId, OpKind,
};
use crate::in_memory;
use crate::record::{Chain, Lsn, Record, RecordKind, Seed};
use crate::scan::{CHUNK_SIZE_BYTES, Position, Progress, Scan};
use crate::segment::{Geometry, SegmentSequence, UncheckedHead};

/// Yields records from a position on.
pub struct Reader {
    geometry: Geometry,
    salt: u64,
    until: Lsn,
    stage: Stage,
    issued: Option<(OpId, SegmentSequence, u64)>,
    op_last: u64,
    pool: BufferPool,
}

enum Stage {
    // The head of this segment, which must continue the position.
    Head { segment: SegmentSequence, after: Option<Position> },
    Records(Box<Scan>),
    Done,
    Failed(ReadError),
}

/// Why old records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk refused.
    Disk(Failure),
    /// What was durable is damaged.
    Damaged {
        /// The file.
        segment: SegmentSequence,
        /// Where what can be read ends.
        offset: u64,
        /// The missing record's number, counted from 1; 0 if the reader began in mid-segment and
        /// found nothing.
        record: u32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(failure) => failure.fmt(formatter),
            Self::Damaged { segment, offset, record } => {
                let name = crate::segment_file_name(*segment);
                write!(
                    formatter,
                    "wal: segment {name} is damaged at offset {offset}, record {record}"
                )
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl Reader {
    pub(crate) fn new(geometry: Geometry, salt: u64, from: Lsn, until: Lsn) -> Self {
        let (segment, offset) = geometry.split(from);
        let stage = if from >= until {
            Stage::Done
        } else if offset <= BLOCK_SIZE_BYTES as u64 {
            Stage::Head { segment, after: None }
        } else {
            let start = Position { segment, offset, chain: Chain(0), number: 0 };
            scan(geometry, salt, start, None, until)
        };
        let pool = BufferPool::new(in_memory(CHUNK_SIZE_BYTES.min(geometry.segment_size_bytes)), 1);
        Self { geometry, salt, until, stage, issued: None, op_last: 0, pool }
    }

    /// A read ended.
    pub fn handle_completion(&mut self, id: OpId, result: Result<Completion, DiskError>) {
        let (issued, segment, offset) =
            self.issued.take().expect("completions come after operations");
        assert_eq!(issued, id);
        let (buffer, size_bytes) = match result {
            Ok(Completion::Read { buffer, size_bytes }) => (buffer, size_bytes),
            Ok(other) => panic!("a read completed as {other:?}"),
            Err(error) => {
                let (operation, cause) = (OpKind::Read, Cause::Error(error));
                let failure = Failure { operation, segment, offset, cause };
                self.stage = Stage::Failed(ReadError::Disk(failure));
                return;
            }
        };
        let wanted_bytes = buffer.as_slice().len();
        if size_bytes != wanted_bytes {
            let cause = Cause::Short { wanted_bytes, found_bytes: size_bytes };
            let failure = Failure { operation: OpKind::Read, segment, offset, cause };
            self.stage = Stage::Failed(ReadError::Disk(failure));
            return;
        }
        match &mut self.stage {
            Stage::Head { segment, after } => {
                let (segment, after) = (*segment, *after);
                self.handle_head(segment, after, buffer.as_slice());
            }
            Stage::Records(scan) => scan.handle_read(buffer.as_slice()),
            Stage::Done | Stage::Failed(_) => unreachable!("nothing is read at the end"),
        }
        self.pool.put(buffer);
    }

    /// The next read; one at a time.
    pub fn poll_op(&mut self) -> Option<(OpId, DiskOp)> {
        self.settle();
        if self.issued.is_some() {
            return None;
        }
        let (segment, offset, size) = match &mut self.stage {
            Stage::Head { segment, .. } => (*segment, 0, BLOCK_SIZE_BYTES as u64),
            Stage::Records(scan) => {
                let segment = scan.whole().segment;
                let (offset, size) = scan.poll_read()?;
                (segment, offset, size)
            }
            Stage::Done | Stage::Failed(_) => return None,
        };
        self.op_last += 1;
        let id = OpId(self.op_last);
        self.issued = Some((id, segment, offset));
        let size = in_memory(size);
        let mut buffer = self.pool.take(size);
        buffer.set_len(size);
        Some((id, DiskOp::Read { segment, offset, buffer }))
    }

    /// The next record, if enough was read.
    pub fn poll_record(&mut self) -> Option<Record<'_>> {
        let Stage::Records(scan) = &mut self.stage else { return None };
        loop {
            // Asked by kind first: a borrow that leaves this function cannot be given up again.
            let kind = scan.peek_kind()?;
            let owned = !kind.is_reserved();
            if owned || kind == RecordKind::STATE || kind == RecordKind::RESET {
                return scan.poll_record();
            }
            scan.poll_record();
        }
    }

    /// Whether everything up to the end was yielded, or why not.
    pub fn poll_done(&mut self) -> Result<bool, ReadError> {
        self.settle();
        match &self.stage {
            Stage::Done => Ok(true),
            Stage::Failed(error) => Err(error.clone()),
            Stage::Head { .. } | Stage::Records(_) => Ok(false),
        }
    }

    // Move on at the end of a segment, once its records are taken.
    fn settle(&mut self) {
        let Stage::Records(scan) = &mut self.stage else { return };
        if self.issued.is_some() || scan.peek_kind().is_some() {
            return;
        }
        let whole = scan.whole();
        let end = self.geometry.lsn(whole.segment, whole.offset);
        if end >= self.until {
            self.stage = Stage::Done;
        } else if scan.progress() != Progress::Open {
            // A segment ends where its records do; the next one's head tells whether rightly so.
            let segment = whole.segment.next();
            self.stage = if self.geometry.lsn(segment, 0) < self.until {
                Stage::Head { segment, after: Some(whole) }
            } else {
                damaged(whole)
            };
        }
    }

    fn handle_head(&mut self, segment: SegmentSequence, after: Option<Position>, block: &[u8]) {
        let offset = BLOCK_SIZE_BYTES as u64;
        let start = |chain| Position { segment, offset, chain, number: 0 };
        self.stage = match (UncheckedHead::decode(segment, block), after) {
            (UncheckedHead::Open(head, chain), None) if head.salt == self.salt => {
                scan(self.geometry, self.salt, start(chain), Some(chain), self.until)
            }
            (UncheckedHead::Open(head, chain), Some(whole))
                if head.salt == self.salt
                    && head.previous_end == self.geometry.lsn(whole.segment, whole.offset).0
                    && (head.previous_chain == whole.chain.0 || whole.number == 0) =>
            {
                scan(self.geometry, self.salt, start(chain), Some(chain), self.until)
            }
            (UncheckedHead::Open(..), Some(whole)) => damaged(whole),
            _ => damaged(Position { segment, offset: 0, chain: Chain(0), number: 0 }),
        };
    }
}

// Stops at the position that was durable: what lies behind may be half written just now.
fn scan(geometry: Geometry, salt: u64, start: Position, chain: Option<Chain>, until: Lsn) -> Stage {
    let readable = match geometry.split(until) {
        (last, offset) if last == start.segment => offset,
        _ => geometry.segment_size_bytes,
    };
    Stage::Records(Box::new(Scan::new(geometry, Seed::of_salt(salt), start, chain, readable)))
}

fn damaged(whole: Position) -> Stage {
    let Position { segment, offset, number, .. } = whole;
    let record = if number == 0 { 0 } else { number + 1 };
    Stage::Failed(ReadError::Damaged { segment, offset, record })
}
