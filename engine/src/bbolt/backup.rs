//! A backup as etcd sends and stores it: the file, and behind its last page the file's SHA-256.
//!
//! Invariants:
//! - The digest covers every byte before it, in the order in which they were handed out.
//! - A backup has exactly the size that was promised when it began.

use std::fmt;
use std::mem;

use sha2::{Digest, Sha256};

use super::layout::{LengthError, Totals};
use super::reader::{ReadError, Source};
use super::writer::{Writer, front};

/// The size of the digest behind the last page.
pub const DIGEST_SIZE_BYTES: usize = 32;

/// A file with a digest has this remainder: pages have multiples of it.
const SECTOR_BYTES: u64 = 512;
/// How much is read at once to hash a file.
const READ_BYTES: usize = 256 << 10;

/// A backup that is sent as it grows. The totals are a [`super::Measure`]'s of the same pairs.
#[derive(Debug)]
pub struct Backup {
    totals: Totals,
    writer: Writer,
    digest: Sha256,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The front was not polled yet.
    Front,
    Pages,
    /// All pairs are in; pages may be left to poll.
    Finished,
    /// The digest was polled.
    Done,
}

impl Backup {
    /// Begins a backup.
    #[must_use]
    pub fn new(totals: Totals) -> Self {
        Self { totals, writer: Writer::new(), digest: Sha256::new(), state: State::Front }
    }

    /// How many bytes it will have, the digest included.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.totals.size_bytes() + DIGEST_SIZE_BYTES as u64
    }

    /// The same without the digest.
    #[must_use]
    pub fn file_size_bytes(&self) -> u64 {
        self.totals.size_bytes()
    }

    /// Begins a bucket, ending the one before.
    pub fn begin_bucket(&mut self, name: &[u8]) -> Result<(), LengthError> {
        self.writer.begin_bucket(name)
    }

    /// Adds a pair to the bucket.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), LengthError> {
        self.writer.add(key, value)
    }

    /// Says that there are no more pairs. They must have been those that were measured.
    pub fn finish(&mut self) {
        let totals = self.writer.finish();
        assert_eq!(totals, self.totals, "the walk that wrote differs from the one that measured");
        if self.state == State::Pages {
            self.state = State::Finished;
        }
    }

    /// The next bytes, in the order of the file; `None` when there are none now, and for ever once
    /// the backup is finished.
    pub fn poll_bytes(&mut self) -> Option<Vec<u8>> {
        if self.state == State::Front {
            let is_finished = self.writer.is_finished();
            self.state = if is_finished { State::Finished } else { State::Pages };
            return Some(self.hashed(front(self.totals)));
        }
        if let Some(pages) = self.writer.poll_pages() {
            return Some(self.hashed(pages));
        }
        if self.state != State::Finished {
            return None;
        }
        self.state = State::Done;
        Some(mem::take(&mut self.digest).finalize().to_vec())
    }

    fn hashed(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.digest.update(&bytes);
        bytes
    }
}

/// What a file's size says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The bytes that are bbolt's.
    pub file_bytes: u64,
    /// Whether a digest follows them. A copy of a data directory's file has none.
    pub has_digest: bool,
}

impl Envelope {
    /// Of a file of this size, by etcd's rule.
    #[must_use]
    pub fn of(size_bytes: u64) -> Self {
        let has_digest = size_bytes % SECTOR_BYTES == DIGEST_SIZE_BYTES as u64;
        let digest_bytes = if has_digest { DIGEST_SIZE_BYTES as u64 } else { 0 };
        Self { file_bytes: size_bytes - digest_bytes, has_digest }
    }
}

/// Why a backup's digest does not vouch for it.
#[derive(Debug)]
pub enum DigestError {
    /// The file carries none.
    Missing,
    /// The file's bytes have another digest.
    Mismatch {
        /// What the file carries.
        expected: [u8; DIGEST_SIZE_BYTES],
        /// What its bytes have.
        found: [u8; DIGEST_SIZE_BYTES],
    },
    /// The file cannot be read.
    Read(ReadError),
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        match self {
            Self::Missing => f.write_str("the file carries no SHA-256 digest"),
            Self::Mismatch { expected, found } => {
                f.write_str("the file's SHA-256 digest is ")?;
                hex(f, found)?;
                f.write_str(", it should be ")?;
                hex(f, expected)
            }
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DigestError {}

/// Checks the digest behind a file, reading all of it.
pub fn check_digest(source: &impl Source) -> Result<(), DigestError> {
    let envelope = Envelope::of(source.size_bytes());
    if !envelope.has_digest {
        return Err(DigestError::Missing);
    }
    let read = |at, buffer: &mut [u8]| {
        source
            .read_at(at, buffer)
            .map_err(|error| DigestError::Read(ReadError::Input { offset_bytes: at, error }))
    };
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < envelope.file_bytes {
        let left = usize::try_from(envelope.file_bytes - at).unwrap_or(usize::MAX);
        let part = &mut buffer[..left.min(READ_BYTES)];
        read(at, part)?;
        digest.update(&*part);
        at += part.len() as u64;
    }
    let mut expected = [0; DIGEST_SIZE_BYTES];
    read(at, &mut expected)?;
    let found = digest.finalize().into();
    if found == expected { Ok(()) } else { Err(DigestError::Mismatch { expected, found }) }
}
