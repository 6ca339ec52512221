//! Segments ahead of the writer and behind it: prepared, recycled, removed.
//!
//! One operation at a time, beside the writes. A new file is created, zeroed in slices, synced and
//! marked, then its name is synced; a released one is renamed, its name is synced, then it is
//! marked, which voids its old head. Names are synced one by one, in order, so that a crash never
//! leaves a gap among them.
//!
//! Invariants:
//! - `first <= in_use`, and every number from `first` to `ready` has a file, except that `in_use`
//!   may be ahead of `ready`: then the writer waits.
//! - A segment counts as ready only when its content, its mark and its name are durable.

use crate::disk::{
    AlignedBuffer, BLOCK_SIZE_BYTES, DiskError, DiskErrorKind, DiskOp, ZERO_SLICE_BYTES,
};
use crate::segment::{SegmentSequence, encode_spare};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Create { new: SegmentSequence },
    Zero { new: SegmentSequence, offset: u64 },
    Sync { new: SegmentSequence },
    Mark { new: SegmentSequence, named: bool },
    SyncName { new: SegmentSequence, marked: bool },
    Rename { old: SegmentSequence, new: SegmentSequence },
    RemoveOld { old: SegmentSequence },
    RemoveUnfinished { new: SegmentSequence },
    SyncRemoval,
}

/// The segments that are not being written.
pub(crate) struct Spares {
    segment_size_bytes: u64,
    spares_max: u64,
    first: SegmentSequence,
    in_use: SegmentSequence,
    ready: SegmentSequence,
    released: SegmentSequence,
    step: Step,
    issued: bool,
    /// Why the last attempt to prepare a segment failed, until one succeeds.
    starved: Option<DiskError>,
    /// Whether another attempt is to be made all the same.
    retrying: bool,
}

impl Spares {
    pub(crate) fn new(
        segment_size_bytes: u64,
        spares_max: u64,
        (first, in_use, ready): (SegmentSequence, SegmentSequence, SegmentSequence),
    ) -> Self {
        assert!(first <= in_use);
        assert!(in_use <= ready);
        Self {
            segment_size_bytes,
            spares_max,
            first,
            in_use,
            ready,
            released: first,
            step: Step::Idle,
            issued: false,
            starved: None,
            retrying: false,
        }
    }

    /// The oldest segment that still exists.
    pub(crate) fn first(&self) -> SegmentSequence {
        self.first
    }

    /// Whether records may be written to this segment.
    pub(crate) fn is_ready(&self, segment: SegmentSequence) -> bool {
        segment <= self.ready
    }

    /// The last segment that records may be written to.
    pub(crate) fn ready(&self) -> SegmentSequence {
        self.ready
    }

    /// What the disk said when it had no room for a further segment; until there is one.
    pub(crate) fn starvation(&self) -> Option<DiskError> {
        self.starved
    }

    /// Whether nothing that is known now can make a further segment ready.
    pub(crate) fn is_stuck(&self) -> bool {
        let tries = self.retrying || self.step != Step::Idle;
        self.starved.is_some() && !tries && self.first >= self.released
    }

    /// The writer has moved on.
    pub(crate) fn open(&mut self, segment: SegmentSequence) {
        assert_eq!(segment, self.in_use.next());
        self.in_use = segment;
    }

    /// Segments before this one are void, and known durably to be.
    pub(crate) fn release(&mut self, before: SegmentSequence) {
        assert!(before <= self.in_use);
        self.released = self.released.max(before);
    }

    /// Space may have been freed: try again.
    pub(crate) fn retry(&mut self) {
        self.retrying = self.starved.is_some();
    }

    pub(crate) fn poll_op(&mut self) -> Option<DiskOp> {
        if self.issued {
            return None;
        }
        if self.step == Step::Idle {
            self.step = self.choose();
            if matches!(self.step, Step::Create { .. }) {
                self.retrying = false;
            }
        }
        let op = self.op()?;
        self.issued = true;
        Some(op)
    }

    fn choose(&self) -> Step {
        let new = self.ready.next();
        if self.first < self.released {
            let old = self.first;
            let wanted = self.ready.0 < self.in_use.0 + self.spares_max;
            return if wanted { Step::Rename { old, new } } else { Step::RemoveOld { old } };
        }
        if self.ready <= self.in_use && (self.starved.is_none() || self.retrying) {
            return Step::Create { new };
        }
        Step::Idle
    }

    fn op(&self) -> Option<DiskOp> {
        Some(match self.step {
            Step::Idle => return None,
            Step::Create { new } => {
                DiskOp::Create { segment: new, size_bytes: self.segment_size_bytes }
            }
            Step::Zero { new, offset } => {
                let size_bytes = ZERO_SLICE_BYTES.min(self.segment_size_bytes - offset);
                DiskOp::Zero { segment: new, offset, size_bytes }
            }
            Step::Sync { new } => DiskOp::Sync { segment: new },
            Step::Mark { new, .. } => {
                let mut buffer = AlignedBuffer::new(BLOCK_SIZE_BYTES);
                encode_spare(new, buffer.as_mut_slice());
                DiskOp::Write { segment: new, offset: 0, buffer }
            }
            Step::SyncName { .. } | Step::SyncRemoval => DiskOp::SyncDirectory,
            Step::Rename { old, new } => DiskOp::Rename { from: old, to: new },
            Step::RemoveOld { old } => DiskOp::Remove { segment: old },
            Step::RemoveUnfinished { new } => DiskOp::Remove { segment: new },
        })
    }

    /// The operation from `poll_op` ended. An error that is not only a lack of space for a file
    /// not yet in use is handed back: it ends the log.
    pub(crate) fn handle_completion(
        &mut self,
        result: Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        assert!(self.issued);
        self.issued = false;
        if let Err(error) = result {
            self.step = match (self.step, error.kind) {
                (Step::Create { new } | Step::Zero { new, .. }, DiskErrorKind::NoSpace) => {
                    self.starved = Some(error);
                    Step::RemoveUnfinished { new }
                }
                _ => return Err(error),
            };
            return Ok(());
        }
        self.step = match self.step {
            Step::Idle => unreachable!("nothing is issued when idle"),
            Step::Create { new } => Step::Zero { new, offset: 0 },
            Step::Zero { new, offset } if offset + ZERO_SLICE_BYTES < self.segment_size_bytes => {
                Step::Zero { new, offset: offset + ZERO_SLICE_BYTES }
            }
            Step::Zero { new, .. } => Step::Sync { new },
            Step::Sync { new } => Step::Mark { new, named: false },
            Step::Mark { new, named: false } => Step::SyncName { new, marked: true },
            Step::Rename { old, new } => {
                self.first = old.next();
                Step::SyncName { new, marked: false }
            }
            Step::SyncName { new, marked: false } => Step::Mark { new, named: true },
            Step::SyncName { new, marked: true } | Step::Mark { new, named: true } => {
                assert_eq!(new, self.ready.next());
                self.ready = new;
                self.starved = None;
                Step::Idle
            }
            Step::RemoveOld { old } => {
                self.first = old.next();
                Step::SyncRemoval
            }
            Step::RemoveUnfinished { .. } => Step::SyncRemoval,
            Step::SyncRemoval => Step::Idle,
        };
        Ok(())
    }
}
