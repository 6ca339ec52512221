//! What survived behind the last whole batch: witnesses of what was durable.
//!
//! Reads from the end of the log to the first prepared segment that was never touched. Nothing
//! can lie behind that one: the writer opens segments in order, and keeps few writes in flight.
//! Whether it was touched shows in its mark and its first chunk, where the first batch's frames
//! are: to read all of it would cost each start the time of a whole segment, and would find what
//! only a medium can have left there that lost the end of one segment, the head of the next, and
//! what follows it, all at once.
//!
//! Invariants:
//! - A claim counts only from a frame or head whose checksum is right under this log's salt.
//! - In what is read every surviving frame is found, wherever in its block it lies.

use std::collections::BTreeMap;

use crate::disk::BLOCK_SIZE_BYTES;
use crate::record::{Lsn, Seed};
use crate::recovery::{File, readable};
use crate::scan::{CHUNK_SIZE_BYTES, Position, find_frames};
use crate::segment::{Geometry, SegmentSequence, UncheckedHead};

/// The search, and what it found.
pub(crate) struct Survivors {
    geometry: Geometry,
    seed: Seed,
    end: Position,
    parts: Vec<Part>,
    // The part being read, and from where.
    part: usize,
    offset: u64,
    reading_bytes: u64,
    claimed: Lsn,
    claimed_at: Lsn,
    erase_end: u64,
}

struct Part {
    segment: SegmentSequence,
    readable_bytes: u64,
    spare: bool,
    touched: bool,
}

impl Survivors {
    pub(crate) fn new(
        geometry: Geometry,
        seed: Seed,
        end: Position,
        files: &BTreeMap<SegmentSequence, File>,
    ) -> Self {
        let whole = geometry.segment_size_bytes;
        let mut survivors = Self {
            geometry,
            seed,
            end,
            parts: Vec::new(),
            part: 0,
            offset: end.offset,
            reading_bytes: 0,
            claimed: Lsn::ZERO,
            claimed_at: Lsn::ZERO,
            erase_end: end.offset,
        };
        for (segment, file) in files.range(end.segment..) {
            let spare = file.head == UncheckedHead::Spare && file.size_bytes == whole;
            let readable_bytes = readable(Some(file), geometry);
            let touched = false;
            survivors.parts.push(Part { segment: *segment, readable_bytes, spare, touched });
            if let UncheckedHead::Open(head, _) = &file.head
                && *segment > end.segment
            {
                survivors.claim(Lsn(head.durable), geometry.lsn(*segment, 0));
            }
        }
        survivors.skip_read();
        survivors
    }

    /// The highest position that anything behind the end calls durable, and who does.
    pub(crate) fn claimed(&self) -> (Lsn, Lsn) {
        (self.claimed, self.claimed_at)
    }

    /// Up to where the last segment must be erased.
    pub(crate) fn erase_end(&self) -> u64 {
        self.erase_end
    }

    /// The last of the prepared segments that follow the end without a gap and were never touched.
    pub(crate) fn ready(&self) -> SegmentSequence {
        let clean = self.parts.iter().skip(1).take_while(|part| part.spare && !part.touched);
        clean.last().map_or(self.end.segment, |part| part.segment)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.part >= self.parts.len()
    }

    pub(crate) fn poll_read(&mut self) -> Option<(SegmentSequence, u64, u64)> {
        let part = self.parts.get(self.part)?;
        self.reading_bytes = CHUNK_SIZE_BYTES.min(part.readable_bytes - self.offset);
        Some((part.segment, self.offset, self.reading_bytes))
    }

    pub(crate) fn handle_read(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64, self.reading_bytes);
        let segment = self.parts[self.part].segment;
        let mut found = Vec::new();
        let (geometry, seed, offset) = (self.geometry, self.seed, self.offset);
        find_frames(geometry, seed, segment, offset, bytes, |survivor| found.push(survivor));
        for survivor in &found {
            self.claim(survivor.durable, survivor.lsn);
            if segment == self.end.segment {
                self.erase_end = self.erase_end.max(survivor.end);
            }
        }
        let part = &mut self.parts[self.part];
        part.touched |= !found.is_empty();
        if part.spare && !part.touched && self.part > 0 {
            self.part = self.parts.len();
            return;
        }
        self.offset += self.reading_bytes;
        if self.offset < self.parts[self.part].readable_bytes {
            // A frame that lies across two chunks is seen by reading the last block again.
            self.offset -= BLOCK_SIZE_BYTES as u64;
        }
        self.skip_read();
    }

    // Pass over what is read through, and end behind the first untouched spare.
    fn skip_read(&mut self) {
        while let Some(part) = self.parts.get(self.part)
            && self.offset >= part.readable_bytes
        {
            self.part += 1;
            self.offset = BLOCK_SIZE_BYTES as u64;
        }
    }

    fn claim(&mut self, durable: Lsn, at: Lsn) {
        if durable > self.claimed {
            (self.claimed, self.claimed_at) = (durable, at);
        }
    }
}
