//! Pages for whoever walks through all of a store: what is about to be used is read a little ahead.
//!
//! Left to the system, the first touch of a page that it has dropped reads as much around it as the
//! device says, which is megabytes on some, and the log's writes wait behind that.

use std::cell::Cell;

use super::bytes::PageBytes;
use super::fault::{FaultKind, PageFault};
use super::file::{PageReader, Pages};
use super::ids::{ExtentRef, PAGE_SIZE_U32, PageId, PagePtr, TreeTag};

/// What is read at once: as much as a log write can well wait for.
pub(crate) const WINDOW_PAGES: u32 = (256 << 10) / PAGE_SIZE_U32;
/// Windows that were read lately. A walk through a few trees side by side, each a few pages deep,
/// comes back to as many.
const RECENT_MAX: usize = 16;
/// No window.
const NONE: u32 = u32::MAX;

/// A reader that reads ahead, for one walk.
pub(crate) struct ReadAhead<'v> {
    reader: &'v PageReader,
    recent: [Cell<u32>; RECENT_MAX],
    /// The place of the one that was read first.
    oldest: Cell<usize>,
}

impl<'v> ReadAhead<'v> {
    pub(crate) fn new(reader: &'v PageReader) -> Self {
        Self { reader, recent: [const { Cell::new(NONE) }; RECENT_MAX], oldest: Cell::new(0) }
    }

    fn look(&self, page: PageId, pages: u32) {
        for window in page.0 / WINDOW_PAGES..=page.0.saturating_add(pages - 1) / WINDOW_PAGES {
            if self.recent.iter().any(|recent| recent.get() == window) {
                continue;
            }
            self.recent[self.oldest.get()].set(window);
            self.oldest.set((self.oldest.get() + 1) % RECENT_MAX);
            self.reader.read_window_again(window);
        }
    }
}

impl Pages for ReadAhead<'_> {
    fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault> {
        self.look(ptr.page, 1);
        self.reader.page(ptr)
    }

    fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault> {
        self.look(extent.page, extent.pages().max(1));
        self.reader.extent(tree, extent)
    }

    fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault {
        self.reader.fault(tree, page, what)
    }

    fn prefetch(&self, page: PageId) {
        self.reader.prefetch(page);
    }

    /// It was read, or will be, when the first of its pages is looked at.
    fn read_window(&self, _: u32) {}
}
