//! What recovery writes, once it has decided: one operation after the other.
//!
//! Invariants:
//! - Each plan may be cut short anywhere and made anew: nothing in it changes the verdict.
//! - Files are removed from the highest number down, and each removal is durable before the next,
//!   so that the numbers never have a gap.

use std::collections::{BTreeMap, VecDeque};

use crate::disk::{AlignedBuffer, BLOCK_SIZE_BYTES, DiskOp, ZERO_SLICE_BYTES};
use crate::recovery::File;
use crate::scan::Position;
use crate::segment::{Geometry, SegmentSequence};
use crate::survivors::Survivors;

/// A list of operations.
pub(crate) struct Repair {
    ops: VecDeque<DiskOp>,
    issued: bool,
    ready: SegmentSequence,
}

impl Repair {
    /// Cut behind `end`: erase its segment up to `erase_end`, remove every later segment that is
    /// not an untouched spare, and make durable what was read from `unsynced` on.
    pub(crate) fn cut(
        geometry: Geometry,
        end: Position,
        unsynced: SegmentSequence,
        survivors: &Survivors,
        files: &BTreeMap<SegmentSequence, File>,
    ) -> Self {
        let mut ops = VecDeque::new();
        let ready = survivors.ready();
        for segment in files.range(ready.next()..).rev().map(|(segment, _)| *segment) {
            ops.push_back(DiskOp::Remove { segment });
            ops.push_back(DiskOp::SyncDirectory);
        }
        let segment = end.segment;
        let size_bytes = geometry.segment_size_bytes;
        // A survivor's body may reach beyond what a segment can hold only by damage.
        let block = BLOCK_SIZE_BYTES as u64;
        let erase_end = survivors.erase_end().min(size_bytes).next_multiple_of(block);
        zero(&mut ops, segment, end.offset, erase_end);
        for (segment, _) in files.range(unsynced..=end.segment) {
            ops.push_back(DiskOp::Sync { segment: *segment });
        }
        ops.push_back(DiskOp::SyncDirectory);
        Self { ops, issued: false, ready }
    }

    /// Create the log: its head is written last, so that a head means a whole segment.
    pub(crate) fn create(
        geometry: Geometry,
        segment: SegmentSequence,
        head: AlignedBuffer,
    ) -> Self {
        let mut ops = VecDeque::new();
        let size_bytes = geometry.segment_size_bytes;
        ops.push_back(DiskOp::Create { segment, size_bytes });
        zero(&mut ops, segment, 0, size_bytes);
        ops.push_back(DiskOp::Sync { segment });
        ops.push_back(DiskOp::Write { segment, offset: 0, buffer: head });
        ops.push_back(DiskOp::SyncDirectory);
        Self { ops, issued: false, ready: segment }
    }

    /// The last prepared segment.
    pub(crate) fn ready(&self) -> SegmentSequence {
        self.ready
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ops.is_empty() && !self.issued
    }

    pub(crate) fn handle_done(&mut self) {
        assert!(self.issued);
        self.issued = false;
    }

    /// The next operation, with how many bytes it must report.
    pub(crate) fn poll_op(&mut self) -> Option<(DiskOp, usize)> {
        assert!(!self.issued);
        let op = self.ops.pop_front()?;
        self.issued = true;
        let wanted_bytes = match &op {
            DiskOp::Write { buffer, .. } => buffer.as_slice().len(),
            _ => 0,
        };
        Some((op, wanted_bytes))
    }
}

fn zero(ops: &mut VecDeque<DiskOp>, segment: SegmentSequence, from: u64, to: u64) {
    let mut offset = from;
    while offset < to {
        let size_bytes = ZERO_SLICE_BYTES.min(to - offset);
        ops.push_back(DiskOp::Zero { segment, offset, size_bytes });
        offset += size_bytes;
    }
}
