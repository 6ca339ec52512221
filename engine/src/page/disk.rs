//! The door to the disk: the engine hands out [`DiskOp`] values and is told how each one ended.
//!
//! Invariants:
//! - An operation is performed once, and answered once with its token. Operations that are out at
//!   the same time may be performed in any order: whatever needs an order is handed out only after
//!   the completion of what must come first.
//! - A failed write or sync is final: the kernel may already have dropped the dirty pages, so a
//!   later sync that succeeds proves nothing. The owner stops the process.

use std::fmt;
use std::io;

use super::buffer::PageBuffer;

/// A file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileId {
    /// The two alternating meta blocks.
    Meta,
    /// The pages of one shard.
    Shard(u16),
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Shard(shard) => write!(f, "shard {shard}"),
        }
    }
}

/// Names an operation among those its owner has handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpToken(pub u64);

/// Something to be done to a file.
#[derive(Debug, PartialEq, Eq)]
pub struct DiskOp {
    /// To be given back with the completion.
    pub token: OpToken,
    /// The file.
    pub file: FileId,
    /// What to do.
    pub kind: DiskOpKind,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskOpKind {
    /// Write these bytes. They reach the medium only with the next sync.
    Write {
        /// Where in the file.
        offset: u64,
        /// What; comes back with the completion to be used again.
        bytes: PageBuffer,
        /// Nobody reads it soon: the system need not keep it in memory.
        is_cold: bool,
    },
    /// Make everything written before durable.
    Sync,
    /// Cut the file off at this size. A file that is not longer stays as it is.
    Shorten {
        /// Size of the file afterwards.
        size_bytes: u64,
    },
    /// Extend the file to this size, with its blocks allocated, so that no later write meets a full
    /// disk. A file that is already as long stays as it is.
    Allocate {
        /// Size of the file afterwards.
        size_bytes: u64,
    },
}

/// How an operation ended.
#[derive(Debug)]
pub struct Completion {
    /// The operation's token.
    pub token: OpToken,
    /// The buffer of a write, to be used again; empty otherwise.
    pub buffer: PageBuffer,
    /// The outcome.
    pub result: Result<(), DiskError>,
}

/// The disk refused.
#[derive(Debug)]
pub struct DiskError {
    /// The file.
    pub file: FileId,
    /// What was attempted: "write", "sync", "allocate", "shorten".
    pub operation: &'static str,
    /// What the system said.
    pub cause: io::Error,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.operation, self.cause)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
