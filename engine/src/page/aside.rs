//! Pages of trees that are built aside: no view reaches them before the builder is done.
//!
//! While trees are built aside, what is given out inside a step of the builder is noted. Such pages
//! are written by checkpoints like all others, so that the builder's memory stays bounded, but no
//! checkpoint counts them as used: whoever opens the file finds them free. At the end either they
//! are kept and everything else goes, or they go.
//!
//! Invariants:
//! - A noted page is reached by no published view, so none waits for one to go once it is dropped.
//! - What a checkpoint under way writes is not given out before that checkpoint and the next are
//!   done, here as anywhere.

use super::alloc::{Allocator, Freed, Run};
use super::bitmap::Bitmap;
use super::file::PageFile;
use super::ids::{Epoch, ExtentRef, PAGE_SIZE_U32, PageId};

/// The pages of trees that are built aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// In use, and reached by no published view.
    pub(super) pages: Bitmap,
    /// What is given out belongs to them.
    pub(super) is_noting: bool,
}

impl Aside {
    pub(super) fn note(&mut self, run: Run) {
        if self.is_noting {
            (run.page.0..run.page.0 + run.pages).for_each(|page| self.pages.insert(page));
        }
    }

    pub(super) fn forget(&mut self, run: Run) {
        (run.page.0..run.page.0 + run.pages).for_each(|page| self.pages.remove(page));
    }
}

/// A file that was hardly used before a store is built in it: 64 MiB.
const SHORT_FILE_PAGES_MAX: u32 = (64 << 20) / PAGE_SIZE_U32;

impl Allocator {
    fn begin_aside(&mut self) {
        let pages = self.pages();
        let fresh = || Aside { pages: Bitmap::with_len(pages), is_noting: false };
        // What the one before gave up may still wait for a checkpoint.
        self.aside.get_or_insert_with(fresh);
    }

    fn set_noting(&mut self, is_noting: bool) {
        let aside = self.aside.as_mut().expect("trees are built aside");
        assert!(aside.is_noting != is_noting, "a step inside of another, or none to end");
        aside.is_noting = is_noting;
    }

    /// Gives up what is in use and was not noted, but for `spared`.
    fn keep_aside(&mut self, spared: &[Run]) {
        let Aside { pages: mut noted, .. } = self.aside.take().expect("trees are built aside");
        let waiting = self.waiting_set();
        let mut gone = self.used.clone();
        gone.remove(0);
        for run in spared {
            (run.page.0..run.page.0 + run.pages).for_each(|page| gone.remove(page));
        }
        gone.subtract(&noted);
        gone.subtract(&waiting);
        // Nobody knows their births; from the beginning on is never too early.
        let (born, freed) = (Epoch(0), self.working());
        for run in runs_of(&gone) {
            self.let_wait(Freed { run, born, freed });
        }
        noted.intersect(&waiting);
        if noted.end() > 0 {
            self.aside = Some(Aside { pages: noted, is_noting: false });
        }
    }

    /// Gives up what was noted.
    fn drop_aside(&mut self) {
        let mut gone = self.aside.as_ref().expect("trees are built aside").pages.clone();
        gone.subtract(&self.waiting_set());
        let freed = self.working();
        for run in runs_of(&gone) {
            match self.checkpoint {
                None => self.release(run),
                Some(born) => self.let_wait(Freed { run, born, freed }),
            }
        }
        if self.aside.as_ref().is_some_and(|aside| aside.pages.end() == 0) {
            self.aside = None;
        }
    }

    fn waiting_set(&self) -> Bitmap {
        let mut waiting = Bitmap::with_len(self.pages());
        let lists = self.waiting.values().chain([&self.fresh]);
        for Freed { run, .. } in lists.flatten() {
            (run.page.0..run.page.0 + run.pages).for_each(|page| waiting.insert(page));
        }
        waiting
    }
}

fn runs_of(pages: &Bitmap) -> impl Iterator<Item = Run> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = pages.next_present(from)?;
        let end = pages.next_absent(start).unwrap_or(pages.len());
        from = end;
        Some(Run { page: PageId(start), pages: end - start })
    })
}

impl PageFile {
    /// Trees will be built aside.
    pub(crate) fn begin_aside(&mut self) {
        self.alloc.begin_aside();
        // What is built is written away behind the builder. Whatever it touches again, the system
        // would read megabytes around it on some devices, and log writes would wait behind them.
        // In a file that is long already, free pages are read before they are written, and what is
        // built moves down when it is done: there the system's own ways are the better ones.
        self.set_building(self.alloc.pages() <= SHORT_FILE_PAGES_MAX);
    }

    fn set_building(&mut self, is_building: bool) {
        self.map.set_building(is_building);
        self.alloc.set_zones(is_building);
    }

    /// Whether what is given out from now on belongs to the trees that are built aside.
    pub(crate) fn set_noting_aside(&mut self, is_noting: bool) {
        self.alloc.set_noting(is_noting);
    }

    /// The trees that were built aside are the file's from now on: all other pages go as soon as no
    /// view holds them.
    pub(crate) fn keep_aside(&mut self) {
        let run = |extent: ExtentRef| Run { page: extent.page, pages: extent.pages() };
        let spared: Vec<Run> =
            self.free_map.map(run).into_iter().chain(self.free_map_out).collect();
        self.alloc.keep_aside(&spared);
        self.set_building(false);
    }

    /// Bytes of the pages of the trees that are built aside.
    pub(crate) fn aside_bytes(&self) -> u64 {
        let Some(aside) = &self.alloc.aside else { return 0 };
        let mut pages = aside.pages.clone();
        pages.subtract(&self.alloc.waiting_set());
        PageId(pages.count()).offset_bytes()
    }

    /// The trees that were built aside are given up.
    pub(crate) fn drop_aside(&mut self) {
        self.alloc.drop_aside();
        self.set_building(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_walked_by_runs() {
        let mut pages = Bitmap::with_len(130);
        for page in [1, 2, 3, 63, 64, 129] {
            pages.insert(page);
        }
        let runs: Vec<(u32, u32)> = runs_of(&pages).map(|run| (run.page.0, run.pages)).collect();
        assert_eq!(runs, [(1, 3), (63, 2), (129, 1)]);
        assert_eq!(runs_of(&Bitmap::default()).count(), 0);
    }
}
