//! Reading records front to back within one segment, batch by batch.
//!
//! [`Scan`] yields records of whole batches only: a batch is one write, so it is acknowledged as a
//! whole or not at all, and a log that ends inside one ends before it. [`find_frames`] is the
//! opposite: it finds every frame that survived behind a hole.
//!
//! Invariants:
//! - A record is handed out after its frame, chain, body and batch were checked.
//! - Memory is bounded by two chunks and the largest batch.

use std::collections::VecDeque;

use crate::RECORD_SIZE_BYTES_MAX;
use crate::disk::BLOCK_SIZE_BYTES;
use crate::in_memory;
use crate::record::{Chain, FRAME_SIZE_BYTES, Frame, Lsn, Record, RecordKind, Seed};
use crate::segment::{Geometry, SegmentSequence};

/// How much is read at once: large enough for the disk's full rate, small beside the largest
/// batch.
pub(crate) const CHUNK_SIZE_BYTES: u64 = 1 << 20;

/// No writer makes a larger batch: the largest record, a head block, and what padding adds.
pub(crate) const BATCH_SIZE_BYTES_MAX: usize = RECORD_SIZE_BYTES_MAX + 4 * BLOCK_SIZE_BYTES;

/// Where a scan stands: behind a whole batch, or behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: SegmentSequence,
    pub(crate) offset: u64,
    pub(crate) chain: Chain,
    /// The number of the last record before.
    pub(crate) number: u32,
}

/// How far a scan has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed, or records wait to be taken.
    Open,
    /// What follows is no whole batch of this log.
    Ended,
    /// A record of this log has a kind of ours that this version does not know.
    KindUnknown(RecordKind, u64),
}

struct Span {
    kind: RecordKind,
    offset: u64,
    body_size: usize,
}

/// One segment being read.
pub(crate) struct Scan {
    geometry: Geometry,
    seed: Seed,
    // Behind the last whole batch.
    whole: Position,
    // Behind the last checked frame; `None` accepts the first frame's own word, for a scan that
    // begins in the middle of a segment.
    chain: Option<Chain>,
    number: u32,
    cursor: u64,
    // The highest durable position that a whole batch claims.
    claimed: Lsn,
    claim_open: Lsn,
    bytes: Vec<u8>,
    bytes_offset: u64,
    readable_bytes: u64,
    reading: bool,
    starved: bool,
    progress: Progress,
    unsealed: Vec<Span>,
    sealed: VecDeque<Span>,
}

impl Scan {
    /// Begin behind `start`; `readable_bytes` is how much of the file there is, in whole blocks.
    pub(crate) fn new(
        geometry: Geometry,
        seed: Seed,
        start: Position,
        chain: Option<Chain>,
        readable_bytes: u64,
    ) -> Self {
        assert!(readable_bytes <= geometry.segment_size_bytes);
        // Reads begin at whole blocks, the first frame need not.
        let bytes_offset = start.offset / BLOCK_SIZE_BYTES as u64 * BLOCK_SIZE_BYTES as u64;
        let mut scan = Self {
            geometry,
            seed,
            whole: start,
            chain,
            number: start.number,
            cursor: start.offset,
            claimed: Lsn::ZERO,
            claim_open: Lsn::ZERO,
            bytes: Vec::new(),
            bytes_offset,
            readable_bytes,
            reading: false,
            starved: true,
            progress: Progress::Open,
            unsealed: Vec::new(),
            sealed: VecDeque::new(),
        };
        scan.end_at_last_byte();
        scan
    }

    /// Behind the last whole batch.
    pub(crate) fn whole(&self) -> Position {
        self.whole
    }

    /// The highest claim of the batches read so far.
    pub(crate) fn claimed(&self) -> Lsn {
        self.claimed
    }

    /// Ended only when every record was taken too.
    pub(crate) fn progress(&self) -> Progress {
        if self.sealed.is_empty() { self.progress } else { Progress::Open }
    }

    /// Bytes arrived from where `poll_read` asked.
    pub(crate) fn handle_read(&mut self, bytes: &[u8]) {
        assert!(self.reading);
        self.reading = false;
        let keep_from = self.sealed.front().or(self.unsealed.first()).map_or(self.cursor, |s| {
            assert!(s.offset <= self.cursor);
            s.offset
        });
        let passed = in_memory(keep_from.saturating_sub(self.bytes_offset)).min(self.bytes.len());
        self.bytes.drain(..passed);
        self.bytes_offset += passed as u64;
        self.bytes.extend_from_slice(bytes);
        self.parse();
    }

    /// The next range to read, as offset and size.
    pub(crate) fn poll_read(&mut self) -> Option<(u64, u64)> {
        let end = self.bytes_offset + self.bytes.len() as u64;
        if self.reading || self.progress != Progress::Open {
            return None;
        }
        // Read ahead by one chunk; beyond that only for a batch that needs it.
        let roomy = (self.bytes.len() as u64) < 2 * CHUNK_SIZE_BYTES;
        let needed = self.starved && self.sealed.is_empty();
        if !(roomy || needed) {
            return None;
        }
        if end >= self.readable_bytes {
            return None;
        }
        self.reading = true;
        Some((end, CHUNK_SIZE_BYTES.min(self.readable_bytes - end)))
    }

    /// The kind of the next record.
    pub(crate) fn peek_kind(&self) -> Option<RecordKind> {
        self.sealed.front().map(|span| span.kind)
    }

    /// The next record of a whole batch, ours included.
    pub(crate) fn poll_record(&mut self) -> Option<Record<'_>> {
        let span = self.sealed.pop_front()?;
        let start = self.geometry.lsn(self.whole.segment, span.offset);
        let at = in_memory(span.offset - self.bytes_offset) + FRAME_SIZE_BYTES;
        let size = (FRAME_SIZE_BYTES + span.body_size.next_multiple_of(8)) as u64;
        Some(Record {
            start,
            end: Lsn(start.0 + size),
            kind: span.kind,
            body: &self.bytes[at..at + span.body_size],
        })
    }

    fn parse(&mut self) {
        self.starved = false;
        while !self.starved && self.progress == Progress::Open {
            self.parse_frame();
        }
        self.end_at_last_byte();
    }

    // What the file does not hold any more is a hole like any other.
    fn end_at_last_byte(&mut self) {
        let end = self.bytes_offset + self.bytes.len() as u64;
        if self.starved && end >= self.readable_bytes {
            self.progress = Progress::Ended;
        }
    }

    fn parse_frame(&mut self) {
        let at = in_memory(self.cursor - self.bytes_offset);
        if self.bytes.len() < at + FRAME_SIZE_BYTES {
            self.starved = true;
            return;
        }
        let lsn = self.geometry.lsn(self.whole.segment, self.cursor);
        let Some((frame, chain)) = Frame::verify(self.seed, lsn, &self.bytes[at..]) else {
            self.progress = Progress::Ended;
            return;
        };
        let end = self.cursor + frame.span() as u64;
        if !self.fits(&frame, end) {
            self.progress = Progress::Ended;
            return;
        }
        let Some(body) = self.bytes.get(at + FRAME_SIZE_BYTES..at + frame.span()) else {
            self.starved = true;
            return;
        };
        if !frame.matches(body) {
            self.progress = Progress::Ended;
            return;
        }
        if !frame.is_known() {
            self.progress = Progress::KindUnknown(frame.kind, self.cursor);
            return;
        }
        self.take(&frame, chain, end);
    }

    // A frame by itself may be whole and still be none of this chain: left over from a batch that
    // was cut off, or of sizes that no writer produces.
    fn fits(&self, frame: &Frame, end: u64) -> bool {
        let seal = frame.kind == RecordKind::SEAL;
        let room = if seal { 0 } else { FRAME_SIZE_BYTES as u64 };
        let batch_size = end - self.whole.offset;
        let continues = self.chain.is_none_or(|chain| {
            chain == frame.previous && self.number.checked_add(1) == Some(frame.number)
        });
        continues
            && end + room <= self.geometry.segment_size_bytes
            && batch_size <= BATCH_SIZE_BYTES_MAX as u64
            && (!seal || end.is_multiple_of(BLOCK_SIZE_BYTES as u64))
    }

    fn take(&mut self, frame: &Frame, chain: Chain, end: u64) {
        let body_size = in_memory(u64::from(frame.body_size));
        self.claim_open = self.claim_open.max(frame.durable);
        if frame.kind == RecordKind::SEAL {
            self.sealed.extend(self.unsealed.drain(..));
            self.claimed = self.claim_open;
            let segment = self.whole.segment;
            self.whole = Position { segment, offset: end, chain, number: frame.number };
        } else {
            self.unsealed.push(Span { kind: frame.kind, offset: self.cursor, body_size });
        }
        self.chain = Some(chain);
        self.number = frame.number;
        self.cursor = end;
    }
}

/// A frame that survived behind a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    /// Where its body would end.
    pub(crate) end: u64,
}

/// Every frame of this log in `bytes`, which were read from `offset` of the segment. Frames lie at
/// multiples of eight; those cut by the end of `bytes` are found if the caller overlaps its reads
/// by a block.
pub(crate) fn find_frames(
    geometry: Geometry,
    seed: Seed,
    segment: SegmentSequence,
    offset: u64,
    bytes: &[u8],
    mut found: impl FnMut(Survivor),
) {
    // Each frame holds its own position: nearly everywhere a run of words without any match, told
    // by one comparison a word and no branch.
    const RUN_WORDS: usize = 64;
    const POSITION_AT: usize = 16;
    let base = geometry.lsn(segment, offset).0;
    let words = bytes.get(POSITION_AT..).unwrap_or(&[]).as_chunks::<8>().0;
    for (run_index, run) in words.chunks(RUN_WORDS).enumerate() {
        let run_at = run_index * RUN_WORDS * 8;
        let mut position = base + run_at as u64;
        let mut matched = false;
        for word in run {
            matched |= u64::from_le_bytes(*word) == position;
            position += 8;
        }
        if !matched {
            continue;
        }
        for at in (run_at..run_at + run.len() * 8).step_by(8) {
            let lsn = Lsn(base + at as u64);
            if let Some((frame, _)) = Frame::verify(seed, lsn, &bytes[at..]) {
                let end = offset + (at + frame.span()) as u64;
                found(Survivor { lsn, durable: frame.durable, end });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_they_lie_and_only_where_they_belong() {
        let geometry = Geometry { segment_size_bytes: 1 << 20 };
        let (seed, segment, offset) = (Seed::of_salt(3), SegmentSequence(5), 8192);
        for at in (0..2000).step_by(8).chain([4096 - 40, 4096 - 8]) {
            let mut bytes = vec![0x11; 4096];
            let frame = Frame {
                body_size: 100,
                body_crc: 1,
                previous: Chain(2),
                lsn: geometry.lsn(segment, offset + at as u64),
                durable: Lsn(77),
                number: 3,
                kind: RecordKind::owned(1),
            };
            let whole = at + FRAME_SIZE_BYTES <= bytes.len();
            if whole {
                frame.encode(seed, &mut bytes[at..at + FRAME_SIZE_BYTES]);
            }
            let mut found = Vec::new();
            find_frames(geometry, seed, segment, offset, &bytes, |survivor| found.push(survivor));
            let end = offset + (at + frame.span()) as u64;
            let expected = Survivor { lsn: frame.lsn, durable: Lsn(77), end };
            assert_eq!(found, if whole { vec![expected] } else { vec![] }, "at {at}");
            for (other_seed, other_offset) in [(Seed::of_salt(4), offset), (seed, offset + 8)] {
                find_frames(geometry, other_seed, segment, other_offset, &bytes, |survivor| {
                    panic!("{survivor:?} is not of this place");
                });
            }
        }
        find_frames(geometry, seed, segment, offset, &[], |_| unreachable!("nothing is there"));
    }
}
