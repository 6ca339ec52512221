//! Page 0 of a shard's file: says what the file is.
//!
//! Invariants:
//! - It is written by the checkpoints of a new file until one is durable, and never again: its
//!   birth is zero and its bytes are the same for every shard of a number.

use super::bytes::{PAGE_HEADER_SIZE_BYTES, PageBytes, PageKind};
use super::disk::FileId;
use super::fault::FaultKind;
use super::ids::{Epoch, PAGE_SIZE_U32, PageId, PagePtr, TreeTag};

const MAGIC: &[u8; 8] = b"ringd-pg";
const FORMAT_VERSION: u32 = 1;
const MAGIC_AT: usize = PAGE_HEADER_SIZE_BYTES;
const VERSION_AT: usize = MAGIC_AT + 8;
const PAGE_SIZE_AT: usize = VERSION_AT + 4;
const SHARD_AT: usize = PAGE_SIZE_AT + 4;

fn shard_number(file: FileId) -> u32 {
    match file {
        FileId::Shard(shard) => u32::from(shard),
        FileId::Meta => u32::MAX,
    }
}

/// Fills page 0, all but its checksum.
pub(super) fn write(page: &mut PageBytes, file: FileId) {
    page.0.fill(0);
    page.set_identity(PageId(0), Epoch(0));
    page.set_kind(PageKind::FileHeader, TreeTag(0));
    page.0[MAGIC_AT..VERSION_AT].copy_from_slice(MAGIC);
    page.put_u32(VERSION_AT, FORMAT_VERSION);
    page.put_u32(PAGE_SIZE_AT, PAGE_SIZE_U32);
    page.put_u32(SHARD_AT, shard_number(file));
}

/// Whether page 0 belongs to this shard and to a format that this code reads.
pub(super) fn check(page: &PageBytes, file: FileId) -> Result<(), &'static str> {
    if page.array_at::<8>(MAGIC_AT) != MAGIC {
        return Err("not a file of pages");
    }
    // Before the checksum: a file of a later format may seal its pages in another way.
    if page.u32_at(VERSION_AT) != FORMAT_VERSION {
        return Err("unknown version of the format");
    }
    let ptr = PagePtr { page: PageId(0), birth: Epoch(0), tree: TreeTag(0) };
    match page.verify(ptr) {
        Ok(()) => {}
        Err(FaultKind::Checksum) => return Err("the header's checksum does not match"),
        Err(_) => return Err("the header is not page 0"),
    }
    if page.kind_byte() != PageKind::FileHeader as u8 {
        return Err("page 0 is not a header");
    }
    if page.u32_at(PAGE_SIZE_AT) != PAGE_SIZE_U32 {
        return Err("another page size");
    }
    if page.u32_at(SHARD_AT) != shard_number(file) {
        return Err("the file of another shard");
    }
    Ok(())
}
