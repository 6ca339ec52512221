//! etcd's database file: bbolt's pages, and etcd's schema in them.
//!
//! Backups and data directories travel between etcd and us in this format; the engine itself never
//! lives on it. Nothing here opens a file or knows our trees. [`Measure`] and [`Writer`] turn
//! sorted pairs into pages, [`Backup`] puts the front before them and the digest behind them,
//! [`Reader`] and [`Walk`] turn pages into pairs, [`check`] is a proof that a whole file is sound,
//! [`schema`] says what etcd keeps in which bucket.
//!
//! # The format
//!
//! Numbers are little endian. The file is a row of pages of one size, a power of two: etcd takes
//! the machine's, we write 4096. A page begins with 16 bytes: number `u64`, kind `u16`, count
//! `u16`, and in `u32` by how many pages it overflows: those follow it, without a header of their
//! own. Behind the header stands
//!
//! - in pages 0 and 1, *meta*: magic, version 2, page size, flags, `u32` each; root page, sequence,
//!   free list's page, number of pages, transaction, `u64` each; FNV-1a of all these, `u64`. Of
//!   two that are whole the one with the higher transaction counts;
//! - in a *branch*, for each child: where its key is, seen from here, and the key's length, `u32`
//!   each; the child's page, `u64`. Then the keys: each is the smallest of its child, or below it;
//! - in a *leaf*, for each pair: 1 for a bucket, else 0; where its key is, seen from here; the
//!   key's length; the value's; `u32` each. Then key and value of each;
//! - in a *free list*, the free pages, `u64` each. A count of 65535 says that the true one is the
//!   first of them. The page `u64::MAX` in the meta pages says that the file has no free list.
//!
//! The root is a tree of buckets. A bucket's value is its root page and a sequence number, `u64`
//! each. Root page 0 is a bucket so small that its only leaf follows in place.
//!
//! There are no checksums but the two in the meta pages. A backup therefore carries the SHA-256 of
//! the file behind its last page.
//!
//! Invariants:
//! - What a file says is never trusted: every inconsistency is an error that names page and rule.
//! - Memory is bounded by the height of a tree and the largest pair, for writing and for reading;
//!   the proof of a whole file takes one bit for each of its pages more.

pub mod backup;
pub mod check;
mod format;
mod json;
mod layout;
pub(crate) mod protobuf;
pub mod reader;
pub mod schema;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use backup::{Backup, DIGEST_SIZE_BYTES, Envelope};
pub use format::{KEY_BYTES_MAX, PAGE_SIZE_BYTES, VALUE_BYTES_MAX};
pub use layout::{LengthError, Measure, Totals};
pub use reader::{Bucket, Damage, ReadError, Reader, Rule, Source};
pub use walk::{PairRef, Walk};
pub use writer::{Writer, front};
