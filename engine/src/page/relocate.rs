//! Moving what stands at a file's end to free places before it, and shortening the file.
//!
//! A page is moved as it is changed: a copy is made in the working epoch, and what a view still
//! reaches stays where it is until that view has gone. So the end of a file is free only after the
//! next durable checkpoint, and only then is the file shortened.
//!
//! Invariants:
//! - A copy lands below the limit it was asked for, or is not made.
//! - No view, durable or pinned, reaches a page that a shortening gives up; none of them is dirty.

use std::sync::Arc;

use super::alloc::Run;
use super::disk::{DiskOpKind, OpToken};
use super::fault::PageFault;
use super::file::PageFile;
use super::ids::{ExtentRef, PageId, PagePtr, TreeTag};
use super::node::{
    EXTENT_SIZE, INNER_LONG, KEY_START_SIZE_BYTES, LEAF_CELL_HEADER_SIZE, NodeMut, StoredBody,
};

/// A file on its way to a shorter length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortening {
    /// Its pages then.
    pub(super) pages: u32,
    /// Its pages until now, and how far they were used: what counts again if the disk refuses.
    pub(super) pages_before: u32,
    pub(super) reach_before: u32,
    /// The operation, once it is out; it waits until nothing else is being done to the length.
    pub(super) token: Option<OpToken>,
}

impl PageFile {
    /// Pages at or behind this one are given out only when there are no others.
    pub(crate) fn set_ceiling(&mut self, ceiling: PageId) {
        self.alloc.set_ceiling(ceiling.0);
    }

    /// Pages given out are as likely to stand anywhere.
    pub(crate) fn lift_ceiling(&mut self) {
        self.alloc.set_ceiling(u32::MAX);
    }

    /// The end of what is in use.
    pub(crate) fn end(&self) -> PageId {
        PageId(self.alloc.end())
    }

    /// Pages in use, those included that wait for a view to go.
    pub(crate) fn used_pages(&self) -> u32 {
        self.alloc.pages() - self.alloc.free_pages()
    }

    /// A copy of a page that stands before `limit`; `None` if there is no room there.
    pub(crate) fn relocated(
        &mut self,
        ptr: PagePtr,
        limit: PageId,
    ) -> Result<Option<PagePtr>, PageFault> {
        self.map.page(ptr)?;
        let Some((page, private)) = self.alloc.take_page_below(limit.0) else { return Ok(None) };
        self.populate_from(page, private);
        self.map.set_verified(page);
        let copy = PagePtr { page, birth: self.working_epoch(), tree: ptr.tree };
        self.fill_copy(ptr, copy);
        Ok(Some(copy))
    }

    /// A copy of an extent that stands before `limit`; `None` if no run there is long enough.
    pub(crate) fn relocated_extent(
        &mut self,
        tree: TreeTag,
        extent: ExtentRef,
        limit: PageId,
    ) -> Result<Option<ExtentRef>, PageFault> {
        let map = Arc::clone(&self.map);
        let bytes = map.extent(tree, extent)?;
        let Some(page) = self.alloc.take_run_below(extent.pages(), limit.0) else {
            return Ok(None);
        };
        let copy = ExtentRef { page, birth: self.working_epoch(), ..extent };
        self.fill_run(Run { page, pages: extent.pages() }, bytes);
        self.free_extent(extent);
        Ok(Some(copy))
    }

    /// Gives up the free pages at the file's end, all but so many that `free_pages_min` are left in
    /// the file. The operation that shortens it waits in [`PageFile::poll_disk_op`].
    ///
    /// The owner has no checkpoint under way and no copies to drop: both know the file's length.
    pub(crate) fn shorten(&mut self, free_pages_min: u32) {
        assert!(!self.has_copies_to_drop() && !self.is_resizing());
        let end = self.alloc.end();
        let (pages_before, reach_before) = (self.alloc.pages(), self.alloc.reach());
        self.alloc.note_reach(end);
        let pages = end.max(self.used_pages().saturating_add(free_pages_min));
        // Less than a part of a step of growth is not worth the trouble of growing again.
        if pages.saturating_add(self.growth_pages() / 4) >= self.alloc.pages() {
            return;
        }
        self.alloc.shorten(pages);
        self.map.shrink(pages);
        self.want_shortening(Shortening { pages, pages_before, reach_before, token: None });
    }
}

impl NodeMut<'_> {
    /// Points an entry at another copy of its body.
    pub fn set_body_extent(&mut self, index: usize, extent: ExtentRef) {
        let node = self.as_node();
        assert!(matches!(node.leaf_cell(index).body, StoredBody::Extent(_)), "entry {index}");
        let (start, size) = node.cell_place(index);
        self.cell_mut(start + size - EXTENT_SIZE, EXTENT_SIZE).copy_from_slice(&extent.encode());
    }

    /// Points a long key, of an entry or of a child, at another copy of it.
    pub fn set_key_extent(&mut self, index: usize, extent: ExtentRef) {
        let node = self.as_node();
        assert!(node.key_extent(index).is_some(), "key {index}");
        let (start, size) = node.cell_place(index);
        let end = match node.is_leaf() {
            true => start + LEAF_CELL_HEADER_SIZE + KEY_START_SIZE_BYTES + EXTENT_SIZE,
            false => start + (size & !INNER_LONG),
        };
        self.cell_mut(end - EXTENT_SIZE, EXTENT_SIZE).copy_from_slice(&extent.encode());
    }
}

/// The operation that gives a file this length.
pub(super) fn shorten_op(pages: u32) -> DiskOpKind {
    DiskOpKind::Shorten { size_bytes: PageId(pages).offset_bytes() }
}
