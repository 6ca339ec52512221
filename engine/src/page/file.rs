//! One shard's pages: the writer's half and the readers' half.
//!
//! [`PageFile`] is the single writer. It works in one epoch at a time; [`PageFile::advance`] ends
//! it, and what was written in it never changes again. [`PageReader`] is what views carry to other
//! cores.
//!
//! Invariants:
//! - Only pages born in the working epoch are written, by [`PageFile`] alone.
//! - A page given out has no protected view that reaches it (see `alloc`).
//! - A reader follows pointers of a root that it holds pinned, and of no other: the caller's duty.
//!   A stale pointer meets a younger birth and is refused, but may meet it while the page changes.

use std::ops::Range;
use std::sync::Arc;

use super::alloc::{Allocator, Run};
use super::bitmap::Bitmap;
use super::bytes::{PageBytes, PageKind};
use super::checkpoint::ShardCheckpoint;
use super::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId, OpToken};
use super::fault::{FaultKind, NoSpace, PageFailure, PageFault};
use super::header;
use super::ids::{Epoch, ExtentRef, PAGE_SIZE_BYTES, PAGE_SIZE_U32, PageId, PagePtr, TreeTag};
use super::map::{Map, MapSource};
use super::node::{Node, NodeMut};
use super::relocate::{Shortening, shorten_op};

/// Fresh pages that are made private at once when the writer reaches pages it has no copy of: one
/// system call for the run instead of one fault for each page.
const POPULATE_PAGES: u32 = 16;
/// The same for the values of a store that is built, which stand side by side. Where the host has
/// to find the memory, these take half a millisecond.
const BUILDER_POPULATE_PAGES: u32 = 32;

/// Bounds of one shard's file.
#[derive(Clone, Copy, Debug)]
pub struct PageConfig {
    /// Which file this is.
    pub file: FileId,
    /// Address space set aside; the file can never outgrow it.
    pub reserve_size_bytes: u64,
    /// The file grows by this much at a time.
    pub growth_size_bytes: u64,
    /// The file does not grow beyond this.
    pub size_bytes_max: u64,
}

impl PageConfig {
    /// A configuration for a file that may grow to `size_bytes_max`.
    #[must_use]
    pub const fn new(file: FileId, size_bytes_max: u64) -> Self {
        // 16 MiB: half a second of the heaviest load measured, and little to waste on a small
        // store.
        Self {
            file,
            reserve_size_bytes: size_bytes_max,
            growth_size_bytes: 16 << 20,
            size_bytes_max,
        }
    }

    fn pages_max(&self) -> u32 {
        let size = self.size_bytes_max.min(self.reserve_size_bytes);
        u32::try_from(size / u64::from(PAGE_SIZE_U32)).unwrap_or(u32::MAX)
    }

    fn growth_pages(&self) -> u32 {
        let pages = self.growth_size_bytes.div_ceil(u64::from(PAGE_SIZE_U32)).max(1);
        u32::try_from(pages).unwrap_or(u32::MAX)
    }
}

/// Free pages that a batch of changes may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagesNeeded {
    /// Pages of trees.
    pub pages: u32,
    /// Pages of extents: these must lie side by side.
    pub extent_pages: u32,
}

impl PagesNeeded {
    /// Both needs together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            pages: self.pages.saturating_add(other.pages),
            extent_pages: self.extent_pages.saturating_add(other.extent_pages),
        }
    }
}

/// Pages that can be read, by the writer or by a reader that holds a view.
pub trait Pages {
    /// A page of a tree, verified at its first touch.
    ///
    /// # Errors
    /// The page is not what the pointer says, or damaged.
    fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault>;

    /// The bytes of an extent, verified at their first touch.
    ///
    /// # Errors
    /// The extent lies outside the file or is damaged.
    fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault>;

    /// A fault of this file.
    fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault;

    /// Starts loading a page that will be read soon into the processor's caches.
    fn prefetch(&self, page: PageId);

    /// Has the system read a window of pages, one of those of 256 KiB that the file consists of,
    /// ahead of their use, unless that was done lately.
    fn read_window(&self, window: u32);
}

/// The readers' half of a shard's pages.
#[derive(Clone)]
pub struct PageReader {
    map: Arc<Map>,
}

impl Pages for PageReader {
    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault> {
        self.map.page(ptr)
    }

    fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault> {
        self.map.extent(tree, extent)
    }

    fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault {
        self.map.fault(tree, page, what)
    }

    #[inline]
    fn prefetch(&self, page: PageId) {
        self.map.prefetch(page);
    }

    fn read_window(&self, window: u32) {
        self.map.read_new_window(window);
    }
}

impl PageReader {
    /// Has the system read a window of pages, whether that was done before or not.
    pub(super) fn read_window_again(&self, window: u32) {
        self.map.read_window(window);
    }
}

/// The writer's half of a shard's pages.
pub struct PageFile {
    pub(super) map: Arc<Map>,
    pub(super) alloc: Allocator,
    config: PageConfig,
    /// Size of the file that was asked for and is not there yet.
    pub(super) growing_to: Option<u32>,
    /// The operation that is out, and the size it gives the file.
    pub(super) growth_out: Option<(OpToken, u32)>,
    /// The length it is being cut to, which no growth overtakes.
    shortening: Option<Shortening>,
    next_token: u64,
    /// The free map of the durable checkpoint; it is free when the next checkpoint is durable.
    pub(super) free_map: Option<ExtentRef>,
    /// Where the checkpoint under way puts its own.
    pub(super) free_map_out: Option<Run>,
    /// Pages whose private copies the last checkpoint has made needless, and where dropping them
    /// has come to.
    copies: Option<(Bitmap, u32)>,
}

impl Pages for PageFile {
    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault> {
        self.map.page(ptr)
    }

    fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault> {
        self.map.extent(tree, extent)
    }

    fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault {
        self.map.fault(tree, page, what)
    }

    #[inline]
    fn prefetch(&self, page: PageId) {
        self.map.prefetch(page);
    }

    fn read_window(&self, window: u32) {
        self.map.read_new_window(window);
    }
}

impl PageFile {
    /// A new file; what the source holds already is overwritten by the first checkpoint.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn create(source: MapSource, config: PageConfig) -> Result<Self, PageFailure> {
        let map = Map::new(source, config.file, reserved_pages(&config)?)?;
        let pages = map.pages().max(1);
        let alloc = Allocator::new(Bitmap::with_len(pages), pages, Epoch(0));
        let mut file = Self::assemble(map, alloc, config, None);
        // The header page is written with the first checkpoint; until then there is no page to
        // touch.
        if file.map.pages() == 0 && !file.map.is_file() {
            file.map.grow(1);
        }
        file.want_growth(config.growth_pages());
        Ok(file)
    }

    /// Opens the file at a durable checkpoint. Nothing is read but the file's header and its free
    /// map.
    ///
    /// # Errors
    /// The file cannot be mapped, is not the one the checkpoint describes, or its free map is
    /// damaged.
    pub fn open(
        source: MapSource,
        state: &ShardCheckpoint,
        config: PageConfig,
    ) -> Result<Self, PageFailure> {
        let mismatch = |what| PageFailure::Mismatch { file: config.file, what };
        let map = Map::new(source, config.file, reserved_pages(&config)?)?;
        if map.pages() == 0 {
            return Err(mismatch("the file is empty"));
        }
        header::check(map.bytes(PageId(0)), config.file).map_err(mismatch)?;
        let free_map = map.extent(TreeTag(0), state.free_map)?;
        let mut used = Bitmap::from_bytes(free_map, state.pages)
            .ok_or(mismatch("the free map does not fit the file"))?;
        // The checkpoint may have known of free pages at the end that the file never got.
        if !used.set_len(map.pages()) {
            return Err(mismatch("the file is shorter than its checkpoint"));
        }
        for page in 0..state.free_map.pages() {
            if !used.contains(state.free_map.page.0 + page) {
                return Err(mismatch("the free map does not contain itself"));
            }
        }
        let alloc = Allocator::new(used, map.pages(), state.epoch);
        Ok(Self::assemble(map, alloc, config, Some(state.free_map)))
    }

    fn assemble(
        map: Map,
        alloc: Allocator,
        config: PageConfig,
        free_map: Option<ExtentRef>,
    ) -> Self {
        let map = Arc::new(map);
        Self {
            map,
            alloc,
            config,
            growing_to: None,
            growth_out: None,
            shortening: None,
            next_token: 0,
            free_map,
            free_map_out: None,
            copies: None,
        }
    }

    /// The readers' half, to be carried by views.
    #[must_use]
    pub fn reader(&self) -> PageReader {
        PageReader { map: Arc::clone(&self.map) }
    }

    /// The file this is.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.config.file
    }

    /// The addresses of its pages, for whoever has to name the page of an address.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        self.map.addresses()
    }

    /// The epoch in which changes are made now.
    #[must_use]
    pub fn working_epoch(&self) -> Epoch {
        self.alloc.working()
    }

    /// Ends the working epoch: its pages are immutable from now on, and changes are made in `to`.
    pub fn advance(&mut self, to: Epoch) {
        self.alloc.advance(to);
    }

    /// Makes pages free that none of `protected` (sorted) reaches. The latest published epoch, the
    /// durable checkpoint and one in progress are protected in any case.
    pub fn reclaim(&mut self, protected: &[Epoch]) {
        self.alloc.reclaim(protected);
    }

    /// Checks that a batch with these needs can be applied now.
    ///
    /// # Errors
    /// There are not enough free pages. If the file may grow, an operation that does so waits in
    /// [`Self::poll_disk_op`].
    pub fn reserve(&mut self, needed: PagesNeeded) -> Result<(), NoSpace> {
        // So that a checkpoint, which gives pages back, never lacks the pages for its own free map.
        let needed = needed.plus(self.free_map_need());
        self.reserve_exactly(needed)
    }

    pub(super) fn reserve_exactly(&mut self, needed: PagesNeeded) -> Result<(), NoSpace> {
        let wanted = needed.pages.saturating_add(needed.extent_pages);
        let growth = self.config.growth_pages();
        loop {
            let free = self.alloc.free_pages();
            if free >= wanted && self.alloc.has_run(needed.extent_pages) {
                if free - wanted < growth / 4 {
                    self.want_growth(growth);
                }
                return Ok(());
            }
            let may_grow = self.want_growth(wanted.max(growth));
            if !may_grow || self.map.is_file() || self.shortening.is_some() {
                return Err(NoSpace { wanted, free, may_grow });
            }
        }
    }

    /// Pages for the free map of one checkpoint of the file as long as it is now.
    pub(super) fn free_map_need(&self) -> PagesNeeded {
        let size_bytes = self.alloc.pages().div_ceil(64) * 8;
        PagesNeeded { pages: 0, extent_pages: size_bytes.div_ceil(PAGE_SIZE_U32) }
    }

    /// Asks for a longer file; `false` when it has reached its bound.
    pub(super) fn want_growth(&mut self, pages: u32) -> bool {
        let now = self.map.pages();
        let wanted = now.saturating_add(pages).min(self.config.pages_max());
        if wanted <= now {
            return false;
        }
        if self.map.is_file() || self.shortening.is_some() {
            self.growing_to = self.growing_to.max(Some(wanted));
        } else {
            // A simulated file needs no space of its own: it grows when it is written.
            self.note_grown(wanted);
        }
        true
    }

    fn note_grown(&mut self, pages: u32) {
        if pages > self.map.pages() {
            self.map.grow(pages);
            self.alloc.grow(pages.max(self.alloc.pages()));
        }
    }

    pub(crate) fn growth_pages(&self) -> u32 {
        self.config.growth_pages()
    }

    /// Whether its length is being changed.
    pub(crate) fn is_resizing(&self) -> bool {
        self.growth_out.is_some() || self.shortening.is_some()
    }

    /// Whether it is being cut off, or is to be.
    pub(crate) fn is_shortening(&self) -> bool {
        self.shortening.is_some()
    }

    /// Cuts the file off. What it was to grow by is forgotten: whoever needs it asks again.
    pub(super) fn want_shortening(&mut self, shortening: Shortening) {
        assert!(!self.is_resizing());
        self.growing_to = None;
        self.shortening = Some(shortening);
    }

    /// The next operation that changes the file's length.
    pub fn poll_disk_op(&mut self) -> Option<DiskOp> {
        if self.growth_out.is_some() {
            return None;
        }
        if let Some(Shortening { pages, token, .. }) = &mut self.shortening {
            if token.is_some() {
                return None;
            }
            let next = OpToken(self.next_token);
            self.next_token += 1;
            *token = Some(next);
            let kind = shorten_op(*pages);
            return Some(DiskOp { token: next, file: self.config.file, kind });
        }
        let pages = self.growing_to?;
        let token = OpToken(self.next_token);
        self.next_token += 1;
        self.growth_out = Some((token, pages));
        let size_bytes = PageId(pages).offset_bytes();
        Some(DiskOp { token, file: self.config.file, kind: DiskOpKind::Allocate { size_bytes } })
    }

    /// An operation of [`Self::poll_disk_op`] has ended.
    ///
    /// # Errors
    /// The disk refused. The file stays as long as it was; whether to ask again is the owner's
    /// choice: the next reservation that needs it does.
    pub fn handle_disk_completion(&mut self, completion: Completion) -> Result<(), DiskError> {
        if let Some(shortening) = self.shortening
            && shortening.token == Some(completion.token)
        {
            self.shortening = None;
            if completion.result.is_err() {
                // A file that stays longer than it is used does no harm, as long as its length is
                // told as what it is.
                self.note_grown(shortening.pages_before);
                self.alloc.note_reach(shortening.reach_before.max(self.alloc.reach()));
                self.growing_to = self.growing_to.filter(|pages| *pages > self.map.pages());
            }
            if !self.map.is_file()
                && let Some(pages) = self.growing_to.take()
            {
                self.note_grown(pages);
            }
            return Ok(());
        }
        let (token, grown) = self.growth_out.take().expect("an answer nobody waits for");
        assert_eq!(token, completion.token, "an answer to something else");
        let wanted = self.growing_to.take();
        completion.result?;
        // More may be wanted by now than was asked for; that comes next.
        self.growing_to = wanted.filter(|wanted| *wanted > grown);
        self.note_grown(grown);
        Ok(())
    }

    pub(super) fn give_up_copies(&mut self, copies: Bitmap) {
        assert!(self.copies.is_none(), "the copies of the checkpoint before are still there");
        self.copies = Some((copies, 0));
    }

    /// Whether private copies wait for [`Self::drop_copies`]; no checkpoint begins before.
    #[must_use]
    pub fn has_copies_to_drop(&self) -> bool {
        self.copies.is_some()
    }

    /// Drops private copies of what the last checkpoint wrote, so many runs of neighbours and so
    /// many pages at most.
    ///
    /// # Errors
    /// The system refuses.
    pub fn drop_copies(&mut self, runs_max: u32, pages_max: u32) -> Result<(), PageFailure> {
        let Some((copies, mut from)) = self.copies.take() else { return Ok(()) };
        let mut pages_left = pages_max;
        for _ in 0..runs_max {
            let Some(start) = copies.next_present(from) else { return Ok(()) };
            if pages_left == 0 {
                break;
            }
            let mut end = start;
            // What is dirty was free when the checkpoint ended and has been given out since.
            while end - start < pages_left
                && end < copies.len()
                && copies.contains(end)
                && !self.alloc.is_dirty(end)
            {
                end += 1;
            }
            from = end.max(start + 1);
            pages_left -= end - start;
            // SAFETY: pages that were written are durable in the file and stay as they are until
            // the next checkpoint is durable, which begins after this; the others are reached by
            // nobody.
            let dropped = unsafe { self.map.drop_private(PageId(start), end - start) };
            dropped.map_err(|cause| {
                let (file, operation) = (self.config.file, "drop private pages");
                PageFailure::System { file, operation, cause }
            })?;
        }
        self.copies = Some((copies, from));
        Ok(())
    }

    /// Size of the file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        PageId(self.map.pages()).offset_bytes()
    }

    /// Size of the file without the growth at its end that nothing ever used.
    #[must_use]
    pub fn reach_bytes(&self) -> u64 {
        PageId(self.alloc.reach()).offset_bytes()
    }

    /// Bytes of pages that hold something, those that wait for a view to go included.
    #[must_use]
    pub fn in_use_bytes(&self) -> u64 {
        PageId(self.alloc.pages() - self.alloc.free_pages()).offset_bytes()
    }

    /// Bytes that the next checkpoint has to write.
    #[must_use]
    pub fn dirty_size_bytes(&self) -> u64 {
        PageId(self.alloc.dirty_pages()).offset_bytes()
    }

    /// Bytes of pages that the trees do not need any more, but a protected view does.
    #[must_use]
    pub fn waiting_size_bytes(&self) -> u64 {
        PageId(self.alloc.waiting_pages()).offset_bytes()
    }

    /// Free pages now.
    #[must_use]
    pub fn free_pages(&self) -> u32 {
        self.alloc.free_pages()
    }

    /// A new page of a tree, empty.
    pub(crate) fn allocate(&mut self, kind: PageKind, tree: TreeTag) -> Result<PagePtr, PageFault> {
        let ptr = self.take_page(tree)?;
        let bytes = self.page_mut(ptr.page);
        bytes.set_identity(ptr.page, ptr.birth);
        NodeMut::init(bytes, kind, tree);
        Ok(ptr)
    }

    /// The page to change instead of `ptr`: itself when it was born in the working epoch, else a
    /// copy.
    pub(crate) fn writable(&mut self, ptr: PagePtr) -> Result<PagePtr, PageFault> {
        if ptr.birth == self.alloc.working() {
            return Ok(ptr);
        }
        self.map.page(ptr)?;
        let copy = self.take_page(ptr.tree)?;
        self.fill_copy(ptr, copy);
        Ok(copy)
    }

    /// Makes a fresh page the copy of another one, which is given up.
    pub(super) fn fill_copy(&mut self, ptr: PagePtr, copy: PagePtr) {
        let map = Arc::clone(&self.map);
        let bytes = self.page_mut(copy.page);
        bytes.0.copy_from_slice(&map.bytes(ptr.page).0);
        bytes.set_identity(copy.page, copy.birth);
        self.alloc.give_up(ptr.page, 1, ptr.birth);
    }

    fn take_page(&mut self, tree: TreeTag) -> Result<PagePtr, PageFault> {
        let (page, private) =
            self.alloc.take_page().ok_or(self.map.fault(tree, PageId(0), FaultKind::NoFreePage))?;
        self.populate_from(page, private);
        self.map.set_verified(page);
        Ok(PagePtr { page, birth: self.alloc.working(), tree })
    }

    /// Makes a page private that was given out, and some behind it that will be next.
    pub(super) fn populate_from(&mut self, page: PageId, private: bool) {
        if !private {
            let more = self.alloc.note_populated_after(page, POPULATE_PAGES - 1);
            self.map.populate(page, 1 + more);
        }
    }

    /// Makes a run private that was given out. Where a store is built, what stands behind it will
    /// be next.
    fn populate_run(&mut self, Run { page, pages }: Run, private: bool) {
        if private {
            return;
        }
        let more = match self.map.is_building() {
            true => {
                let last = PageId(page.0 + pages - 1);
                self.alloc.note_populated_after(last, BUILDER_POPULATE_PAGES - 1)
            }
            false => 0,
        };
        self.map.populate(page, pages + more);
    }

    /// A node of the working epoch, to change.
    pub(crate) fn node_mut(&mut self, ptr: PagePtr) -> NodeMut<'_> {
        NodeMut::new(self.page_mut_checked(ptr))
    }

    /// Two different nodes of the working epoch, to change together.
    pub(crate) fn node_pair_mut(
        &mut self,
        left: PagePtr,
        right: PagePtr,
    ) -> (NodeMut<'_>, NodeMut<'_>) {
        assert!(left.page != right.page, "page {} twice", left.page);
        let left: *mut PageBytes = self.page_mut_checked(left);
        let right = NodeMut::new(self.page_mut_checked(right));
        // SAFETY: the pages are different and both borrows end with that of `self`.
        (NodeMut::new(unsafe { &mut *left }), right)
    }

    /// A node of the working epoch to change, and another node to read meanwhile.
    pub(crate) fn node_mut_and_source(
        &mut self,
        target: PagePtr,
        source: PagePtr,
    ) -> Result<(NodeMut<'_>, Node<'_>), PageFault> {
        assert!(target.page != source.page, "page {} twice", target.page);
        let source: *const PageBytes = self.map.page(source)?;
        let target = NodeMut::new(self.page_mut_checked(target));
        // SAFETY: the pages are different and both borrows end with that of `self`.
        Ok((target, Node::new(unsafe { &*source })))
    }

    fn page_mut_checked(&mut self, ptr: PagePtr) -> &mut PageBytes {
        assert!(ptr.birth == self.alloc.working(), "page {} of {}", ptr.page, ptr.birth);
        let working = self.alloc.working();
        let bytes = self.page_mut(ptr.page);
        assert!(bytes.birth() == working, "page {} of another epoch", ptr.page);
        bytes
    }

    fn page_mut(&mut self, page: PageId) -> &mut PageBytes {
        // SAFETY: `&mut self` makes this the only writer, and pages are handed here only while they
        // belong to the working epoch, which no view reaches.
        let bytes = unsafe { self.map.run_mut(page, 1) };
        let bytes: &mut [u8; PAGE_SIZE_BYTES] = bytes.try_into().expect("a run of one page");
        // SAFETY: `PageBytes` is transparent over the array.
        unsafe { &mut *std::ptr::from_mut(bytes).cast::<PageBytes>() }
    }

    /// Frees a page that the working trees do not point at any more.
    pub(crate) fn free(&mut self, ptr: PagePtr) {
        self.alloc.give_up(ptr.page, 1, ptr.birth);
    }

    /// Stores bytes in an extent.
    pub(crate) fn allocate_extent(
        &mut self,
        tree: TreeTag,
        bytes: &[u8],
    ) -> Result<ExtentRef, PageFault> {
        let no_page = self.map.fault(tree, PageId(0), FaultKind::NoFreePage);
        let size_bytes = u32::try_from(bytes.len()).map_err(|_| no_page)?;
        let pages = size_bytes.div_ceil(PAGE_SIZE_U32);
        let (page, private) = self.alloc.take_run(pages).ok_or(no_page)?;
        self.fill_run(Run { page, pages }, private, bytes);
        let crc = crc32fast::hash(bytes);
        Ok(ExtentRef { page, size_bytes, birth: self.alloc.working(), crc })
    }

    /// Fills a run that was given out just now.
    pub(super) fn fill_run(&mut self, run: Run, private: bool, bytes: &[u8]) {
        self.populate_run(run, private);
        // SAFETY: `&mut self` is the only writer, and the run was free until now.
        let place = unsafe { self.map.run_mut(run.page, run.pages) };
        place[..bytes.len()].copy_from_slice(bytes);
        // Else whatever the memory held before would reach the disk behind the value.
        place[bytes.len()..].fill(0);
        self.map.set_verified(run.page);
    }

    #[cfg(test)]
    pub(crate) fn free_map_pages(&self) -> u32 {
        self.free_map.map_or(0, ExtentRef::pages)
    }

    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        self.alloc.assert_consistent();
    }

    /// Frees an extent that the working trees do not point at any more.
    pub(crate) fn free_extent(&mut self, extent: ExtentRef) {
        self.alloc.give_up(extent.page, extent.pages(), extent.birth);
    }
}

fn reserved_pages(config: &PageConfig) -> Result<u32, PageFailure> {
    let pages = config.reserve_size_bytes / u64::from(PAGE_SIZE_U32);
    let what = "the reserved range is empty or beyond 2^32 pages";
    match u32::try_from(pages) {
        Ok(pages) if pages > 0 => Ok(pages),
        _ => Err(PageFailure::Mismatch { file: config.file, what }),
    }
}
