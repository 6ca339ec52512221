//! The page layer: shard files in memory, which pages are free, checkpoints, pins.
//!
//! Nothing here knows keys. [`PageFile`] is the writer's half, [`PageReader`] the readers';
//! [`pin`] says which published views readers hold, and so which pages must stay; [`Checkpoint`]
//! turns dirty pages into disk operations; [`meta`] encodes the block that makes them count.
//!
//! Invariants:
//! - A page that a published view can reach is never written (`alloc`, `file`).
//! - What a disk says is checked at its first touch and answered with a [`PageFault`], never a
//!   panic.
//! - Every byte that reaches a file is a [`disk::DiskOp`].

mod ahead;
mod alloc;
mod aside;
mod bitmap;
mod buffer;
mod bytes;
mod checkpoint;
pub mod disk;
pub mod fault;
mod file;
mod header;
pub mod ids;
pub mod inner;
mod map;
pub mod meta;
pub mod node;
pub mod pin;
mod relocate;

pub(crate) use ahead::{ReadAhead, WINDOW_PAGES};
pub use buffer::PageBuffer;
pub use bytes::{PAGE_HEADER_SIZE_BYTES, PageBytes, PageKind};
pub use checkpoint::{Checkpoint, ShardCheckpoint};
pub use fault::{FaultKind, NoSpace, PageFailure, PageFault};
pub use file::{PageConfig, PageFile, PageReader, Pages, PagesNeeded};
pub use ids::{Epoch, ExtentRef, PAGE_SIZE_BYTES, PageId, PagePtr, Root, TreeTag};
pub use map::MapSource;
pub use relocate::Side;
