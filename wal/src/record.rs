//! One record on disk: a frame of 40 bytes, the body, and zeros up to a multiple of eight.
//!
//! Layout of the frame, little-endian:
//!
//! | at | size | field | why |
//! |---|---|---|---|
//! | 0 | 4 | crc | over bytes 4..40, seeded with the log's salt |
//! | 4 | 4 | body size | without the zeros after it |
//! | 8 | 4 | body crc | over the body and the zeros after it |
//! | 12 | 4 | previous | the crc of the frame before: the chain |
//! | 16 | 8 | lsn | where this frame begins: bytes of an older life lie elsewhere |
//! | 24 | 8 | durable | how far the log was known durable when this was appended |
//! | 32 | 4 | number | the how-many-eth record of its segment, for messages |
//! | 36 | 1 | kind | the owner's, or one of ours |
//! | 37 | 3 | zero | |
//!
//! Invariants:
//! - A [`Frame`] exists only after its crc, position and bounds were checked.
//! - The frame is checked without its body, so that a claim of durability survives a torn body.

use rkyv::{Archive, Deserialize, Serialize};

use crate::RECORD_SIZE_BYTES_MAX;

/// Size of a frame.
pub(crate) const FRAME_SIZE_BYTES: usize = 40;

/// A position in the endless log: segment sequence times segment size, plus the offset. Zero lies
/// before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self(0);
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// What a record is. The log gives a meaning to its own kinds only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKind(u8);

impl RecordKind {
    /// A hard state: the log repeats the newest at the head of each later segment.
    pub const STATE: Self = Self(0xf1);
    /// Everything before is void.
    pub const RESET: Self = Self(0xf2);
    /// A start of the process: the log's own.
    pub(crate) const BOOT: Self = Self(0xf3);
    /// Everything before a position may be gone: the log's own.
    pub(crate) const RELEASE: Self = Self(0xf4);
    /// The end of a batch: the log's own.
    pub(crate) const SEAL: Self = Self(0xff);

    /// A kind of the owner's; kinds from 0xf0 on are the log's.
    pub const fn owned(kind: u8) -> Self {
        assert!(kind < 0xf0, "kinds from 0xf0 on are reserved");
        Self(kind)
    }

    /// Whether the log gives this kind a meaning.
    pub const fn is_reserved(self) -> bool {
        self.0 >= 0xf0
    }

    /// The byte in the frame.
    pub const fn get(self) -> u8 {
        self.0
    }

    fn is_known(self) -> bool {
        let own = [Self::STATE, Self::RESET, Self::BOOT, Self::RELEASE, Self::SEAL];
        !self.is_reserved() || own.contains(&self)
    }
}

/// A recovered or re-read record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends: what its `append` returned.
    pub end: Lsn,
    /// What it is: the owner's kinds, [`RecordKind::STATE`] and [`RecordKind::RESET`].
    pub kind: RecordKind,
    /// What was appended.
    pub body: &'a [u8],
}

/// The seed of all frame checksums of one log: a crc over the log's salt. A client that writes
/// bytes which look like a frame does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn of_salt(salt: u64) -> Self {
        Self(crc32fast::hash(&salt.to_le_bytes()))
    }
}

/// The crc of the newest frame (or of the head, at a segment's start): what the next one repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) u32);

/// A frame whose checksum, position and bounds are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) body_size: u32,
    pub(crate) body_crc: u32,
    pub(crate) previous: Chain,
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) number: u32,
    pub(crate) kind: RecordKind,
}

impl Frame {
    /// Write the frame and return the chain's next link.
    pub(crate) fn encode(&self, seed: Seed, out: &mut [u8]) -> Chain {
        assert!(self.durable <= self.lsn, "claims {} at {}", self.durable, self.lsn);
        let out: &mut [u8; FRAME_SIZE_BYTES] =
            out.try_into().expect("the caller cut out exactly one frame");
        out[4..8].copy_from_slice(&self.body_size.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.previous.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.number.to_le_bytes());
        out[36..40].copy_from_slice(&[self.kind.0, 0, 0, 0]);
        let crc = frame_crc(seed, out);
        out[0..4].copy_from_slice(&crc.to_le_bytes());
        Chain(crc)
    }

    /// Read a frame that should begin at `lsn`, with the link that the next one must repeat.
    /// Anything else than a frame written there is `None`.
    pub(crate) fn verify(seed: Seed, lsn: Lsn, bytes: &[u8]) -> Option<(Self, Chain)> {
        let bytes: &[u8; FRAME_SIZE_BYTES] = bytes.get(..FRAME_SIZE_BYTES)?.try_into().ok()?;
        // The position first: it is wrong in zeros and in another life's bytes, and costs nothing.
        if read_u64(bytes, 16) != lsn.0 {
            return None;
        }
        let crc = read_u32(bytes, 0);
        if crc != frame_crc(seed, bytes) {
            return None;
        }
        let frame = Self {
            body_size: read_u32(bytes, 4),
            body_crc: read_u32(bytes, 8),
            previous: Chain(read_u32(bytes, 12)),
            lsn,
            durable: Lsn(read_u64(bytes, 24)),
            number: read_u32(bytes, 32),
            kind: RecordKind(bytes[36]),
        };
        let bounded = body_span(frame.body_size) <= body_span_max();
        let plain = bytes[37..40] == [0, 0, 0];
        (bounded && plain && frame.durable <= lsn).then_some((frame, Chain(crc)))
    }

    /// Frame, body and fill.
    pub(crate) fn span(&self) -> usize {
        FRAME_SIZE_BYTES + body_span(self.body_size)
    }

    /// Whether these are the bytes (with their fill) that the frame was written for.
    pub(crate) fn matches(&self, body_and_fill: &[u8]) -> bool {
        body_and_fill.len() == body_span(self.body_size)
            && crc32fast::hash(body_and_fill) == self.body_crc
    }

    /// Whether this version knows what the record means.
    pub(crate) fn is_known(&self) -> bool {
        self.kind.is_known()
    }
}

fn frame_crc(seed: Seed, bytes: &[u8; FRAME_SIZE_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.0);
    hasher.update(&bytes[4..]);
    hasher.finalize()
}

fn body_span(body_size: u32) -> usize {
    usize::try_from(body_size).expect("usize is 64 bits wide").next_multiple_of(8)
}

const fn body_span_max() -> usize {
    RECORD_SIZE_BYTES_MAX.next_multiple_of(8)
}

/// What a body of this size takes in the log.
pub(crate) fn record_span(body_size: usize) -> usize {
    FRAME_SIZE_BYTES + body_size.next_multiple_of(8)
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut out"))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut out"))
}

/// Body of a boot record: the process started and found the log to end here.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) nonce: u64,
}

/// Body of a release record: segments wholly before may be gone from now on.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) before: u64,
}

impl Boot {
    pub(crate) fn to_bytes(&self) -> rkyv::util::AlignedVec {
        rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a fixed body always encodes")
    }
}

impl Release {
    pub(crate) fn to_bytes(&self) -> rkyv::util::AlignedVec {
        rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a fixed body always encodes")
    }

    pub(crate) fn before(bytes: &[u8]) -> Option<Lsn> {
        let archived = rkyv::access::<ArchivedRelease, rkyv::rancor::Error>(bytes).ok()?;
        Some(Lsn(archived.before.to_native()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            body_size: 5,
            body_crc: 0x0403_0201,
            previous: Chain(0x0807_0605),
            lsn: Lsn(0x0102_0000),
            durable: Lsn(0x0101_f000),
            number: 9,
            kind: RecordKind::owned(3),
        }
    }

    #[test]
    fn golden_bytes_freeze_the_frame() {
        let mut bytes = [0; FRAME_SIZE_BYTES];
        let chain = frame().encode(Seed::of_salt(0x1122_3344_5566_7788), &mut bytes);
        let golden = [
            0xb7, 0xa2, 0x92, 0x2e, 0x05, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06,
            0x07, 0x08, 0x00, 0x00, 0x02, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf0, 0x01, 0x01,
            0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
        ];
        assert_eq!(bytes, golden);
        assert_eq!(chain.0.to_le_bytes(), golden[..4]);
    }

    #[test]
    fn golden_bytes_freeze_our_own_bodies() {
        assert_eq!(&Boot { nonce: 0x0102_0304_0506_0708 }.to_bytes()[..], [8, 7, 6, 5, 4, 3, 2, 1]);
        let release = Release { before: 0x0807_0605_0403_0201 }.to_bytes();
        assert_eq!(&release[..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Release::before(&release), Some(Lsn(0x0807_0605_0403_0201)));
        assert_eq!(Release::before(&release[..7]), None);
    }

    #[test]
    fn every_changed_bit_of_a_frame_is_noticed() {
        let seed = Seed::of_salt(7);
        let mut bytes = [0; FRAME_SIZE_BYTES];
        let chain = frame().encode(seed, &mut bytes);
        assert_eq!(Frame::verify(seed, frame().lsn, &bytes), Some((frame(), chain)));
        for bit in 0..FRAME_SIZE_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::verify(seed, frame().lsn, &damaged), None, "bit {bit}");
        }
        assert_eq!(Frame::verify(Seed::of_salt(8), frame().lsn, &bytes), None);
        assert_eq!(Frame::verify(seed, Lsn(0x0102_1000), &bytes), None);
        assert_eq!(Frame::verify(seed, frame().lsn, &bytes[..39]), None);
    }

    #[test]
    fn a_frame_out_of_bounds_is_no_frame_though_its_crc_is_right() {
        let seed = Seed::of_salt(7);
        let mut bytes = [0; FRAME_SIZE_BYTES];
        let limit = u32::try_from(RECORD_SIZE_BYTES_MAX).unwrap();
        for (body_size, valid) in [(limit, true), (limit + 1, false), (u32::MAX, false)] {
            Frame { body_size, ..frame() }.encode(seed, &mut bytes);
            assert_eq!(Frame::verify(seed, frame().lsn, &bytes).is_some(), valid);
        }
    }
}
