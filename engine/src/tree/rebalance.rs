//! What a removal leaves behind: empty pages go, nearly empty ones merge with a neighbour or share
//! its cells.
//!
//! Invariants:
//! - A page below a quarter of its capacity is merged with a neighbour if both then fit one page with
//!   an eighth to spare (so that the next insertion does not split it again), and else takes cells
//!   from it.
//! - A removal allocates no extent: where sharing would need a long separator, the page stays as it is.

use crate::page::node::{
    InnerCell, KEY_INLINE_SIZE_BYTES_MAX, NODE_CAPACITY_BYTES, Node, NodeMut, StoredKey,
};
use crate::page::{PageBytes, PageFault, PageFile, PageKind, PagePtr, Pages, Root};

use super::child_ptr;
use super::search::whole_key;
use super::split::{Separator, balance, shortest_between};
use super::write::{Path, writable_child};

const LOW_BYTES: usize = NODE_CAPACITY_BYTES / 4;
const MERGED_BYTES_MAX: usize = NODE_CAPACITY_BYTES - NODE_CAPACITY_BYTES / 8;

/// Puts the tree in order after an entry was removed from `child`, which ends `path`.
pub(super) fn after_removal(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    mut child: PagePtr,
) -> Result<(), PageFault> {
    while let Some((parent, index)) = path.pop() {
        let node = Node::new(pages.page(child)?);
        if node.count() == 0 {
            drop_child(pages, parent, index);
            pages.free(child);
        } else if node.used_bytes() < LOW_BYTES {
            join_neighbour(pages, parent, index)?;
        } else {
            return Ok(());
        }
        child = parent;
    }
    shrink_root(pages, root)
}

/// Takes levels off a tree whose root has one child or none.
fn shrink_root(pages: &mut PageFile, root: &mut Root) -> Result<(), PageFault> {
    loop {
        let node = Node::new(pages.page(root.ptr())?);
        match (node.count(), node.is_leaf()) {
            (0, _) => {
                pages.free(root.ptr());
                assert_eq!(root.count, 0, "no page is left");
                *root = Root::empty(root.tree);
                return Ok(());
            }
            (1, false) => {
                let child = child_ptr(node, 0, root.tree);
                pages.free(root.ptr());
                (root.page, root.birth, root.height) = (child.page, child.birth, root.height - 1);
            }
            _ => return Ok(()),
        }
    }
}

/// Removes the cell of a child that is gone, or whose cells moved left.
fn drop_child(pages: &mut PageFile, parent: PagePtr, index: usize) {
    let mut node = pages.node_mut(parent);
    let mut gone = node.as_node().key(index).extent();
    node.remove(index);
    if index == 0 && node.as_node().count() > 0 {
        // The next child is the first now: it stands for everything below the one behind it.
        let first = node.as_node().inner_cell(0);
        gone = first.separator.extent();
        let (page, birth, count) = (first.page, first.birth, first.count);
        node.remove(0);
        let separator = StoredKey::Inline(&[]);
        node.insert_inner(0, InnerCell { separator, page, birth, count });
    }
    if let Some(extent) = gone {
        pages.free_extent(extent);
    }
}

/// Merges a page that ran low with a neighbour, or lets it share the neighbour's cells.
fn join_neighbour(pages: &mut PageFile, parent: PagePtr, index: usize) -> Result<(), PageFault> {
    let node = Node::new(pages.page(parent)?);
    let count = node.count();
    // Pairs are named by their left child; the neighbour on the right first.
    let pairs = [Some(index), index.checked_sub(1)];
    let pairs = pairs.into_iter().flatten().filter(|left| left + 1 < count);
    for left in pairs.clone() {
        let node = Node::new(pages.page(parent)?);
        let left_node = Node::new(pages.page(child_ptr(node, left, parent.tree))?);
        let right_node = Node::new(pages.page(child_ptr(node, left + 1, parent.tree))?);
        let mut size = left_node.used_bytes() + right_node.used_bytes();
        if !left_node.is_leaf() {
            size += node.size_with_slot(left + 1);
        }
        if left_node.is_leaf() == right_node.is_leaf() && size <= MERGED_BYTES_MAX {
            return merge(pages, parent, left);
        }
    }
    match pairs.clone().next() {
        Some(left) => share(pages, parent, left),
        None => Ok(()),
    }
}

/// Moves all cells of the right page of a pair to the left one.
fn merge(pages: &mut PageFile, parent: PagePtr, left: usize) -> Result<(), PageFault> {
    let left_ptr = writable_child(pages, parent, left)?;
    let node = Node::new(pages.page(parent)?);
    let right_ptr = child_ptr(node, left + 1, parent.tree);
    let separator = Separator::of(node.key(left + 1));
    let (mut target, source) = pages.node_mut_and_source(left_ptr, right_ptr)?;
    if source.is_leaf() {
        target.append_from(source, 0..source.count());
    } else {
        let first = InnerCell { separator: separator.as_stored(), ..source.inner_cell(0) };
        let at = target.as_node().count();
        target.insert_inner(at, first);
        target.append_from(source, 1..source.count());
    }
    target.finish_appends();
    let (is_leaf, total) = (source.is_leaf(), target.as_node().entries_count());
    pages.node_mut(parent).set_child_count(left, total);
    if is_leaf {
        drop_child(pages, parent, left + 1);
    } else {
        // The separator moved down with its extent.
        pages.node_mut(parent).remove(left + 1);
    }
    pages.free(right_ptr);
    Ok(())
}

/// Divides the cells of a pair anew, so that both pages have about the same.
fn share(pages: &mut PageFile, parent: PagePtr, left: usize) -> Result<(), PageFault> {
    let node = Node::new(pages.page(parent)?);
    let old_separator = Separator::of(node.key(left + 1));
    let row = Row {
        left: copy_of(pages, child_ptr(node, left, parent.tree))?,
        right: copy_of(pages, child_ptr(node, left + 1, parent.tree))?,
        middle: old_separator.as_stored(),
    };
    if row.left().is_leaf() != row.right().is_leaf() {
        return Ok(());
    }
    let at = balance((0..row.count()).map(|at| row.size_with_slot(at)));
    let is_leaf = row.left().is_leaf();
    let new_separator = if is_leaf {
        let low = whole_key(pages, parent.tree, row.key(at - 1))?;
        let high = whole_key(pages, parent.tree, row.key(at))?;
        let shortest = shortest_between(low, high);
        if shortest.len() > KEY_INLINE_SIZE_BYTES_MAX {
            return Ok(());
        }
        Separator::of(StoredKey::Inline(shortest))
    } else {
        Separator::of(row.key(at))
    };
    let mut cell = node.inner_cell(left + 1);
    let freed = cell.size_with_slot();
    cell.separator = new_separator.as_stored();
    if node.used_bytes() - freed + cell.size_with_slot() > NODE_CAPACITY_BYTES {
        return Ok(());
    }
    let left_ptr = writable_child(pages, parent, left)?;
    let right_ptr = writable_child(pages, parent, left + 1)?;
    let (left_node, right_node) = pages.node_pair_mut(left_ptr, right_ptr);
    let left_count = row.rebuild(left_node, 0..at, parent);
    let right_count = row.rebuild(right_node, at..row.count(), parent);
    let mut node = pages.node_mut(parent);
    node.set_child_count(left, left_count);
    node.remove(left + 1);
    let (separator, page, birth) = (new_separator.as_stored(), right_ptr.page, right_ptr.birth);
    node.insert_inner(left + 1, InnerCell { separator, page, birth, count: right_count });
    if let (true, Some(extent)) = (is_leaf, old_separator.as_stored().extent()) {
        pages.free_extent(extent);
    }
    Ok(())
}

fn copy_of(pages: &PageFile, ptr: PagePtr) -> Result<PageBytes, PageFault> {
    Ok(pages.page(ptr)?.duplicate())
}

/// The cells of two neighbours in one row.
struct Row<'a> {
    left: PageBytes,
    right: PageBytes,
    /// The separator of the right page: the key of its first child, which does not carry it itself.
    middle: StoredKey<'a>,
}

impl Row<'_> {
    fn left(&self) -> Node<'_> {
        Node::new(&self.left)
    }

    fn right(&self) -> Node<'_> {
        Node::new(&self.right)
    }

    fn count(&self) -> usize {
        self.left().count() + self.right().count()
    }

    fn place(&self, at: usize) -> (Node<'_>, usize) {
        match at.checked_sub(self.left().count()) {
            Some(index) => (self.right(), index),
            None => (self.left(), at),
        }
    }

    fn key(&self, at: usize) -> StoredKey<'_> {
        if at == self.left().count() && !self.left().is_leaf() {
            return self.middle;
        }
        let (node, index) = self.place(at);
        node.key(index)
    }

    fn size_with_slot(&self, at: usize) -> usize {
        let (node, index) = self.place(at);
        if node.is_leaf() {
            node.size_with_slot(index)
        } else {
            InnerCell { separator: self.key(at), ..node.inner_cell(index) }.size_with_slot()
        }
    }

    /// Makes a page of part of the row; returns the entries in or below it.
    fn rebuild(&self, target: NodeMut<'_>, part: std::ops::Range<usize>, parent: PagePtr) -> u64 {
        let is_leaf = self.left().is_leaf();
        let kind = if is_leaf { PageKind::Leaf } else { PageKind::Inner };
        let mut target = target.reinit(kind, parent.tree);
        for at in part {
            let (node, index) = self.place(at);
            let end = target.as_node().count();
            if is_leaf {
                target.append_from(node, index..index + 1);
                continue;
            }
            let separator = if end == 0 { StoredKey::Inline(&[]) } else { self.key(at) };
            target.insert_inner(end, InnerCell { separator, ..node.inner_cell(index) });
        }
        target.finish_appends();
        target.as_node().entries_count()
    }
}
