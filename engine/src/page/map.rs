//! One shard file in memory: mapped once, privately, over a range far larger than the file.
//!
//! The kernel never writes a page of a private map back by itself: every byte that reaches the file
//! is a `DiskOp`. The range is reserved in address space only, so the file grows without a remap,
//! and addresses that readers hold stay good.
//!
//! What the file grows by is mapped as *anonymous* memory at first: nothing of it was ever written,
//! and the first touch of a private file page costs twice (the kernel reads or zeroes a page of its
//! cache, then copies it). When a checkpoint has put a run of such pages into the file, the run is
//! mapped from the file like all others. Short runs stay anonymous, so that the number of mappings
//! stays bounded; they hold what the file holds and cost memory only.
//!
//! Invariants:
//! - Only pages below `pages` are touched: what lies behind is not backed by the file yet.
//! - A page whose bit in `verified` is set was built by this process or passed every check.
//! - One writer changes pages, and only those that no reader can reach; readers on other cores hold
//!   plain references to the others. That is the reuse rule of `alloc` and the duty of `PageFile`.

#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::ahead::WINDOW_PAGES;
use super::bytes::{CACHE_LINE_SIZE_BYTES, PageBytes};
use super::disk::FileId;
use super::fault::{FaultKind, PageFailure, PageFault};
use super::ids::{ExtentRef, PAGE_SIZE_BYTES, PageId, PagePtr, TreeTag};
use super::node::Node;

/// Where a shard's pages come from.
pub enum MapSource {
    /// The shard's file; it is mapped privately and never written through the map.
    File(File),
    /// The bytes of a file that someone else simulates. Disk operations are handed out as for a
    /// file.
    Memory(Vec<u8>),
}

/// Shorter runs of anonymous pages are not handed over to the file: each one may split a mapping in
/// three.
const ANONYMOUS_RUN_PAGES_MIN: u32 = 16;

/// After so many hand-overs growth is mapped from the file at once: a process has 65,530 mappings,
/// and each hand-over adds two at the most.
const HAND_OVERS_MAX: u32 = 15_000;

/// Windows that a walk does not have read twice in a row: through pages that stand a little out of
/// order it comes by each several times, and to find that all of it is there takes the system 5 us.
/// Sixteen mebibytes of them, where disorder is one or two.
const WINDOWS_READ_COUNT: usize = 64;

/// The header and the heads of about fifty slots.
const PREFETCH_LINES: usize = 7;

pub(super) struct Map {
    file: FileId,
    base: NonNull<u8>,
    reserved_pages: u32,
    pages: AtomicU32,
    verified: Box<[AtomicU64]>,
    /// Pages that are anonymous although the file is there. Only the writer looks.
    anonymous: Box<[AtomicU64]>,
    hand_overs: AtomicU32,
    /// See [`Map::set_building`].
    is_building: AtomicBool,
    /// The last window read ahead of those that share a place.
    windows_read: [AtomicU32; WINDOWS_READ_COUNT],
    backing: Backing,
}

enum Backing {
    Mapped {
        map: memmap2::MmapRaw,
        file: Option<File>,
    },
    #[cfg(miri)]
    Heap(std::alloc::Layout),
}

// SAFETY: `base` points into memory that `backing` owns for the life of the value; who may read and
// write which page when is settled by the reuse rule (module header), not by this type.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    pub fn new(source: MapSource, file: FileId, reserved_pages: u32) -> Result<Self, PageFailure> {
        let failure = |operation| move |cause| PageFailure::System { file, operation, cause };
        let size = reserved_pages as usize * PAGE_SIZE_BYTES;
        let verified = zeroed_words(reserved_pages.div_ceil(64) as usize);
        let anonymous_pages = zeroed_words(reserved_pages.div_ceil(64) as usize);
        let (backing, base, size_bytes) = match source {
            MapSource::File(handle) => {
                let size_bytes = handle.metadata().map_err(failure("read the size"))?.len();
                let mut options = memmap2::MmapOptions::new();
                options.len(size).no_reserve_swap();
                // SAFETY: the file is the shard's own, locked with the data directory; whoever
                // changes or shortens it meanwhile breaks more than this process. Nothing is read
                // here.
                let map = unsafe { options.map_copy(&handle) }.map_err(failure("map"))?;
                let map = memmap2::MmapRaw::from(map);
                let base = NonNull::new(map.as_mut_ptr()).expect("a map is never at null");
                (Backing::Mapped { map, file: Some(handle) }, base, size_bytes)
            }
            MapSource::Memory(bytes) => {
                let (backing, base) = anonymous(size).map_err(failure("reserve memory"))?;
                let len = bytes.len().min(size);
                // SAFETY: the fresh range is at least `len` long and nobody else knows it yet.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.as_ptr(), len) };
                (backing, base, bytes.len() as u64)
            }
        };
        let pages = u32::try_from(size_bytes / PAGE_SIZE_BYTES as u64).unwrap_or(u32::MAX);
        let pages = AtomicU32::new(pages.min(reserved_pages));
        let anonymous = anonymous_pages;
        Ok(Self {
            file,
            base,
            reserved_pages,
            pages,
            verified,
            anonymous,
            hand_overs: AtomicU32::new(0),
            is_building: AtomicBool::new(false),
            windows_read: [const { AtomicU32::new(u32::MAX) }; WINDOWS_READ_COUNT],
            backing,
        })
    }

    /// Where the reserved range lies.
    pub fn addresses(&self) -> Range<usize> {
        let start = self.base.addr().get();
        start..start + self.reserved_pages as usize * PAGE_SIZE_BYTES
    }

    pub fn pages(&self) -> u32 {
        self.pages.load(Ordering::Acquire)
    }

    /// Whether the pages come from a file, so that their private copies can be dropped.
    pub fn is_file(&self) -> bool {
        match &self.backing {
            Backing::Mapped { file, .. } => file.is_some(),
            #[cfg(miri)]
            Backing::Heap(_) => false,
        }
    }

    /// The file has grown: more of the range may be touched.
    pub fn grow(&self, pages: u32) {
        let before = self.pages();
        assert!(pages <= self.reserved_pages && pages >= before);
        if self.is_file() && pages > before && self.map_anonymous(PageId(before), pages - before) {
            for page in before..pages {
                self.anonymous[page as usize / 64].fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
        self.pages.store(pages, Ordering::Release);
    }

    /// The file is being cut off: nothing behind `pages` is touched any more. What the private map
    /// holds of it goes with the file's end; what is anonymous is given back here.
    pub fn shrink(&self, pages: u32) {
        let before = self.pages();
        assert!(pages <= before, "{pages} of {before}");
        self.pages.store(pages, Ordering::Release);
        for page in pages..before {
            self.verified[page as usize / 64].fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
        }
        let Backing::Mapped { map, file: Some(_) } = &self.backing else { return };
        let mut from = pages;
        while from < before {
            let mut to = from + 1;
            while to < before && self.is_anonymous(to) == self.is_anonymous(from) {
                to += 1;
            }
            if self.is_anonymous(from) {
                let (offset, size) = (from as usize * PAGE_SIZE_BYTES, (to - from) as usize);
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: the pages are behind the end from now on, and no view reaches them.
                let given_back =
                    unsafe { map.unchecked_advise_range(advice, offset, size * PAGE_SIZE_BYTES) };
                // Memory that stays is all that a failure costs.
                drop(given_back);
            }
            from = to;
        }
    }

    /// A page of a tree, verified at its first touch.
    #[inline]
    pub fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault> {
        self.prefetch(ptr.page);
        if !self.is_verified(ptr.page) {
            self.verify(ptr)?;
        }
        let bytes = self.bytes(ptr.page);
        if bytes.birth() == ptr.birth {
            Ok(bytes)
        } else {
            Err(self.fault(ptr.tree, ptr.page, FaultKind::WrongBirth))
        }
    }

    /// Starts loading the part of a page where a search begins. Its cache lines would else be
    /// missed one after the other, each for the address of the next; of a large tree that is most
    /// of a lookup.
    #[inline]
    pub fn prefetch(&self, page: PageId) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if page.0 < self.reserved_pages {
            let address = self.address(page).cast_const().cast::<i8>();
            for line in 0..PREFETCH_LINES {
                // A prefetch of any address is harmless, and this one lies inside the page.
                let address = address.wrapping_add(line * CACHE_LINE_SIZE_BYTES);
                // SAFETY: every x86-64 processor has the instruction; it never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = page;
    }

    /// The bytes of an extent, verified at their first touch.
    pub fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault> {
        let fault = |what| Err(self.fault(tree, extent.page, what));
        let end = extent.page.0.checked_add(extent.pages());
        if extent.page.0 == 0 || extent.size_bytes == 0 || end.is_none_or(|end| end > self.pages())
        {
            return fault(FaultKind::OutsideFile);
        }
        // SAFETY: the run lies inside the part of the range that is backed, and is not written
        // while a tree that names it can be read (module header).
        let bytes = unsafe {
            std::slice::from_raw_parts(self.address(extent.page), extent.size_bytes as usize)
        };
        if !self.is_verified(extent.page) {
            if crc32fast::hash(bytes) != extent.crc {
                return fault(FaultKind::Checksum);
            }
            self.set_verified(extent.page);
        }
        Ok(bytes)
    }

    pub fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault {
        PageFault { file: self.file, tree, page, what }
    }

    #[cold]
    fn verify(&self, ptr: PagePtr) -> Result<(), PageFault> {
        let fault = |what| self.fault(ptr.tree, ptr.page, what);
        if ptr.page.0 == 0 || ptr.page.0 >= self.pages() {
            return Err(fault(FaultKind::OutsideFile));
        }
        let bytes = self.bytes(ptr.page);
        bytes.verify(ptr).map_err(fault)?;
        Node::new(bytes).check().map_err(|rule| fault(FaultKind::Structure(rule)))?;
        self.set_verified(ptr.page);
        Ok(())
    }

    #[inline]
    fn is_verified(&self, page: PageId) -> bool {
        // Relaxed: the bit says nothing about bytes written by this process, whose order the
        // publication of the view settles; the file's bytes were there all along.
        let word = self.verified.get(page.at() / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page.0 % 64)) != 0)
    }

    pub fn set_verified(&self, page: PageId) {
        self.verified[page.at() / 64].fetch_or(1 << (page.0 % 64), Ordering::Relaxed);
    }

    fn address(&self, page: PageId) -> *mut u8 {
        assert!(page.0 < self.reserved_pages, "page {page} of {}", self.reserved_pages);
        // SAFETY: the page lies inside the reserved range.
        unsafe { self.base.as_ptr().add(page.at() * PAGE_SIZE_BYTES) }
    }

    /// A page as it is. The caller knows that it is backed and not being written.
    #[inline]
    pub fn bytes(&self, page: PageId) -> &PageBytes {
        let address = self.address(page).cast::<PageBytes>();
        // SAFETY: the page is backed and any bytes are a `PageBytes`; nobody writes it while a tree
        // that names it can be read (module header).
        unsafe { &*address }
    }

    /// Pages to write.
    ///
    /// # Safety
    /// The caller is the only writer, and no view or checkpoint can reach these pages.
    #[expect(clippy::mut_from_ref, reason = "the map is shared, the pages have one writer")]
    pub unsafe fn run_mut(&self, page: PageId, pages: u32) -> &mut [u8] {
        assert!(u64::from(page.0) + u64::from(pages) <= u64::from(self.pages()));
        let address = self.address(page);
        // SAFETY: the run is backed; the caller vouches that nobody else touches it.
        unsafe { std::slice::from_raw_parts_mut(address, pages as usize * PAGE_SIZE_BYTES) }
    }

    /// Makes private copies of a run at once, which is cheaper than one fault for each page.
    pub fn populate(&self, page: PageId, pages: u32) {
        let Backing::Mapped { map, file: Some(_) } = &self.backing else { return };
        let offset = page.at() * PAGE_SIZE_BYTES;
        let size = pages as usize * PAGE_SIZE_BYTES;
        // An old kernel without this advice faults the pages in one by one.
        let _ = map.advise_range(memmap2::Advice::PopulateWrite, offset, size);
    }

    /// Like [`Self::read_window`], unless that was the last window asked for in its place.
    pub fn read_new_window(&self, window: u32) {
        let last = &self.windows_read[window as usize % WINDOWS_READ_COUNT];
        // What was dropped again meanwhile is read when it is used.
        if last.swap(window, Ordering::Relaxed) != window {
            self.read_window(window);
        }
    }

    /// Has the system read a window of pages ahead of their use, if they come from a file.
    pub fn read_window(&self, window: u32) {
        let Backing::Mapped { map, file: Some(_) } = &self.backing else { return };
        let first = window.saturating_mul(WINDOW_PAGES);
        let pages = WINDOW_PAGES.min(self.pages().saturating_sub(first));
        if pages == 0 {
            return;
        }
        let (offset, size) = (PageId(first).at() * PAGE_SIZE_BYTES, pages as usize);
        // What was not read is read when it is used.
        let _ = map.advise_range(memmap2::Advice::WillNeed, offset, size * PAGE_SIZE_BYTES);
    }

    /// Whether a store is built in the file. Then a page that is not in memory is read alone,
    /// instead of with as many of its neighbours as the system reads ahead. Checkpoints write large
    /// values cold.
    pub fn set_building(&self, is_building: bool) {
        self.is_building.store(is_building, Ordering::Relaxed);
        let Backing::Mapped { map, file: Some(_) } = &self.backing else { return };
        let advice = if is_building { memmap2::Advice::Random } else { memmap2::Advice::Normal };
        // More is read than need be: that is all a failure costs.
        let _ = map.advise(advice);
    }

    pub fn is_building(&self) -> bool {
        self.is_building.load(Ordering::Relaxed)
    }

    /// Drops the private copies of a run: the file's bytes show again.
    ///
    /// # Safety
    /// The file holds what a reader of these pages must see, or nobody can reach them.
    pub unsafe fn drop_private(&self, page: PageId, pages: u32) -> io::Result<()> {
        // Without a file behind it the memory is the only copy.
        let Backing::Mapped { map, file: Some(file) } = &self.backing else { return Ok(()) };
        let end = page.0 + pages;
        let mut from = page.0;
        while from < end {
            let is_anonymous = self.is_anonymous(from);
            let mut to = from + 1;
            while to < end && self.is_anonymous(to) == is_anonymous {
                to += 1;
            }
            let (run, length) = (PageId(from), to - from);
            if !is_anonymous {
                let offset = run.at() * PAGE_SIZE_BYTES;
                let size = length as usize * PAGE_SIZE_BYTES;
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: upheld by the caller.
                unsafe { map.unchecked_advise_range(advice, offset, size) }?;
            } else if length >= ANONYMOUS_RUN_PAGES_MIN && self.map_file(file, run, length) {
                for page in from..to {
                    let word = &self.anonymous[page as usize / 64];
                    word.fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
                }
            }
            from = to;
        }
        Ok(())
    }

    fn is_anonymous(&self, page: u32) -> bool {
        self.anonymous[page as usize / 64].load(Ordering::Relaxed) & (1 << (page % 64)) != 0
    }

    /// Puts fresh anonymous memory over pages that nobody has touched yet. `false`: they stay as
    /// they were, which is slower and just as right.
    fn map_anonymous(&self, page: PageId, pages: u32) -> bool {
        if self.hand_overs.load(Ordering::Relaxed) >= HAND_OVERS_MAX {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.map_over(page, pages, flags, -1, 0)
    }

    /// Puts the file over anonymous pages whose content it holds. A reader sees the one or the
    /// other, never neither: the kernel replaces a fixed mapping in one step.
    fn map_file(&self, file: &File, page: PageId, pages: u32) -> bool {
        if self.hand_overs.fetch_add(1, Ordering::Relaxed) >= HAND_OVERS_MAX {
            return false;
        }
        let offset = libc::off_t::try_from(page.at() * PAGE_SIZE_BYTES).expect("a file's offset");
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let is_mapped = self.map_over(page, pages, flags, file.as_raw_fd(), offset);
        self.advise_built(page, pages);
        is_mapped
    }

    /// Says of a fresh mapping what holds while [`Map::set_building`] does. A failure costs time.
    fn advise_built(&self, page: PageId, pages: u32) {
        if let Backing::Mapped { map, .. } = &self.backing
            && self.is_building()
        {
            let (offset, size) = (page.at() * PAGE_SIZE_BYTES, pages as usize * PAGE_SIZE_BYTES);
            let _ = map.advise_range(memmap2::Advice::Random, offset, size);
        }
    }

    #[cfg(not(miri))]
    fn map_over(
        &self,
        page: PageId,
        pages: u32,
        flags: libc::c_int,
        descriptor: RawFd,
        offset: libc::off_t,
    ) -> bool {
        let size = pages as usize * PAGE_SIZE_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_FIXED;
        let address = self.address(page);
        // SAFETY: the run lies inside our own reserved range, whose mapping lives as long as
        // `backing`; what a reader must see is the same before and after (see the callers).
        let mapped =
            unsafe { libc::mmap(address.cast(), size, protection, flags, descriptor, offset) };
        // After a failure the range may be gone; whoever reads on would meet a hole in memory.
        assert!(mapped != libc::MAP_FAILED, "the kernel gives no mapping for page {page}");
        true
    }

    #[cfg(miri)]
    fn map_over(
        &self,
        _page: PageId,
        _pages: u32,
        _flags: libc::c_int,
        _descriptor: RawFd,
        _offset: libc::off_t,
    ) -> bool {
        false
    }
}

#[cfg(not(miri))]
fn anonymous(size: usize) -> io::Result<(Backing, NonNull<u8>)> {
    let map = memmap2::MmapOptions::new().len(size).no_reserve_swap().map_anon()?;
    let map = memmap2::MmapRaw::from(map);
    let base = NonNull::new(map.as_mut_ptr()).expect("a map is never at null");
    Ok((Backing::Mapped { map, file: None }, base))
}

#[cfg(miri)]
fn anonymous(size: usize) -> io::Result<(Backing, NonNull<u8>)> {
    let layout = std::alloc::Layout::from_size_align(size, PAGE_SIZE_BYTES)
        .map_err(|_| io::Error::other("range too large"))?;
    // SAFETY: the size is not zero.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    Ok((Backing::Heap(layout), NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?))
}

#[cfg(miri)]
impl Drop for Map {
    fn drop(&mut self) {
        let Backing::Heap(layout) = self.backing else { return };
        // SAFETY: allocated with this layout in `anonymous`.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) };
    }
}

/// Words that the system hands out as zeros when they are first touched: the table covers the whole
/// reserved range, of which most is never used.
fn zeroed_words(len: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0_u64; len].into_boxed_slice());
    // SAFETY: an `AtomicU64` has size, alignment and bit validity of a `u64`.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}
