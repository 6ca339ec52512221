//! The one door to the disk: operations out, completions in.
//!
//! Nothing here performs anything. A [`DiskOp`] says what is to be done to which segment; its
//! performer answers with a [`Completion`] or a [`DiskError`] under the same [`OpId`].
//!
//! Invariants:
//! - Every buffer starts at a multiple of [`BLOCK_SIZE_BYTES`] in memory, goes to a multiple of it
//!   in the file, and has a multiple of it as length, as direct i/o demands.
//! - All bytes of a buffer are initialized, those beyond its length too.

use std::fmt;

use crate::segment::{SegmentSequence, segment_file_name};

/// The grain of all writes: a page of the kernel, and a multiple of every sector size in use.
pub const BLOCK_SIZE_BYTES: usize = 4096;

/// Zeroing goes in slices, so that a commit that arrives meanwhile waits for one slice at most;
/// 1 MiB took 0.26 ms where a segment would have taken 17 ms.
pub(crate) const ZERO_SLICE_BYTES: u64 = 1 << 20;

/// Names one operation of one machine (writer, recovery or reader); counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What the log wants done.
#[derive(Debug)]
pub enum DiskOp {
    /// Report every file of the log's directory.
    List,
    /// Create the file unless it exists, and allocate it to exactly this size. What it held within
    /// the size stays.
    Create {
        /// The file.
        segment: SegmentSequence,
        /// Its size.
        size_bytes: u64,
    },
    /// Write zeros. Durable only after a later `Sync`.
    Zero {
        /// The file.
        segment: SegmentSequence,
        /// Where the zeros begin.
        offset: u64,
        /// How many.
        size_bytes: u64,
    },
    /// Write the buffer and complete only when exactly these bytes are durable: a write-through
    /// write, or a write followed by a data sync. Which of them is the performer's choice.
    Write {
        /// The file.
        segment: SegmentSequence,
        /// Where the buffer goes.
        offset: u64,
        /// What is written; it comes back with the completion.
        buffer: AlignedBuffer,
    },
    /// Make everything completed on this file durable.
    Sync {
        /// The file.
        segment: SegmentSequence,
    },
    /// Make all creations, renames and removals durable.
    SyncDirectory,
    /// Give a segment the name of another, which does not exist.
    Rename {
        /// The old name.
        from: SegmentSequence,
        /// The new name.
        to: SegmentSequence,
    },
    /// Remove the file; a file that is not there counts as removed.
    Remove {
        /// The file.
        segment: SegmentSequence,
    },
    /// Fill the buffer from the file. Must not be served from a cache that a failed write could
    /// have left behind (see FORMAT.md, assumptions).
    Read {
        /// The file.
        segment: SegmentSequence,
        /// Where reading begins.
        offset: u64,
        /// What is filled, up to its length; it comes back with the completion.
        buffer: AlignedBuffer,
    },
}

impl DiskOp {
    /// What kind of operation this is, and where.
    pub fn place(&self) -> (OpKind, SegmentSequence, u64) {
        match *self {
            Self::List => (OpKind::List, SegmentSequence(0), 0),
            Self::Create { segment, .. } => (OpKind::Create, segment, 0),
            Self::Zero { segment, offset, .. } => (OpKind::Zero, segment, offset),
            Self::Write { segment, offset, .. } => (OpKind::Write, segment, offset),
            Self::Sync { segment } => (OpKind::Sync, segment, 0),
            Self::SyncDirectory => (OpKind::SyncDirectory, SegmentSequence(0), 0),
            Self::Rename { from, .. } => (OpKind::Rename, from, 0),
            Self::Remove { segment } => (OpKind::Remove, segment, 0),
            Self::Read { segment, offset, .. } => (OpKind::Read, segment, offset),
        }
    }
}

/// The kinds of [`DiskOp`], for errors and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// See [`DiskOp::List`].
    List,
    /// See [`DiskOp::Create`].
    Create,
    /// See [`DiskOp::Zero`].
    Zero,
    /// See [`DiskOp::Write`].
    Write,
    /// See [`DiskOp::Sync`].
    Sync,
    /// See [`DiskOp::SyncDirectory`].
    SyncDirectory,
    /// See [`DiskOp::Rename`].
    Rename,
    /// See [`DiskOp::Remove`].
    Remove,
    /// See [`DiskOp::Read`].
    Read,
}

/// How an operation ended well.
#[derive(Debug)]
pub enum Completion {
    /// Of everything but the three below.
    Done,
    /// Of `List`.
    Listed(Vec<ListedFile>),
    /// Of `Write`: the buffer returns, with the number of bytes that were written.
    Written {
        /// The operation's buffer.
        buffer: AlignedBuffer,
        /// How much of it is durable now.
        size_bytes: usize,
    },
    /// Of `Read`: the buffer returns, with the number of bytes that were read.
    Read {
        /// The operation's buffer.
        buffer: AlignedBuffer,
        /// How much of it was filled; less than its length only at the end of the file.
        size_bytes: usize,
    },
}

/// One file of the log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// The name without its directory.
    pub name: String,
    /// The size by the file system.
    pub size_bytes: u64,
}

/// Why the disk refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space, or over a quota.
    NoSpace,
    /// The file is not there.
    NotFound,
    /// Everything else.
    Io,
}

/// An operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What the log distinguishes.
    pub kind: DiskErrorKind,
    /// The number the system gave, for the message.
    pub os_code: Option<i32>,
}

/// What was wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The disk said no.
    Error(DiskError),
    /// Fewer bytes than asked for.
    Short {
        /// What was asked.
        wanted_bytes: usize,
        /// What came.
        found_bytes: usize,
    },
}

/// An operation that failed, with its place. After one of these a writer stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub operation: OpKind,
    /// On which segment; 0 where the operation concerns the directory.
    pub segment: SegmentSequence,
    /// Where in the file.
    pub offset: u64,
    /// What went wrong.
    pub cause: Cause,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "wal: {:?} failed", self.operation)?;
        if self.segment.0 > 0 {
            let name = segment_file_name(self.segment);
            write!(formatter, " on segment {name} at offset {}", self.offset)?;
        }
        match self.cause {
            Cause::Error(DiskError { kind, os_code: Some(code) }) => {
                write!(formatter, ": {kind:?} (os error {code})")
            }
            Cause::Error(DiskError { kind, os_code: None }) => write!(formatter, ": {kind:?}"),
            Cause::Short { wanted_bytes, found_bytes } => {
                write!(formatter, ": {found_bytes} of {wanted_bytes} bytes")
            }
        }
    }
}

impl std::error::Error for Failure {}

/// Memory that direct i/o accepts.
pub struct AlignedBuffer {
    blocks: Vec<Block>,
    len: usize,
}

// One block of memory at the alignment of a block on disk.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_SIZE_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_SIZE_BYTES);
const _: () = assert!(align_of::<Block>() == BLOCK_SIZE_BYTES);

impl AlignedBuffer {
    /// A zeroed buffer of at least this size, rounded up to whole blocks; its length is its
    /// capacity.
    pub fn new(size_bytes: usize) -> Self {
        let blocks = vec![Block([0; BLOCK_SIZE_BYTES]); size_bytes.div_ceil(BLOCK_SIZE_BYTES)];
        let len = blocks.len() * BLOCK_SIZE_BYTES;
        Self { blocks, len }
    }

    /// How much it could hold.
    pub fn capacity(&self) -> usize {
        self.blocks.len() * BLOCK_SIZE_BYTES
    }

    /// Change how much of it counts: whole blocks, within the capacity. Bytes that come into view
    /// are whatever they last were.
    pub fn set_len(&mut self, len: usize) {
        assert!(len.is_multiple_of(BLOCK_SIZE_BYTES), "length {len} is not in whole blocks");
        assert!(len <= self.capacity(), "length {len} exceeds capacity {}", self.capacity());
        self.len = len;
    }

    /// The bytes that count.
    pub fn as_slice(&self) -> &[u8] {
        let pointer: *const u8 = self.blocks.as_ptr().cast();
        // SAFETY: the vector owns `capacity()` initialized bytes at `pointer` (a block is a plain
        // byte array without padding), `len` is at most that, and the borrow of `self` keeps them.
        unsafe { std::slice::from_raw_parts(pointer, self.len) }
    }

    /// The bytes that count, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let pointer: *mut u8 = self.blocks.as_mut_ptr().cast();
        // SAFETY: as in `as_slice`; the exclusive borrow of `self` makes this the only reference,
        // and every byte value is a valid block.
        unsafe { std::slice::from_raw_parts_mut(pointer, self.len) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content is client data and large; the size is what one debugs with.
        write!(formatter, "AlignedBuffer({} of {} bytes)", self.len, self.capacity())
    }
}

/// Buffers of one size that come back. Larger ones are made for the occasion and dropped.
pub(crate) struct BufferPool {
    size_bytes: usize,
    free: Vec<AlignedBuffer>,
    free_max: usize,
}

impl BufferPool {
    pub(crate) fn new(size_bytes: usize, free_max: usize) -> Self {
        let size_bytes = size_bytes.next_multiple_of(BLOCK_SIZE_BYTES);
        Self { size_bytes, free: Vec::with_capacity(free_max), free_max }
    }

    pub(crate) fn take(&mut self, size_bytes: usize) -> AlignedBuffer {
        if size_bytes > self.size_bytes {
            return AlignedBuffer::new(size_bytes);
        }
        let mut buffer = self.free.pop().unwrap_or_else(|| AlignedBuffer::new(self.size_bytes));
        buffer.set_len(buffer.capacity());
        buffer
    }

    pub(crate) fn put(&mut self, buffer: AlignedBuffer) {
        if buffer.capacity() == self.size_bytes && self.free.len() < self.free_max {
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_whole_and_zeroed() {
        for size in [1, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuffer::new(size);
            assert_eq!(buffer.as_slice().as_ptr().addr() % BLOCK_SIZE_BYTES, 0);
            assert_eq!(buffer.capacity(), size.next_multiple_of(BLOCK_SIZE_BYTES));
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(7);
            buffer.set_len(0);
            assert!(buffer.as_slice().is_empty());
            buffer.set_len(buffer.capacity());
            assert!(buffer.as_slice().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn the_pool_reuses_its_own_size_only_and_stays_bounded() {
        let mut pool = BufferPool::new(8192, 1);
        let first = pool.take(100);
        let address = first.as_slice().as_ptr().addr();
        let second = pool.take(8192);
        let large = pool.take(8193);
        assert_eq!(large.capacity(), 3 * BLOCK_SIZE_BYTES);
        pool.put(large);
        assert!(pool.free.is_empty());
        pool.put(first);
        pool.put(second);
        assert_eq!(pool.free.len(), 1);
        assert_eq!(pool.take(1).as_slice().as_ptr().addr(), address);
    }
}
