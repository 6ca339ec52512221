//! etcd's database file: bbolt's pages, and etcd's schema in them.
//!
//! Backups and data directories travel between etcd and us in this format; the engine itself never
//! lives on it. Nothing here opens a file or knows our trees. [`Measure`] and [`Writer`] turn sorted
//! pairs into pages, [`Backup`] puts the front before them and the digest behind them, [`Reader`]
//! and [`Walk`] turn pages into pairs, [`check`] is a proof that a whole file is sound, [`schema`]
//! says what etcd keeps in which bucket.
//!
//! # The format
//!
//! Numbers are little endian. The file is a row of pages of one size (a power of two; etcd takes the
//! machine's, we write 4096). A page begins with 16 bytes: number `u64`, kind `u16`, count `u16`,
//! and in `u32` by how many pages it overflows: those follow it and have no header of their own.
//!
//! | Page | After the header |
//! |---|---|
//! | 0 and 1, meta | magic, version 2, page size, flags: `u32` each; root page, sequence, free list's page, pages in use, transaction: `u64` each; FNV-1a of all that before, `u64`. The one with the higher transaction that holds counts |
//! | branch | `count` times: offset of the key from here `u32`, its length `u32`, the child's page `u64`; then the keys, each the smallest of its child or below it |
//! | leaf | `count` times: 1 for a bucket or 0 `u32`, offset of the key from here, its length, the value's length: `u32` each; then key and value of each |
//! | free list | `count` pages, `u64` each; 65535 says that the true count is the first of them. The page `u64::MAX` in the meta page says that there is none |
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
mod protobuf;
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
