//! Which pages are free, which wait for a view to go, which must go to the disk.
//!
//! Pure bookkeeping: it never touches a page.
//!
//! Invariants:
//! - A page freed in epoch `f` that was born in epoch `b` can be reached by the views `b..f`; it is
//!   given out again only when none of these is protected. Born and freed in the working epoch, no
//!   view ever reached it.
//! - The latest published epoch, the durable one and that of a checkpoint in progress are protected
//!   whatever the caller says.
//! - A page that waits names one protected epoch as its witness, and is looked at again only when
//!   that epoch goes: long-lived views cost nothing at each publication.

use std::collections::BTreeMap;

use super::aside::Aside;
use super::bitmap::Bitmap;
use super::ids::{Epoch, PageId};

/// A run of pages that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub page: PageId,
    pub pages: u32,
}

/// A run that is not needed any more, and may still be reached by views.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    pub run: Run,
    pub born: Epoch,
    pub freed: Epoch,
}

/// Pages that trees are given at a time where a store is built: 2 MiB, for which some forty of
/// values are built.
const TREE_ZONE_PAGES: u32 = 512;

/// How a store that is built is laid out: values stand side by side, so that they are written in
/// long runs and their memory goes as a whole, with zones for pages of trees between them.
#[derive(Clone, Copy, Debug, Default)]
struct Zones {
    /// Free pages before it are for trees.
    trees_end: u32,
    /// The last value, or the last zone for trees, ends before it: the next value follows.
    values_end: u32,
}

/// The allocation state of one file.
pub(super) struct Allocator {
    pub(super) used: Bitmap,
    /// Pages whose bytes in memory are not (yet) those in the file.
    dirty: Bitmap,
    /// Pages of which this process has its own copy: touching them costs no fault.
    private: Bitmap,
    /// Pages of extents: they have no header, so no checksum is sealed into them.
    raw: Bitmap,
    /// Free pages that have a private copy, the latest freed last.
    warm: Vec<PageId>,
    listed: Bitmap,
    working: Epoch,
    durable: Epoch,
    pub(super) checkpoint: Option<Epoch>,
    born_working: Vec<Run>,
    pub(super) fresh: Vec<Freed>,
    pub(super) waiting: BTreeMap<Epoch, Vec<Freed>>,
    /// Pages in these lists.
    waiting_pages: u32,
    /// Pages of trees that no view reaches yet.
    pub(super) aside: Option<Aside>,
    free: u32,
    dirty_count: u32,
    /// No page below is free.
    hint: u32,
    /// Pages at or behind it are given out only when there are no others.
    ceiling: u32,
    /// While a store is built.
    zones: Option<Zones>,
    /// Behind every page that was in use since the file was opened or shortened.
    reach: u32,
}

impl Allocator {
    /// The state of a file of `pages` pages, of which `used` are in use by the durable checkpoint.
    pub fn new(mut used: Bitmap, pages: u32, durable: Epoch) -> Self {
        used.grow(pages);
        used.insert(0);
        let (free, reach) = (pages - used.count(), used.end());
        Self {
            used,
            dirty: Bitmap::with_len(pages),
            private: Bitmap::with_len(pages),
            raw: Bitmap::with_len(pages),
            warm: Vec::new(),
            listed: Bitmap::with_len(pages),
            working: durable.next(),
            durable,
            checkpoint: None,
            born_working: Vec::new(),
            fresh: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_pages: 0,
            aside: None,
            free,
            dirty_count: 0,
            hint: 1,
            ceiling: u32::MAX,
            zones: None,
            reach,
        }
    }

    pub fn working(&self) -> Epoch {
        self.working
    }

    pub fn pages(&self) -> u32 {
        self.used.len()
    }

    /// Behind it nothing is in use.
    pub fn end(&self) -> u32 {
        self.used.end()
    }

    /// Whether values are kept apart from pages of trees.
    pub fn set_zones(&mut self, has_zones: bool) {
        self.zones = has_zones.then_some(Zones::default());
    }

    /// None while everything is to move down.
    fn zones(&self) -> Option<Zones> {
        self.zones.filter(|_| self.ceiling == u32::MAX)
    }

    pub fn set_ceiling(&mut self, ceiling: u32) {
        self.ceiling = ceiling;
    }

    /// What was used before counts no more; nor is it to be used again because it is in memory.
    pub fn note_reach(&mut self, reach: u32) {
        assert!(reach >= self.used.end(), "{reach} before {}", self.used.end());
        self.reach = reach;
        for page in self.warm.extract_if(.., |page| page.0 >= reach) {
            self.listed.remove(page.0);
        }
    }

    /// Forgets the free pages from `pages` on.
    pub fn shorten(&mut self, pages: u32) {
        assert!(self.checkpoint.is_none(), "a checkpoint knows the file's length");
        let (end, dirty_end) = (self.used.end(), self.dirty.end());
        assert!(end <= pages && dirty_end <= pages, "{pages} of {end}, dirty to {dirty_end}");
        self.free -= self.used.len() - pages;
        for bitmap in [&mut self.used, &mut self.dirty, &mut self.private, &mut self.raw] {
            bitmap.truncate(pages);
        }
        self.listed.truncate(pages);
        if let Some(aside) = &mut self.aside {
            aside.pages.truncate(pages);
        }
        self.warm.retain(|page| page.0 < pages);
        self.hint = self.hint.min(pages);
    }

    pub fn reach(&self) -> u32 {
        self.reach
    }

    pub fn free_pages(&self) -> u32 {
        self.free
    }

    pub fn dirty_pages(&self) -> u32 {
        self.dirty_count
    }

    pub fn durable(&self) -> Epoch {
        self.durable
    }

    pub fn grow(&mut self, pages: u32) {
        self.free += pages - self.used.len();
        self.used.grow(pages);
        self.dirty.grow(pages);
        self.private.grow(pages);
        self.raw.grow(pages);
        self.listed.grow(pages);
        if let Some(aside) = &mut self.aside {
            aside.pages.grow(pages);
        }
    }

    /// Ends the working epoch: what was written in it is immutable from now on.
    pub fn advance(&mut self, to: Epoch) {
        assert!(to > self.working, "advance from {} to {to}", self.working);
        self.working = to;
        self.born_working.clear();
    }

    /// One free page, and whether this process has its own copy of it; prefers those.
    pub fn take_page(&mut self) -> Option<(PageId, bool)> {
        while let Some(page) = self.warm.pop() {
            self.listed.remove(page.0);
            // Extents take pages without asking this list, and a checkpoint drops private copies.
            let is_free = page.0 < self.ceiling && !self.used.contains(page.0);
            if is_free && self.private.contains(page.0) {
                self.raw.remove(page.0);
                return Some((self.mark(Run { page, pages: 1 }), true));
            }
        }
        match self.zones() {
            Some(zones) => self.take_page_in(zones),
            None => self.take_page_below(u32::MAX),
        }
    }

    /// A page of a zone for trees; a new one begins behind the values when there is none.
    fn take_page_in(&mut self, Zones { trees_end, values_end }: Zones) -> Option<(PageId, bool)> {
        if let Some(taken) = self.take_page_below(trees_end) {
            return Some(taken);
        }
        if let Some(begin) = self.used.next_absent(values_end.max(self.hint)) {
            let end = begin.saturating_add(TREE_ZONE_PAGES);
            self.zones = Some(Zones { trees_end: end, values_end: end });
        }
        self.take_page_below(u32::MAX)
    }

    /// The first free page, if it stands before `limit`.
    pub fn take_page_below(&mut self, limit: u32) -> Option<(PageId, bool)> {
        let page = self.used.next_absent(self.hint).filter(|page| *page < limit)?;
        self.hint = page + 1;
        let private = self.private.contains(page);
        self.raw.remove(page);
        Some((self.mark(Run { page: PageId(page), pages: 1 }), private))
    }

    /// The first free page at or behind `from`.
    pub fn take_page_from(&mut self, from: u32) -> Option<(PageId, bool)> {
        let page = self.used.next_absent(from.max(self.hint))?;
        let private = self.private.contains(page);
        self.raw.remove(page);
        Some((self.mark(Run { page: PageId(page), pages: 1 }), private))
    }

    /// Length of the run of free pages without a private copy that follows `page`, up to `max`;
    /// they count as private from now on.
    pub fn note_populated_after(&mut self, page: PageId, max: u32) -> u32 {
        let mut count = 0;
        let mut at = page.0 + 1;
        while count < max && at < self.used.len() {
            if self.used.contains(at) || self.private.contains(at) {
                break;
            }
            self.private.insert(at);
            (count, at) = (count + 1, at + 1);
        }
        count
    }

    /// A run of free pages for an extent, and whether this process has its own copy of all of it.
    pub fn take_run(&mut self, pages: u32) -> Option<(PageId, bool)> {
        if let Some(zones) = self.zones()
            && let Some((page, private)) = self.take_run_from(pages, zones.values_end)
        {
            self.zones = Some(Zones { values_end: page.0 + pages, ..zones });
            return Some((page, private));
        }
        self.take_run_below(pages, u32::MAX)
    }

    /// The first run of free pages for an extent, if it stands before `limit`.
    pub fn take_run_below(&mut self, pages: u32, limit: u32) -> Option<(PageId, bool)> {
        assert!(pages > 0);
        let page = self.used.next_absent_run(self.hint, pages)?;
        if page.checked_add(pages).is_none_or(|end| end > limit) {
            return None;
        }
        Some(self.mark_raw(Run { page: PageId(page), pages }))
    }

    /// The first run of free pages for an extent that begins at or behind `from`.
    pub fn take_run_from(&mut self, pages: u32, from: u32) -> Option<(PageId, bool)> {
        assert!(pages > 0);
        let page = self.used.next_absent_run(from.max(self.hint), pages)?;
        Some(self.mark_raw(Run { page: PageId(page), pages }))
    }

    fn mark_raw(&mut self, run: Run) -> (PageId, bool) {
        let mut private = true;
        for at in run.page.0..run.page.0 + run.pages {
            private &= self.private.contains(at);
            self.raw.insert(at);
        }
        (self.mark(run), private)
    }

    /// Whether some run of free pages is as long as this.
    pub fn has_run(&self, pages: u32) -> bool {
        self.used.len() - self.used.end() >= pages
            || self.used.next_absent_run(self.hint, pages).is_some()
    }

    /// Whether a page was written since the last checkpoint began.
    pub fn is_dirty(&self, page: u32) -> bool {
        self.dirty.contains(page)
    }

    /// Whether a page belongs to an extent.
    pub fn is_raw(&self, page: u32) -> bool {
        self.raw.contains(page)
    }

    fn mark(&mut self, run: Run) -> PageId {
        for page in run.page.0..run.page.0 + run.pages {
            debug_assert!(!self.used.contains(page));
            self.used.insert(page);
            self.dirty_count += u32::from(!self.dirty.contains(page));
            self.dirty.insert(page);
            self.private.insert(page);
        }
        self.free -= run.pages;
        self.reach = self.reach.max(run.page.0 + run.pages);
        self.born_working.push(run);
        if let Some(aside) = &mut self.aside {
            aside.note(run);
        }
        run.page
    }

    /// Gives up a page or extent that the working trees do not need any more.
    pub fn give_up(&mut self, page: PageId, pages: u32, born: Epoch) {
        let run = Run { page, pages };
        assert!(self.used.contains(page.0), "page {page} freed twice");
        if born == self.working {
            self.release(run);
        } else {
            self.let_wait(Freed { run, born, freed: self.working });
        }
    }

    /// A run is free as soon as no view reaches it.
    pub(super) fn let_wait(&mut self, freed: Freed) {
        self.waiting_pages += freed.run.pages;
        self.fresh.push(freed);
    }

    /// Makes a run free at once: no view reaches it.
    pub fn release(&mut self, run: Run) {
        for page in run.page.0..run.page.0 + run.pages {
            assert!(self.used.contains(page), "page {page} released twice");
            self.used.remove(page);
            self.clear_dirty(page);
            if self.private.contains(page) && !self.listed.contains(page) {
                self.listed.insert(page);
                self.warm.push(PageId(page));
            }
        }
        self.free += run.pages;
        self.hint = self.hint.min(run.page.0);
        if let Some(aside) = &mut self.aside {
            aside.forget(run);
        }
    }

    fn clear_dirty(&mut self, page: u32) {
        self.dirty_count -= u32::from(self.dirty.contains(page));
        self.dirty.remove(page);
    }

    /// Makes pages free that no protected epoch reaches; `protected` is sorted.
    pub fn reclaim(&mut self, protected: &[Epoch]) {
        assert!(protected.is_sorted(), "{protected:?}");
        let mut all = Vec::with_capacity(protected.len() + 3);
        all.extend_from_slice(protected);
        all.push(self.durable);
        all.extend(self.checkpoint);
        // The epochs may have gaps, but no view was published between two of them.
        all.push(Epoch(self.working.0 - 1));
        all.sort_unstable();
        let mut looked_at = std::mem::take(&mut self.fresh);
        self.waiting.retain(|witness, freed| {
            let stays = all.binary_search(witness).is_ok();
            if !stays {
                looked_at.append(freed);
            }
            stays
        });
        for freed in looked_at {
            let first = all.partition_point(|epoch| *epoch < freed.born);
            match all.get(first) {
                Some(witness) if *witness < freed.freed => {
                    self.waiting.entry(*witness).or_default().push(freed);
                }
                _ => {
                    self.waiting_pages -= freed.run.pages;
                    self.release(freed.run);
                }
            }
        }
    }

    /// Pages that wait for a view to go.
    pub fn waiting_pages(&self) -> u32 {
        self.waiting_pages
    }

    /// Starts a checkpoint of the latest published epoch `epoch`. Returns the pages to be written
    /// and all pages that the checkpoint's trees can reach.
    pub fn begin_checkpoint(&mut self, epoch: Epoch) -> (Bitmap, Bitmap) {
        assert!(self.checkpoint.is_none(), "one checkpoint at a time");
        assert!(epoch < self.working && epoch >= self.durable, "checkpoint of epoch {epoch}");
        // What was freed before the view was published is not part of it, nor of any later one.
        let mut reachable = self.used.clone();
        let gone: Vec<Run> = (self.waiting.values().flatten())
            .chain(&self.fresh)
            .filter(|freed| freed.freed <= epoch)
            .map(|freed| freed.run)
            .collect();
        for run in gone {
            for page in run.page.0..run.page.0 + run.pages {
                reachable.remove(page);
                self.clear_dirty(page);
            }
        }
        if let Some(aside) = &self.aside {
            reachable.subtract(&aside.pages);
        }
        let mut writing = self.dirty.clone();
        let mut later = Vec::new();
        for run in &self.born_working {
            for page in run.page.0..run.page.0 + run.pages {
                reachable.remove(page);
                if writing.contains(page) {
                    writing.remove(page);
                    later.push(page);
                }
            }
        }
        self.dirty = Bitmap::with_len(self.used.len());
        for page in &later {
            self.dirty.insert(*page);
        }
        self.dirty_count = u32::try_from(later.len()).expect("a file has at most 2^32 pages");
        self.checkpoint = Some(epoch);
        (writing, reachable)
    }

    /// Pages that the checkpoint writes on its own account, not as part of a tree.
    pub fn note_written(&mut self, run: Run) {
        for page in run.page.0..run.page.0 + run.pages {
            self.clear_dirty(page);
        }
    }

    /// Ends the checkpoint: its epoch is the durable one now, and the private copies of `written`
    /// are gone, as are those of free pages beyond the `warm_pages_max` latest freed. Returns the
    /// latter.
    pub fn finish_checkpoint(&mut self, written: &Bitmap, warm_pages_max: usize) -> Vec<PageId> {
        self.durable = self.checkpoint.take().expect("a checkpoint is in progress");
        let mut page = 0;
        while let Some(at) = written.next_present(page) {
            self.private.remove(at);
            page = at + 1;
        }
        let surplus = self.warm.len().saturating_sub(warm_pages_max);
        let dropped: Vec<PageId> = self.warm.drain(..surplus).collect();
        let mut cold = Vec::new();
        for page in dropped {
            self.listed.remove(page.0);
            if !self.used.contains(page.0) && self.private.contains(page.0) {
                self.private.remove(page.0);
                self.hint = self.hint.min(page.0);
                cold.push(page);
            }
        }
        cold
    }

    #[cfg(test)]
    pub fn assert_consistent(&self) {
        assert_eq!(self.free, self.used.len() - self.used.count());
        assert_eq!(self.dirty_count, self.dirty.count());
        let waiting = self.waiting.values().chain([&self.fresh]).flatten();
        assert_eq!(self.waiting_pages, waiting.map(|freed| freed.run.pages).sum::<u32>());
        let first_free = self.used.next_absent(1);
        assert!(first_free.is_none_or(|page| self.hint <= page), "{} {first_free:?}", self.hint);
        if let Some(aside) = &self.aside {
            let mut free = aside.pages.clone();
            free.subtract(&self.used);
            assert_eq!(free.count(), 0, "noted pages are in use");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In single pages between those of trees their memory was never given back as a whole, and
    /// what was written were runs of 60 KiB.
    #[test]
    fn values_that_are_built_stand_side_by_side() {
        let pages = 8 * TREE_ZONE_PAGES;
        let mut alloc = Allocator::new(Bitmap::with_len(pages), pages, Epoch(0));
        alloc.set_zones(true);
        let mut values = Bitmap::with_len(pages);
        for round in 0..3 * TREE_ZONE_PAGES {
            let (page, _) = alloc.take_run(1 + round % 2).unwrap();
            (page.0..=page.0 + round % 2).for_each(|page| values.insert(page));
            if round % 2 == 0 {
                assert!(alloc.take_page().is_some());
            }
        }
        let (mut runs, mut from) = (0, 0);
        while let Some(start) = values.next_present(from) {
            from = values.next_absent(start).unwrap();
            runs += 1;
        }
        assert!(runs <= 3, "{runs} runs");
        // In the end whatever is free serves both.
        while alloc.take_run(1).and(alloc.take_page()).is_some() {}
        assert_eq!(alloc.free_pages(), 0);
        alloc.assert_consistent();
    }

    /// Seed 9127: the size that had fallen rose again with the next page.
    #[test]
    fn what_counts_no_more_is_not_taken_first() {
        let mut alloc = Allocator::new(Bitmap::with_len(100), 100, Epoch(0));
        let taken: Vec<PageId> = (0..50).map(|_| alloc.take_page().unwrap().0).collect();
        for &page in &taken[10..] {
            alloc.release(Run { page, pages: 1 });
        }
        // Of those that are in memory the latest freed is taken first.
        assert_eq!(alloc.take_page().map(|(page, _)| page), taken.last().copied());
        alloc.release(Run { page: taken[49], pages: 1 });
        alloc.note_reach(alloc.end());
        assert_eq!(alloc.take_page().map(|(page, _)| page), Some(taken[10]));
        assert_eq!(alloc.reach(), taken[10].0 + 1);
    }
}
