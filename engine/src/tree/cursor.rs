//! A cursor: stands between two entries of a tree and walks both ways.
//!
//! Invariants:
//! - The steps above the leaf name the child that leads to the leaf; the leaf's index is that of
//!   the entry behind the cursor's gap.
//! - At either end the cursor stays where it is, so that it can turn round.

use crate::page::node::Node;
use crate::page::{
    FaultKind, PageBytes, PageFault, PageId, PagePtr, Pages, Root, TreeTag, WINDOW_PAGES,
};

use super::search::{child_index, search, whole_key};
use super::{Entry, HEIGHT_MAX, child_ptr, node_at};

/// A key and its entry, borrowed from the pages.
pub type KeyEntry<'p> = (&'p [u8], Entry<'p>);

/// Walks the entries of a tree.
pub struct Cursor<'p, P> {
    pages: &'p P,
    root: Root,
    /// From the root, which is at `height - 1`, down to the leaf at 0.
    steps: [Step<'p>; HEIGHT_MAX],
}

#[derive(Clone, Copy)]
struct Step<'p> {
    /// `None` until the cursor has been placed.
    page: Option<&'p PageBytes>,
    index: usize,
}

/// How far ahead of a walk is read: pages that were taken in one epoch stand out of order, but not
/// farther from each other than this. Two mebibytes.
const WINDOWS_AHEAD: u32 = 8;

/// The entries of one leaf that a cursor has before it.
#[derive(Clone, Copy)]
pub struct LeafRun<'p> {
    node: Node<'p>,
    tree: TreeTag,
    first: usize,
    end: usize,
}

impl<'p> LeafRun<'p> {
    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.end - self.first
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.first == self.end
    }

    /// One of them.
    ///
    /// # Errors
    /// The key is long and its extent damaged.
    #[inline]
    pub fn entry(self, pages: &'p impl Pages, index: usize) -> Result<KeyEntry<'p>, PageFault> {
        assert!(index < self.len(), "entry {index} of {}", self.len());
        key_entry(pages, self.tree, self.node, self.first + index)
    }

    /// Loads all of the leaf into the cache, for who takes every entry of it.
    pub fn warm(self) {
        self.node.page().warm();
    }

    /// The entries whose keys are smaller than `end`.
    ///
    /// # Errors
    /// A key is long and its extent damaged.
    pub fn before(self, pages: &'p impl Pages, end: &[u8]) -> Result<Self, PageFault> {
        let Some(last) = self.len().checked_sub(1) else { return Ok(self) };
        // Mostly all of a leaf lies before the end, and one comparison tells.
        if self.entry(pages, last)?.0 < end {
            return Ok(self);
        }
        let (behind, _) = search(pages, self.tree, self.node, end)?;
        Ok(Self { end: behind.clamp(self.first, self.end), ..self })
    }
}

impl<'p, P: Pages> Cursor<'p, P> {
    /// A cursor before the first entry. Nothing is read yet.
    #[must_use]
    pub fn new(pages: &'p P, root: Root) -> Self {
        Self { pages, root, steps: [Step { page: None, index: 0 }; HEIGHT_MAX] }
    }

    /// Goes before the first entry whose key is not smaller than `key`.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), PageFault> {
        self.seek_where(key, false)
    }

    /// Goes behind the last entry whose key is not greater than `key`.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn seek_behind(&mut self, key: &[u8]) -> Result<(), PageFault> {
        self.seek_where(key, true)
    }

    fn seek_where(&mut self, key: &[u8], behind: bool) -> Result<(), PageFault> {
        self.forget()?;
        let tree = self.root.tree;
        let mut ptr = self.root.ptr();
        for level in (1..=self.root.height).rev() {
            let node = node_at(self.pages, ptr, level)?;
            let index = if level > 1 {
                let index = child_index(self.pages, tree, node, key)?;
                ptr = child_ptr(node, index, tree);
                index
            } else {
                let (index, found) = search(self.pages, tree, node, key)?;
                index + usize::from(found && behind)
            };
            self.steps[usize::from(level) - 1] = Step { page: Some(node.page()), index };
        }
        Ok(())
    }

    /// The last entry whose key is not greater than `key`; the cursor then stands before it.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn seek_floor(&mut self, key: &[u8]) -> Result<Option<KeyEntry<'p>>, PageFault> {
        self.seek_behind(key)?;
        self.prev()
    }

    /// Goes behind the last entry.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn seek_end(&mut self) -> Result<(), PageFault> {
        self.forget()?;
        self.descend(self.root.ptr(), self.root.height, true)
    }

    /// Goes before the first entry.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn seek_start(&mut self) -> Result<(), PageFault> {
        self.forget()?;
        self.descend(self.root.ptr(), self.root.height, false)
    }

    /// An error on the way must not leave steps of two places.
    fn forget(&mut self) -> Result<(), PageFault> {
        self.steps[0].page = None;
        if usize::from(self.root.height) > HEIGHT_MAX {
            let what = FaultKind::Structure("tree too high");
            return Err(self.pages.fault(self.root.tree, self.root.page, what));
        }
        Ok(())
    }

    /// Follows the first or last children from a page at `level` down to its leaf.
    fn descend(&mut self, mut ptr: PagePtr, level: u8, to_end: bool) -> Result<(), PageFault> {
        for level in (1..=level).rev() {
            let node = node_at(self.pages, ptr, level)?;
            let last = if level > 1 { node.count() - 1 } else { node.count() };
            let index = if to_end { last } else { 0 };
            if level > 1 {
                ptr = child_ptr(node, index, self.root.tree);
            }
            self.steps[usize::from(level) - 1] = Step { page: Some(node.page()), index };
        }
        Ok(())
    }

    /// Passes the next entry and returns it; `None` at the end.
    ///
    /// # Errors
    /// A page on the way is damaged.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would go on after one"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<KeyEntry<'p>>, PageFault> {
        loop {
            let Some(page) = self.steps[0].page else {
                if self.root.is_empty() {
                    return Ok(None);
                }
                self.seek_start()?;
                continue;
            };
            let (node, index) = (Node::new(page), self.steps[0].index);
            if index < node.count() {
                self.steps[0].index = index + 1;
                return self.entry(node, index).map(Some);
            }
            if !self.turn_on()? {
                return Ok(None);
            }
        }
    }

    /// Passes the rest of its leaf, or the next leaf if it stands behind one, and returns what it
    /// passed, which is never empty; `None` at the end.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn next_leaf(&mut self) -> Result<Option<LeafRun<'p>>, PageFault> {
        loop {
            let Some(page) = self.steps[0].page else {
                if self.root.is_empty() {
                    return Ok(None);
                }
                self.seek_start()?;
                continue;
            };
            let (node, first) = (Node::new(page), self.steps[0].index);
            let end = node.count();
            if first < end {
                self.steps[0].index = end;
                self.prefetch_next();
                return Ok(Some(LeafRun { node, tree: self.root.tree, first, end }));
            }
            if !self.turn_on()? {
                return Ok(None);
            }
        }
    }

    /// Passes the previous entry and returns it; `None` at the start.
    ///
    /// # Errors
    /// A page on the way is damaged.
    #[inline]
    pub fn prev(&mut self) -> Result<Option<KeyEntry<'p>>, PageFault> {
        loop {
            // A cursor that was never placed stands before the first entry.
            let Some(page) = self.steps[0].page else { return Ok(None) };
            if let Some(index) = self.steps[0].index.checked_sub(1) {
                self.steps[0].index = index;
                return self.entry(Node::new(page), index).map(Some);
            }
            if !self.turn(|step, _| step.checked_sub(1), true)? {
                return Ok(None);
            }
        }
    }

    /// Goes to the next leaf, and has the system read what stands some way behind it where pages
    /// follow each other in the file nearly as in the tree; `false` when there is no next one.
    fn turn_on(&mut self) -> Result<bool, PageFault> {
        let left = self.leaf_page();
        if !self.turn(|step, count| (step + 1 < count).then_some(step + 1), false)? {
            return Ok(false);
        }
        let window = |page: PageId| page.0 / WINDOW_PAGES;
        if let (Some(left), Some(come)) = (left.map(window), self.leaf_page().map(window))
            && come != left
            && come.abs_diff(left) <= WINDOWS_AHEAD
        {
            self.pages.read_window(come.saturating_add(WINDOWS_AHEAD));
        }
        Ok(true)
    }

    /// The page of the leaf the cursor is in, unless that is the root.
    fn leaf_page(&self) -> Option<PageId> {
        let Step { page, index } = self.steps[1];
        let parent = page.filter(|_| self.root.height > 1)?;
        Some(Node::new(parent).child(index).0)
    }

    /// Starts loading the next leaf: who has passed one is busy with it for a while.
    fn prefetch_next(&self) {
        let Step { page: Some(parent), index } = self.steps[1] else { return };
        let parent = Node::new(parent);
        if self.root.height > 1 && index + 1 < parent.count() {
            self.pages.prefetch(parent.child(index + 1).0);
        }
    }

    /// Goes to the leaf beside this one; `false` when there is none.
    fn turn(
        &mut self,
        beside: impl Fn(usize, usize) -> Option<usize>,
        to_end: bool,
    ) -> Result<bool, PageFault> {
        for level in 2..=self.root.height {
            let step = self.steps[usize::from(level) - 1];
            let page = step.page.expect("the steps above a placed leaf are placed");
            let node = Node::new(page);
            let Some(index) = beside(step.index, node.count()) else { continue };
            let ptr = child_ptr(node, index, self.root.tree);
            // The steps below are rewritten one by one: after an error they do not hold together.
            self.steps[0].page = None;
            self.steps[usize::from(level) - 1].index = index;
            self.descend(ptr, level - 1, to_end)?;
            return Ok(true);
        }
        Ok(false)
    }

    #[inline]
    fn entry(&self, node: Node<'p>, index: usize) -> Result<KeyEntry<'p>, PageFault> {
        key_entry(self.pages, self.root.tree, node, index)
    }
}

#[inline]
fn key_entry<'p>(
    pages: &'p impl Pages,
    tree: TreeTag,
    node: Node<'p>,
    index: usize,
) -> Result<KeyEntry<'p>, PageFault> {
    let cell = node.leaf_cell(index);
    let key = whole_key(pages, tree, cell.key)?;
    Ok((key, Entry { head: cell.head, stored: cell.body, tree }))
}
