//! Data that travels between etcd and ringd while no server runs on it.
//!
//! [`restore`] and [`import`] make a data directory of ringd from a backup or from what a stopped
//! etcd left, [`export`] makes a backup from a stopped ringd, [`status`] and [`hash_kv`] look at
//! either. They are the library of `ringutl`; the server has no part in them, and they are done by
//! blocking calls.
//!
//! Invariants:
//! - What etcd has written is never changed. A stopped ringd is opened as its own start opens it,
//!   which may cut a torn end off its log and write a checkpoint, and changes nothing that
//!   it holds.
//! - What is made is made aside and renamed when it is whole and on the disk, so a directory or
//!   file of the name that was asked for is always a whole one.
//! - Memory is bounded whatever the size of the files: one record, a page's bits, and what a store
//!   keeps between two checkpoints.
//! - Damage is refused by name: file, page or offset, and rule.

mod content;
mod etcd_log;
mod export;
mod failure;
mod input;
mod member;
mod status;
mod tail;

pub use engine::ids::Revision;
pub use etcd_log::LogRule;
pub use export::{HashKv, export, hash_kv};
pub use failure::Failure;
pub use member::{Bump, Made, NewCluster, Output, import, restore};
pub use status::{Status, check, status};
