//! Moving what stands on one side of a page to the other, and shortening the file.
//!
//! A page is moved as it is changed: a copy is made in the working epoch, and what a view still
//! reaches stays where it is until that view has gone. So the end of a file is free only after the
//! next durable checkpoint, and only then is the file shortened.
//!
//! Invariants:
//! - A copy lands on the side it was asked for, or is not made.
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

/// Where the pages of a file are to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// All of them before this one: what stands behind can be cut off.
    Before(PageId),
    /// All of them at this one or behind: what stands before becomes one run of free pages.
    Behind(PageId),
}

impl Side {
    /// Whether so many pages from `page` on stand elsewhere, if only in part.
    pub(crate) fn is_missed_by(self, page: PageId, pages: u32) -> bool {
        match self {
            Self::Before(limit) => page.0.saturating_add(pages) > limit.0,
            Self::Behind(from) => page < from,
        }
    }
}

/// Pages that one operation cuts off a file. All at once, 600 MiB kept the journal of the file
/// system for 40 ms, and the log's writes waited for it.
const SHORTEN_PAGES_MAX: u32 = 1024;

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

    /// Whether so many pages can be given out at `from` or behind it without looking for holes.
    pub(crate) fn has_room_behind(&self, from: PageId, pages: u32) -> bool {
        self.alloc.pages().saturating_sub(self.alloc.end().max(from.0)) >= pages
    }

    /// A copy of a page on that side; `None` if there is no room.
    pub(crate) fn relocated(
        &mut self,
        ptr: PagePtr,
        side: Side,
    ) -> Result<Option<PagePtr>, PageFault> {
        self.map.page(ptr)?;
        let taken = match side {
            Side::Before(limit) => self.alloc.take_page_below(limit.0),
            Side::Behind(from) => self.alloc.take_page_from(from.0),
        };
        let Some((page, private)) = taken else { return Ok(None) };
        self.populate_from(page, private);
        self.map.set_verified(page);
        let copy = PagePtr { page, birth: self.working_epoch(), tree: ptr.tree };
        self.fill_copy(ptr, copy);
        Ok(Some(copy))
    }

    /// A copy of an extent on that side; `None` if no run there is long enough.
    pub(crate) fn relocated_extent(
        &mut self,
        tree: TreeTag,
        extent: ExtentRef,
        side: Side,
    ) -> Result<Option<ExtentRef>, PageFault> {
        let map = Arc::clone(&self.map);
        let bytes = map.extent(tree, extent)?;
        let pages = extent.pages();
        let taken = match side {
            Side::Before(limit) => self.alloc.take_run_below(pages, limit.0),
            Side::Behind(from) => self.alloc.take_run_from(pages, from.0),
        };
        let Some((page, private)) = taken else { return Ok(None) };
        let copy = ExtentRef { page, birth: self.working_epoch(), ..extent };
        self.fill_run(Run { page, pages }, private, bytes);
        self.free_extent(extent);
        Ok(Some(copy))
    }

    /// How many operations would cut all of it off.
    pub(crate) fn pieces(&self) -> u32 {
        self.alloc.pages().div_ceil(SHORTEN_PAGES_MAX)
    }

    /// Has the file grow by a step, or by so many pages if that is more; false when it has reached
    /// its bound.
    pub(crate) fn grow(&mut self, pages: u32) -> bool {
        self.want_growth(self.growth_pages().max(pages))
    }

    /// Whether it is to grow, or does.
    pub(crate) fn is_growing(&self) -> bool {
        self.growing_to.is_some() || self.growth_out.is_some()
    }

    /// Gives up free pages at the file's end, a part of those behind the last in use, so that at
    /// least `free_pages_min` are left in the file. The operation that shortens it waits in
    /// [`PageFile::poll_disk_op`]. False if there are no more to give up.
    ///
    /// The owner has no checkpoint under way and no copies to drop: both know the file's length.
    pub(crate) fn shorten(&mut self, free_pages_min: u32) -> bool {
        assert!(!self.has_copies_to_drop() && !self.is_resizing());
        let end = self.alloc.end();
        let (pages_before, reach_before) = (self.alloc.pages(), self.alloc.reach());
        self.alloc.note_reach(end);
        let least = end.max(self.used_pages().saturating_add(free_pages_min));
        // Less than a part of a step of growth is not worth the trouble of growing again.
        if least.saturating_add(self.growth_pages() / 4) >= self.alloc.pages() {
            return false;
        }
        let pages = least.max(self.alloc.pages().saturating_sub(SHORTEN_PAGES_MAX));
        self.alloc.shorten(pages);
        self.map.shrink(pages);
        self.want_shortening(Shortening { pages, pages_before, reach_before, token: None });
        true
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
