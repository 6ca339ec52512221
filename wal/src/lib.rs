//! The write-ahead log: a durable order of opaque records.
//!
//! The log knows neither raft nor keys. Its owner appends records and hard states, is told how far
//! they are durable, and after a restart gets the same records back in the same order. FORMAT.md
//! says what the bytes look like and what is assumed of the medium.
//!
//! How it is driven: every part is a plain struct without files, clocks or threads. `poll_op`
//! hands out [`DiskOp`] values until it answers `None`; whoever performs them reports each end
//! through `handle_completion`. The server's reactor performs them on files, the suites on a
//! simulated disk. The exclusive lock on the data directory is an effect and thus the server's.
//!
//! A life: [`Recovery`] reads what is there, decides once where the log ends, erases what lies
//! behind, and becomes the [`Writer`]; a [`Reader`] re-reads old positions for followers.
//!
//! Invariants:
//! - No block that holds a record is ever written again in the life of its segment.
//! - What was reported durable is either recovered or its loss is reported by place; it is never
//!   cut off in silence as long as anything later claims it.
//! - What was cut off never comes back.

mod disk;
mod reader;
mod record;
mod recovery;
mod refusal;
mod repair;
mod scan;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod spares;
mod survivors;
mod verdict;
mod writer;

pub use disk::{
    AlignedBuffer, BLOCK_SIZE_BYTES, Cause, Completion, DiskError, DiskErrorKind, DiskOp, Failure,
    ListedFile, OpId, OpKind,
};
pub use reader::{ReadError, Reader};
pub use record::{Lsn, Record, RecordKind};
pub use recovery::{Recovery, Start};
pub use refusal::{RecoveryError, Refusal};
pub use segment::{
    IDENTITY_SIZE_BYTES_MAX, STATE_SIZE_BYTES_MAX, SegmentSequence, segment_file_name,
};
pub use writer::{AppendError, Writer};

/// A body larger than this is refused: it bounds the memory that recovery needs for one batch, and
/// is far above the largest request the server admits.
pub const RECORD_SIZE_BYTES_MAX: usize = 32 << 20;

/// How a log is laid out and bounded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of each segment file; fixed at the log's creation.
    pub segment_size_bytes: u64,
    /// A batch is sealed before it grows beyond this; a single larger record stands alone.
    pub batch_size_bytes: usize,
    /// How many prepared segments may wait ahead of the one in use. At least one.
    pub spares_max: u64,
    /// How many writes may be at the disk at once.
    pub writes_in_flight_max: usize,
    /// Appends are refused when this much is not yet durable.
    pub backlog_size_bytes_max: usize,
    /// Whose log this is: opaque bytes that every segment repeats and recovery compares.
    pub identity: Vec<u8>,
}

impl Config {
    /// The sizes the server runs with.
    pub fn new(identity: Vec<u8>) -> Self {
        Self {
            segment_size_bytes: 64 << 20,
            batch_size_bytes: 1 << 20,
            spares_max: 2,
            // Measured: beyond four in flight each write waits longer than it helps.
            writes_in_flight_max: 4,
            backlog_size_bytes_max: 128 << 20,
            identity,
        }
    }

    /// The sizes are chosen by our own code, never by input, hence asserts.
    pub(crate) fn check(&self) {
        let block = BLOCK_SIZE_BYTES as u64;
        assert!(self.segment_size_bytes.is_multiple_of(block));
        // The head, one block of records, and one to spare.
        assert!(self.segment_size_bytes >= 3 * block);
        assert!(self.segment_size_bytes <= 1 << 30);
        assert!(self.batch_size_bytes >= BLOCK_SIZE_BYTES);
        assert!(self.batch_size_bytes <= RECORD_SIZE_BYTES_MAX);
        assert!(self.spares_max >= 1);
        assert!(self.writes_in_flight_max >= 1);
        assert!(self.identity.len() <= IDENTITY_SIZE_BYTES_MAX);
    }
}

/// Sizes on disk are `u64`, sizes in memory `usize`; ringd runs on 64-bit machines only.
pub(crate) fn in_memory(size: u64) -> usize {
    const { assert!(usize::BITS == 64) };
    usize::try_from(size).expect("usize is 64 bits wide")
}
