//! Frames: a head of twelve bytes and a body, on a stream of bytes.
//!
//! ```text
//! 0   length of the body, u32 little-endian
//! 4   kind, u8
//! 5   three zero bytes
//! 8   CRC-32 of the first eight bytes and the body, u32 little-endian
//! 12  body
//! ```
//!
//! The checksum covers the head as well: a flipped kind would otherwise hand a sound body to the
//! wrong reader.
//!
//! [`FrameWriter`] makes a frame as a list of pieces, because the payloads of entries are shared
//! with raft's log and with the frames for the other followers. [`FrameReader`] cuts frames out of
//! received bytes as they come.
//!
//! Invariants:
//! - A body that lies whole in what was received is lent, not copied; one that is cut is gathered
//!   in a buffer of its own, in one copy.
//! - A length beyond the reader's limit is refused before a byte of the body is kept.
//! - A reader that has refused something refuses everything from then on.

use std::fmt;

use bytes::Bytes;
use crc32fast::Hasher;

use super::layout::{Reader, short_len};

/// Size of a frame's head.
pub const HEAD_SIZE_BYTES: usize = 12;
/// The longest body on a bulk connection: raft puts at most 1 MiB of entries in a message, but a
/// single entry is as large as the log's largest record, 32 MiB. The rest is for heads.
pub const BULK_BODY_SIZE_BYTES_MAX: usize = (32 << 20) + (1 << 20);
/// The longest body on a control connection; what is larger belongs elsewhere.
pub const CONTROL_BODY_SIZE_BYTES_MAX: usize = 256 << 10;
/// The longest body of a hello and of its answer, which come from anybody.
pub const HELLO_BODY_SIZE_BYTES_MAX: usize = 4 << 10;
/// Below this, a payload is copied beside its head: a handle and its place in a vectored write cost
/// more than so many bytes.
const INLINE_BYTES_MAX: usize = 256;
/// What is reserved at first for a body that is cut. More only as more comes, so that a length
/// alone takes no memory.
const GATHER_BYTES_FIRST: usize = 64 << 10;

/// What a frame holds. The numbers are the protocol's and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Who is speaking, to whom, about what.
    Hello = 1,
    /// The connection may be used.
    Welcome = 2,
    /// It may not, and why.
    Refusal = 3,
    /// A message of raft's.
    Raft = 4,
    /// A batch for the leader.
    Forward = 5,
    /// A forwarded batch that was not proposed.
    ForwardRefused = 6,
    /// Questions to the leader about leases.
    LeaseQuestions = 7,
    /// Its answers.
    LeaseAnswers = 8,
    /// A raft snapshot begins, or goes on.
    SnapshotBegin = 9,
    /// A part of it.
    SnapshotChunk = 10,
    /// It is complete.
    SnapshotEnd = 11,
    /// How far it has come.
    SnapshotAcknowledged = 12,
    /// A member's keys are to be hashed.
    HashQuestion = 13,
    /// Their hash.
    HashAnswer = 14,
    /// How long does it take to answer this.
    Probe = 15,
    /// The answer.
    ProbeAnswer = 16,
}

impl FrameKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Hello,
        Self::Welcome,
        Self::Refusal,
        Self::Raft,
        Self::Forward,
        Self::ForwardRefused,
        Self::LeaseQuestions,
        Self::LeaseAnswers,
        Self::SnapshotBegin,
        Self::SnapshotChunk,
        Self::SnapshotEnd,
        Self::SnapshotAcknowledged,
        Self::HashQuestion,
        Self::HashAnswer,
        Self::Probe,
        Self::ProbeAnswer,
    ];

    fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why a stream of frames cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A kind that this version does not know.
    UnknownKind(u8),
    /// Bytes that have to be zero are not.
    Reserved,
    /// A body longer than may be sent here.
    TooLong {
        /// As the head has it.
        size_bytes: usize,
        /// What is allowed.
        size_bytes_max: usize,
    },
    /// The checksum is another one.
    Damaged,
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(formatter, "a frame of unknown kind {kind}"),
            Self::Reserved => formatter.write_str("a frame with reserved bytes that are not zero"),
            Self::TooLong { size_bytes, size_bytes_max } => {
                write!(
                    formatter,
                    "a frame of {size_bytes} bytes where {size_bytes_max} are the most"
                )
            }
            Self::Damaged => formatter.write_str("a frame whose checksum does not fit"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A frame that is ready to be sent: its bytes are its pieces, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutFrame {
    pieces: Vec<Bytes>,
    size_bytes: usize,
}

impl OutFrame {
    /// The pieces, in order; none is empty.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The pieces themselves.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// All bytes of the frame.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The frame in one piece, which copies it.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Builds one frame.
#[derive(Debug)]
pub struct FrameWriter {
    kind: FrameKind,
    /// The first piece; it opens with the head, which is filled in last.
    first: Vec<u8>,
    /// What follows it, without `tail`.
    pieces: Vec<Bytes>,
    /// Own bytes behind the last shared piece.
    tail: Vec<u8>,
}

impl FrameWriter {
    /// Begins a frame.
    #[must_use]
    pub fn new(kind: FrameKind) -> Self {
        let mut first = Vec::with_capacity(HEAD_SIZE_BYTES + 128);
        first.resize(HEAD_SIZE_BYTES, 0);
        Self { kind, first, pieces: Vec::new(), tail: Vec::new() }
    }

    /// Appends bytes, which are copied.
    pub fn put(&mut self, bytes: &[u8]) {
        let own = if self.pieces.is_empty() { &mut self.first } else { &mut self.tail };
        own.extend_from_slice(bytes);
    }

    /// Appends bytes, which are shared unless they are few.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= INLINE_BYTES_MAX {
            return self.put(bytes);
        }
        self.close_tail();
        self.pieces.push(bytes.clone());
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(std::mem::take(&mut self.tail).into());
        }
    }

    /// The frame.
    #[must_use]
    pub fn finish(mut self) -> OutFrame {
        self.close_tail();
        let shared: usize = self.pieces.iter().map(Bytes::len).sum();
        let body = self.first.len() - HEAD_SIZE_BYTES + shared;
        assert!(body <= BULK_BODY_SIZE_BYTES_MAX, "a frame of {body} bytes");
        self.first[..4].copy_from_slice(&short_len(body));
        self.first[4] = self.kind as u8;
        let mut crc = Hasher::new();
        crc.update(&self.first[..8]);
        crc.update(&self.first[HEAD_SIZE_BYTES..]);
        for piece in &self.pieces {
            crc.update(piece);
        }
        self.first[8..HEAD_SIZE_BYTES].copy_from_slice(&crc.finalize().to_le_bytes());
        let mut pieces = Vec::with_capacity(1 + self.pieces.len());
        pieces.push(Bytes::from(self.first));
        pieces.append(&mut self.pieces);
        OutFrame { pieces, size_bytes: HEAD_SIZE_BYTES + body }
    }
}

/// A body as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// It lies in what was received, and is valid as long as that.
    Lent(&'a [u8]),
    /// It was cut, and gathered.
    Gathered(Bytes),
}

impl Body<'_> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Gathered(bytes) => bytes,
        }
    }

    /// Its bytes to keep: copied if they were lent.
    #[must_use]
    pub fn into_shared(self) -> Bytes {
        match self {
            Self::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Self::Gathered(bytes) => bytes,
        }
    }
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFrame<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// Its body, whose checksum fits.
    pub body: Body<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: FrameKind,
    size_bytes: usize,
    crc: u32,
    /// Of the head's own part of the checksum.
    seed: u32,
}

impl Head {
    fn parse(bytes: [u8; HEAD_SIZE_BYTES], size_bytes_max: usize) -> Result<Self, FrameError> {
        let mut reader = Reader::new(&bytes);
        let mut short = || reader.short().expect("a head has three words of four bytes");
        let (size_bytes, kind, crc) = (short(), short(), short());
        let [kind, reserved @ ..] = kind.to_le_bytes();
        let kind = FrameKind::from_wire(kind).ok_or(FrameError::UnknownKind(kind))?;
        if reserved != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let size_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        if size_bytes > size_bytes_max {
            return Err(FrameError::TooLong { size_bytes, size_bytes_max });
        }
        let seed = crc32fast::hash(&bytes[..8]);
        Ok(Self { kind, size_bytes, crc, seed })
    }

    fn check(&self, body: &[u8]) -> Result<(), FrameError> {
        let mut crc = Hasher::new_with_initial(self.seed);
        crc.update(body);
        if crc.finalize() == self.crc { Ok(()) } else { Err(FrameError::Damaged) }
    }
}

/// Cuts frames out of received bytes.
#[derive(Debug)]
pub struct FrameReader {
    size_bytes_max: usize,
    /// What has come of a head.
    head_bytes: [u8; HEAD_SIZE_BYTES],
    head_len: usize,
    /// The head of the body that is being gathered.
    head: Option<Head>,
    gathered: Vec<u8>,
    failed: Option<FrameError>,
}

impl FrameReader {
    /// For bodies of at most so many bytes.
    #[must_use]
    pub fn new(size_bytes_max: usize) -> Self {
        Self {
            size_bytes_max,
            head_bytes: [0; HEAD_SIZE_BYTES],
            head_len: 0,
            head: None,
            gathered: Vec::new(),
            failed: None,
        }
    }

    /// From the next frame on, bodies may have so many bytes.
    pub fn set_limit(&mut self, size_bytes_max: usize) {
        self.size_bytes_max = size_bytes_max;
    }

    /// Bytes that are held of a frame that has not come whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.head_len + self.gathered.len()
    }

    /// The next frame, cut off the front of `input`. `None` takes all of it: more has to come.
    ///
    /// # Errors
    /// The stream cannot be read any further; the same again at every further call.
    pub fn poll_frame<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<InFrame<'a>>, FrameError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let polled = self.poll(input);
        self.failed = polled.as_ref().err().copied();
        polled
    }

    fn poll<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<InFrame<'a>>, FrameError> {
        let head = match self.head {
            Some(head) => head,
            None => match self.poll_head(input)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        if self.gathered.is_empty()
            && let Some((body, rest)) = input.split_at_checked(head.size_bytes)
        {
            *input = rest;
            self.head = None;
            head.check(body)?;
            return Ok(Some(InFrame { kind: head.kind, body: Body::Lent(body) }));
        }
        self.gather(head, input);
        if self.gathered.len() < head.size_bytes {
            return Ok(None);
        }
        self.head = None;
        let body = std::mem::take(&mut self.gathered);
        head.check(&body)?;
        Ok(Some(InFrame { kind: head.kind, body: Body::Gathered(body.into()) }))
    }

    fn poll_head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, FrameError> {
        let count = input.len().min(HEAD_SIZE_BYTES - self.head_len);
        let (bytes, rest) = input.split_at(count);
        self.head_bytes[self.head_len..self.head_len + count].copy_from_slice(bytes);
        self.head_len += count;
        *input = rest;
        if self.head_len < HEAD_SIZE_BYTES {
            return Ok(None);
        }
        self.head_len = 0;
        let head = Head::parse(self.head_bytes, self.size_bytes_max)?;
        self.head = Some(head);
        Ok(Some(head))
    }

    fn gather(&mut self, head: Head, input: &mut &[u8]) {
        let missing = head.size_bytes - self.gathered.len();
        let (bytes, rest) = input.split_at(input.len().min(missing));
        if self.gathered.capacity() < self.gathered.len() + bytes.len() {
            // Doubled, but never beyond the body's end.
            let doubled = self.gathered.capacity().max(GATHER_BYTES_FIRST / 2) * 2;
            let wanted = doubled.max(self.gathered.len() + bytes.len()).min(head.size_bytes);
            self.gathered.reserve_exact(wanted - self.gathered.len());
        }
        self.gathered.extend_from_slice(bytes);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn frame(kind: FrameKind, parts: &[&[u8]]) -> OutFrame {
        let mut writer = FrameWriter::new(kind);
        for part in parts {
            writer.put_shared(&Bytes::copy_from_slice(part));
        }
        writer.finish()
    }

    fn read_all(reader: &mut FrameReader, bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let (mut input, mut frames) = (bytes, Vec::new());
        while let Some(frame) = reader.poll_frame(&mut input)? {
            frames.push((frame.kind as u8, frame.body.bytes().to_vec()));
        }
        assert!(input.is_empty());
        Ok(frames)
    }

    #[test]
    fn golden_bytes_freeze_the_frame() {
        let frame = frame(FrameKind::Raft, &[b"abc"]);
        // The checksum was computed by another program, over 03 00 00 00 04 00 00 00 "abc".
        let golden = [3, 0, 0, 0, 4, 0, 0, 0, 0x2e, 0x6b, 0x4f, 0xcc, b'a', b'b', b'c'];
        assert_eq!(frame.to_vec(), golden);
        assert_eq!(frame.size_bytes(), golden.len());
        let kinds: Vec<u8> = FrameKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(kinds, (1..=16).collect::<Vec<u8>>());
    }

    #[test]
    fn large_payloads_are_shared_and_small_ones_copied() {
        let large = Bytes::from(vec![7; 5000]);
        let mut writer = FrameWriter::new(FrameKind::Raft);
        writer.put(b"head");
        writer.put_shared(&Bytes::from_static(b"small"));
        writer.put_shared(&large);
        writer.put_shared(&Bytes::from_static(b"behind"));
        writer.put_shared(&large);
        let frame = writer.finish();
        let pieces = frame.pieces();
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(pieces[3].as_ptr(), large.as_ptr());
        assert_eq!(&pieces[0][HEAD_SIZE_BYTES..], b"headsmall");
        assert_eq!(pieces[2], "behind");
        assert_eq!(frame.size_bytes(), frame.to_vec().len());
    }

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..random.below(20) {
                let kind = FrameKind::ALL[random.below(FrameKind::ALL.len())];
                let len_max = if random.once_in(5) { 100_000 } else { 300 };
                let body = random.bytes(len_max);
                bytes.extend(frame(kind, &[&body]).to_vec());
                expected.push((kind as u8, body));
            }
            let mut reader = FrameReader::new(100_000);
            let (mut rest, mut found) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                let cut_max = if random.once_in(2) { 20 } else { 60_000 };
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(cut_max)));
                found.extend(read_all(&mut reader, now).unwrap());
                rest = later;
            }
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(reader.held_bytes(), 0, "seed {seed}");
        }
    }

    #[test]
    fn a_whole_body_is_lent_and_a_cut_one_gathered() {
        let bytes = frame(FrameKind::Forward, &[&[9; 1000]]).to_vec();
        let mut reader = FrameReader::new(1000);
        let mut input = &bytes[..];
        let lent = reader.poll_frame(&mut input).unwrap().unwrap();
        let Body::Lent(body) = lent.body else { panic!("it lies whole in the input") };
        assert_eq!(body.as_ptr(), bytes[HEAD_SIZE_BYTES..].as_ptr());
        // A cut between head and body copies nothing either.
        let mut head = &bytes[..HEAD_SIZE_BYTES];
        assert_eq!(reader.poll_frame(&mut head), Ok(None));
        let mut input = &bytes[HEAD_SIZE_BYTES..];
        assert!(matches!(reader.poll_frame(&mut input).unwrap().unwrap().body, Body::Lent(_)));
        let mut first = &bytes[..500];
        assert_eq!(reader.poll_frame(&mut first), Ok(None));
        let mut second = &bytes[500..];
        let gathered = reader.poll_frame(&mut second).unwrap().unwrap();
        assert!(matches!(gathered.body, Body::Gathered(_)));
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut reader = FrameReader::new(BULK_BODY_SIZE_BYTES_MAX);
        let mut bytes = vec![0; HEAD_SIZE_BYTES];
        bytes[..4].copy_from_slice(&short_len(BULK_BODY_SIZE_BYTES_MAX));
        bytes[4] = FrameKind::Raft as u8;
        bytes.push(1);
        assert_eq!(read_all(&mut reader, &bytes), Ok(vec![]));
        assert!(reader.gathered.capacity() <= GATHER_BYTES_FIRST);
    }

    #[test]
    fn what_is_no_frame_is_refused_for_good() {
        let sound = frame(FrameKind::Raft, &[b"body"]).to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            bytes
        };
        let long = FrameError::TooLong { size_bytes: 65, size_bytes_max: 64 };
        for (bytes, expected) in [
            (with(4, 0), FrameError::UnknownKind(0)),
            (with(4, 17), FrameError::UnknownKind(17)),
            (with(5, 1), FrameError::Reserved),
            (with(7, 0x80), FrameError::Reserved),
            (with(0, 65), long),
            (with(4, 5), FrameError::Damaged),
            (with(8, sound[8] ^ 1), FrameError::Damaged),
            (with(12, b'B'), FrameError::Damaged),
        ] {
            let mut reader = FrameReader::new(64);
            assert_eq!(read_all(&mut reader, &bytes), Err(expected));
            assert_eq!(read_all(&mut reader, &sound), Err(expected));
        }
    }

    #[test]
    fn no_bytes_panic_and_no_flip_goes_unnoticed() {
        for seed in 0..2000 {
            let mut random = Random(seed);
            let mut reader = FrameReader::new(1 << 20);
            drop(read_all_loose(&mut reader, &random.bytes(200)));
            let mut bytes = frame(FrameKind::Raft, &[&random.bytes(100)]).to_vec();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            let mut reader = FrameReader::new(1 << 20);
            if let Ok(frames) = read_all_loose(&mut reader, &bytes) {
                assert!(frames.is_empty(), "seed {seed}: a flipped bit at {at} was not seen");
            }
        }
    }

    fn read_all_loose(reader: &mut FrameReader, bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        let (mut input, mut kinds) = (bytes, Vec::new());
        while let Some(frame) = reader.poll_frame(&mut input)? {
            kinds.push(frame.kind as u8);
        }
        Ok(kinds)
    }
}
