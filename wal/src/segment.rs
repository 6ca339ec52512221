//! Segments: their names, their places in the log, and the block at the head of each.
//!
//! The head block (4 KiB), little-endian. The first 32 bytes and the checksum rule are the same in
//! every version, so that an unknown version is told from a torn block:
//!
//! | at | size | field | why |
//! |---|---|---|---|
//! | 0 | 8 | magic | tells a log from anything else |
//! | 8 | 4 | version | of the body and of all records behind |
//! | 12 | 4 | crc | over the whole block but this field: a torn head is no head |
//! | 16 | 4 | mark | 1: prepared, never used; 2: opened |
//! | 20 | 4 | body size | |
//! | 24 | 8 | sequence | equals the name, else the file was being recycled |
//! | 32 | .. | body | [`Head`], encoded by rkyv; empty in a prepared segment |
//!
//! Invariants:
//! - The sequence counts from 1 and is never used twice, not even for a recycled file.
//! - The chain starts anew at each head, and the head repeats where and how the last one ended.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::disk::BLOCK_SIZE_BYTES;
use crate::record::{Chain, Lsn, read_u32, read_u64};

/// What the owner may keep as identity: two ids and a name fit many times.
pub const IDENTITY_SIZE_BYTES_MAX: usize = 512;

/// What the owner may keep as hard state: raft's takes 24 bytes; a conf state of dozens of members
/// fits too.
pub const STATE_SIZE_BYTES_MAX: usize = 2048;

const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"\x8fwal\r\n\x1a\0";
const PREFIX_SIZE_BYTES: usize = 32;
const BODY_SIZE_BYTES_MAX: usize = BLOCK_SIZE_BYTES - PREFIX_SIZE_BYTES;
const MARK_SPARE: u32 = 1;
const MARK_OPEN: u32 = 2;

// The fixed fields of the body take less than 128 bytes, so that a full identity and a full state
// always fit.
const _: () = assert!(IDENTITY_SIZE_BYTES_MAX + STATE_SIZE_BYTES_MAX + 128 < BODY_SIZE_BYTES_MAX);

/// The number of a segment, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSequence(pub u64);

impl SegmentSequence {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentSequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The name of a segment's file: sixteen hexadecimal digits, so that names sort as numbers do.
pub fn segment_file_name(segment: SegmentSequence) -> String {
    format!("{:016x}.wal", segment.0)
}

/// Reads a name back; `None` for every name that is not exactly one of ours.
pub(crate) fn parse_file_name(name: &str) -> Option<SegmentSequence> {
    let sequence = u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()?;
    let segment = SegmentSequence(sequence);
    (sequence > 0 && segment_file_name(segment) == name).then_some(segment)
}

/// How positions map to segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) segment_size_bytes: u64,
}

impl Geometry {
    pub(crate) fn lsn(self, segment: SegmentSequence, offset: u64) -> Lsn {
        assert!(offset <= self.segment_size_bytes);
        Lsn(segment.0 * self.segment_size_bytes + offset)
    }

    /// The end of a full segment counts as the start of the next.
    pub(crate) fn split(self, lsn: Lsn) -> (SegmentSequence, u64) {
        let segment = SegmentSequence(lsn.0 / self.segment_size_bytes);
        (segment, lsn.0 % self.segment_size_bytes)
    }

    /// No name above this is ours: its positions would not fit 64 bits.
    pub(crate) fn sequence_max(self) -> u64 {
        u64::MAX / self.segment_size_bytes - 2
    }
}

/// What an opened segment says at its head.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of every segment of this log; positions depend on it.
    pub(crate) segment_size_bytes: u64,
    /// Seeds all frame checksums of this log.
    pub(crate) salt: u64,
    /// Of the process that opened the segment.
    pub(crate) boot_nonce: u64,
    /// Where the segment before ended, and the chain there.
    pub(crate) previous_end: u64,
    pub(crate) previous_chain: u32,
    /// How far the log was durable when the segment was opened.
    pub(crate) durable: u64,
    /// Segments wholly before may be gone.
    pub(crate) released: u64,
    /// Whose log it is.
    pub(crate) identity: Vec<u8>,
    /// The hard state then current.
    pub(crate) state: Option<Vec<u8>>,
}

impl Head {
    /// Write the head block and return the link that the first record must repeat.
    pub(crate) fn encode(&self, segment: SegmentSequence, block: &mut [u8]) -> Chain {
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self)
            .expect("identity and state are bounded when they are accepted");
        assert!(self.is_possible(segment), "segment {segment} cannot begin with {self:?}");
        encode_block(segment, MARK_OPEN, &body, block)
    }

    // Only what is durable is released, and nothing is durable before it was written.
    fn is_possible(&self, segment: SegmentSequence) -> bool {
        let begin = u128::from(segment.0) * u128::from(self.segment_size_bytes);
        self.released <= self.durable
            && self.durable <= self.previous_end
            && u128::from(self.previous_end) <= begin
    }
}

/// Write the head block of a prepared segment.
pub(crate) fn encode_spare(segment: SegmentSequence, block: &mut [u8]) {
    encode_block(segment, MARK_SPARE, &[], block);
}

fn encode_block(segment: SegmentSequence, mark: u32, body: &[u8], block: &mut [u8]) -> Chain {
    assert_eq!(block.len(), BLOCK_SIZE_BYTES);
    assert!(body.len() <= BODY_SIZE_BYTES_MAX, "head body of {} bytes", body.len());
    let body_size = u32::try_from(body.len()).expect("at most one block");
    block.fill(0);
    block[0..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block[16..20].copy_from_slice(&mark.to_le_bytes());
    block[20..24].copy_from_slice(&body_size.to_le_bytes());
    block[24..32].copy_from_slice(&segment.0.to_le_bytes());
    block[PREFIX_SIZE_BYTES..][..body.len()].copy_from_slice(body);
    let crc = block_crc(block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    Chain(crc)
}

fn block_crc(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..12]);
    hasher.update(&block[16..]);
    hasher.finalize()
}

/// What the first block of a segment's file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UncheckedHead {
    /// Nothing but zeros, or no whole block: being created.
    Blank,
    /// Bytes, but no checksum that fits: being written, or damaged.
    Torn,
    /// A whole block of a version this program does not know.
    Unversioned(u32),
    /// A whole block that belongs to an earlier segment: being recycled.
    Stale(SegmentSequence),
    /// A whole block that belongs to a later segment, or one whose body is not understood.
    Alien,
    /// Prepared and never used.
    Spare,
    /// Opened.
    Open(Box<Head>, Chain),
}

impl UncheckedHead {
    pub(crate) fn decode(segment: SegmentSequence, block: &[u8]) -> Self {
        if block.len() < BLOCK_SIZE_BYTES || block.iter().all(|byte| *byte == 0) {
            return Self::Blank;
        }
        let crc = read_u32(block, 12);
        if block[..8] != MAGIC || crc != block_crc(block) {
            return Self::Torn;
        }
        let version = read_u32(block, 8);
        if version != VERSION {
            return Self::Unversioned(version);
        }
        let sequence = SegmentSequence(read_u64(block, 24));
        if sequence < segment {
            return Self::Stale(sequence);
        }
        let body_size = usize::try_from(read_u32(block, 20)).unwrap_or(usize::MAX);
        let mark = read_u32(block, 16);
        if sequence > segment || body_size > BODY_SIZE_BYTES_MAX {
            return Self::Alien;
        }
        match mark {
            MARK_SPARE if body_size == 0 => Self::Spare,
            MARK_OPEN => {
                let body = &block[PREFIX_SIZE_BYTES..][..body_size];
                Self::decode_body(segment, body, Chain(crc))
            }
            _ => Self::Alien,
        }
    }

    fn decode_body(segment: SegmentSequence, body: &[u8], chain: Chain) -> Self {
        let Ok(head) = rkyv::access::<ArchivedHead, rkyv::rancor::Error>(body) else {
            return Self::Alien;
        };
        let head = Head {
            segment_size_bytes: head.segment_size_bytes.to_native(),
            salt: head.salt.to_native(),
            boot_nonce: head.boot_nonce.to_native(),
            previous_end: head.previous_end.to_native(),
            previous_chain: head.previous_chain.to_native(),
            durable: head.durable.to_native(),
            released: head.released.to_native(),
            identity: head.identity.to_vec(),
            state: head.state.as_ref().map(|state| state.to_vec()),
        };
        if !head.is_possible(segment) {
            return Self::Alien;
        }
        Self::Open(Box::new(head), chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            segment_size_bytes: 0x0100_0000,
            salt: 0x0102_0304_0506_0708,
            boot_nonce: 0x1112_1314_1516_1718,
            previous_end: 0x0200_3000,
            previous_chain: 0x2122_2324,
            durable: 0x0200_2000,
            released: 0x0100_0000,
            identity: b"member".to_vec(),
            state: Some(b"vote".to_vec()),
        }
    }

    fn block() -> (Vec<u8>, Chain) {
        let mut block = vec![0xee; BLOCK_SIZE_BYTES];
        let chain = head().encode(SegmentSequence(3), &mut block);
        (block, chain)
    }

    #[test]
    fn golden_bytes_freeze_the_head() {
        let (block, chain) = block();
        let used = block.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let hex: String = block[..used].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_HEAD);
        let decoded = UncheckedHead::decode(SegmentSequence(3), &block);
        assert_eq!(decoded, UncheckedHead::Open(Box::new(head()), chain));
    }

    const GOLDEN_HEAD: &str = "\
        8f77616c0d0a1a0001000000a57e9a3a020000004f00000003000000000000006d656d626572766f\
        74650000000100000000080706050403020118171615141312110030000200000000242322210020\
        0002000000000000000100000000c2ffffff0600000001bfffffff04";

    #[test]
    fn golden_bytes_freeze_the_spare_mark() {
        let mut block = vec![0xee; BLOCK_SIZE_BYTES];
        encode_spare(SegmentSequence(0x0203), &mut block);
        let hex: String = block[..32].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8f77616c0d0a1a00010000007680e9aa01000000000000000302000000000000");
        assert!(block[32..].iter().all(|byte| *byte == 0));
        assert_eq!(UncheckedHead::decode(SegmentSequence(0x0203), &block), UncheckedHead::Spare);
    }

    #[test]
    fn every_kind_of_first_block_is_told_apart() {
        let (block, _) = block();
        let third = SegmentSequence(3);
        assert_eq!(
            UncheckedHead::decode(SegmentSequence(9), &block),
            UncheckedHead::Stale(SegmentSequence(3))
        );
        assert_eq!(UncheckedHead::decode(SegmentSequence(2), &block), UncheckedHead::Alien);
        assert_eq!(UncheckedHead::decode(third, &block[..4095]), UncheckedHead::Blank);
        assert_eq!(UncheckedHead::decode(third, &vec![0; 4096]), UncheckedHead::Blank);
        let mut newer = block.clone();
        newer[8] = 2;
        let crc = block_crc(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(UncheckedHead::decode(third, &newer), UncheckedHead::Unversioned(2));
        for sector in 0..8 {
            let mut torn = block.clone();
            torn[sector * 512..][..512].fill(0xab);
            assert_eq!(UncheckedHead::decode(third, &torn), UncheckedHead::Torn, "{sector}");
        }
    }

    #[test]
    fn a_head_that_claims_what_lies_before_it_in_time_is_no_head_of_ours() {
        let third = SegmentSequence(3);
        let mut block = vec![0; BLOCK_SIZE_BYTES];
        for head in [
            Head { released: 0x0200_2001, ..head() },
            Head { durable: 0x0200_3001, ..head() },
            Head { previous_end: 0x0300_0001, ..head() },
            Head { previous_end: u64::MAX, durable: u64::MAX, released: u64::MAX, ..head() },
        ] {
            let body = rkyv::to_bytes::<rkyv::rancor::Error>(&head).unwrap();
            encode_block(third, MARK_OPEN, &body, &mut block);
            assert_eq!(UncheckedHead::decode(third, &block), UncheckedHead::Alien, "{head:?}");
        }
    }

    #[test]
    fn a_full_identity_and_a_full_state_fit_the_head() {
        let head = Head {
            identity: vec![0xff; IDENTITY_SIZE_BYTES_MAX],
            state: Some(vec![0xff; STATE_SIZE_BYTES_MAX]),
            ..head()
        };
        let mut block = vec![0; BLOCK_SIZE_BYTES];
        let chain = head.encode(SegmentSequence(3), &mut block);
        let decoded = UncheckedHead::decode(SegmentSequence(3), &block);
        assert_eq!(decoded, UncheckedHead::Open(Box::new(head), chain));
    }

    #[test]
    fn only_exact_names_are_segments() {
        assert_eq!(segment_file_name(SegmentSequence(0x1f)), "000000000000001f.wal");
        assert_eq!(parse_file_name("000000000000001f.wal"), Some(SegmentSequence(0x1f)));
        for name in [
            "0000000000000000.wal",
            "000000000000001F.wal",
            "00000000000001f.wal",
            "+00000000000001f.wal",
            "000000000000001f.wal.tmp",
            "1f",
            ".wal",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
