//! Insertion into a page, with a split where it overflows.
//!
//! Invariants:
//! - An entry added behind the last of a full page gets a page of its own: keys that arrive in order
//!   leave full pages behind. Elsewhere a page is divided where the halves are most alike.
//! - The separator that goes up is the shortest that tells the two pages apart.

use crate::page::node::{
    InnerCell, KEY_INLINE_SIZE_BYTES_MAX, KEY_START_SIZE_BYTES, LeafCell, NODE_CAPACITY_BYTES,
    Node, StoredKey,
};
use crate::page::{ExtentRef, PageFault, PageFile, PageKind, PagePtr, Pages, Root, TreeTag};

use super::search::whole_key;
use super::write::{Path, stored_key};

/// A separator on its way from one page to another.
pub(super) struct Separator {
    /// The whole key, or the start of a long one.
    inline: Vec<u8>,
    extent: Option<ExtentRef>,
}

impl Separator {
    pub(super) fn of(stored: StoredKey<'_>) -> Self {
        Self { inline: stored.inline().to_vec(), extent: stored.extent() }
    }

    pub(super) fn as_stored(&self) -> StoredKey<'_> {
        stored_key(&self.inline, self.extent)
    }
}

/// The shortest key greater than `left` and not greater than `right`.
pub(super) fn shortest_between<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    let shared = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    // The keys are in order, so the right one goes on where they part.
    &right[..(shared + 1).min(right.len())]
}

fn store_separator(
    pages: &mut PageFile,
    tree: TreeTag,
    key: Vec<u8>,
) -> Result<Separator, PageFault> {
    if key.len() <= KEY_INLINE_SIZE_BYTES_MAX {
        return Ok(Separator { inline: key, extent: None });
    }
    let extent = pages.allocate_extent(tree, &key)?;
    Ok(Separator { inline: key[..KEY_START_SIZE_BYTES].to_vec(), extent: Some(extent) })
}

/// Where to divide a row of cells of these sizes: both parts fit a page and are most alike.
pub(super) fn balance(sizes: impl Iterator<Item = usize> + Clone) -> usize {
    let total: usize = sizes.clone().sum();
    let mut best = (usize::MAX, 0);
    let mut left = 0;
    for (index, size) in sizes.enumerate() {
        let right = total - left;
        if index > 0 && left <= NODE_CAPACITY_BYTES && right <= NODE_CAPACITY_BYTES {
            best = best.min((left.abs_diff(right), index));
        }
        left += size;
    }
    assert!(best.0 < usize::MAX, "cells of half a page at most can always be divided");
    best.1
}

/// The sizes of a page's cells with one more at `index`.
fn sizes_with(
    node: Node<'_>,
    index: usize,
    size: usize,
) -> impl Iterator<Item = usize> + Clone + '_ {
    (0..=node.count()).map(move |at| match at.cmp(&index) {
        std::cmp::Ordering::Less => node.size_with_slot(at),
        std::cmp::Ordering::Equal => size,
        std::cmp::Ordering::Greater => node.size_with_slot(at - 1),
    })
}

/// Puts an entry in a leaf at `index`; divides the leaf if it must.
pub(super) fn insert_leaf(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    leaf: PagePtr,
    index: usize,
    cell: LeafCell<'_>,
) -> Result<(), PageFault> {
    let mut target = pages.node_mut(leaf);
    let size = cell.size_with_slot();
    if target.has_room(size) {
        target.insert_leaf(index, cell);
        return Ok(());
    }
    let node = target.as_node();
    let count = node.count();
    let at = if index == count { count } else { balance(sizes_with(node, index, size)) };
    // The key on either side of the cut, the new one counted in.
    let stored = |at: usize| match at.cmp(&index) {
        std::cmp::Ordering::Less => node.key(at),
        std::cmp::Ordering::Equal => cell.key,
        std::cmp::Ordering::Greater => node.key(at - 1),
    };
    let (left_key, right_key) = (Separator::of(stored(at - 1)), Separator::of(stored(at)));
    let low = whole_key(pages, root.tree, left_key.as_stored())?;
    let high = whole_key(pages, root.tree, right_key.as_stored())?;
    let separator = shortest_between(low, high).to_vec();
    let separator = store_separator(pages, root.tree, separator)?;
    let right = pages.allocate(PageKind::Leaf, root.tree)?;
    let (mut left_node, mut right_node) = pages.node_pair_mut(leaf, right);
    let (keep, new_left) = if index < at { (at - 1, true) } else { (at, false) };
    right_node.append_from(left_node.as_node(), keep..count);
    right_node.finish_appends();
    if keep < count {
        left_node.truncate(keep);
        left_node.finish_appends();
    }
    if new_left {
        left_node.insert_leaf(index, cell);
    } else {
        right_node.insert_leaf(index - at, cell);
    }
    let left_count = left_node.as_node().entries_count();
    insert_child(pages, root, path, NewChild { left_count, separator, right })
}

/// A page that was split off, on its way into the parent.
struct NewChild {
    left_count: u64,
    separator: Separator,
    right: PagePtr,
}

/// Adds the page split off at the lowest level of `path`, dividing parents that overflow.
fn insert_child(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    mut new: NewChild,
) -> Result<(), PageFault> {
    while let Some((parent, left_index)) = path.pop() {
        let right_count = Node::new(pages.page(new.right)?).entries_count();
        let mut node = pages.node_mut(parent);
        node.set_child_count(left_index, new.left_count);
        let cell = InnerCell {
            separator: new.separator.as_stored(),
            page: new.right.page,
            birth: new.right.birth,
            count: right_count,
        };
        if node.has_room(cell.size_with_slot()) {
            node.insert_inner(left_index + 1, cell);
            return Ok(());
        }
        let (left_count, separator, right) = split_inner(pages, parent, left_index + 1, cell)?;
        new = NewChild { left_count, separator, right };
    }
    grow_root(pages, root, &new)
}

/// Divides a full inner page that gets one more child at `index`.
fn split_inner(
    pages: &mut PageFile,
    parent: PagePtr,
    index: usize,
    cell: InnerCell<'_>,
) -> Result<(u64, Separator, PagePtr), PageFault> {
    let right = pages.allocate(PageKind::Inner, parent.tree)?;
    let (mut left_node, mut right_node) = pages.node_pair_mut(parent, right);
    let count = left_node.as_node().count();
    let at = if index == count {
        count
    } else {
        balance(sizes_with(left_node.as_node(), index, cell.size_with_slot()))
    };
    // The first child on the right leaves its separator to the parent.
    let first = match at.cmp(&index) {
        std::cmp::Ordering::Less => left_node.as_node().inner_cell(at),
        std::cmp::Ordering::Equal => cell,
        std::cmp::Ordering::Greater => left_node.as_node().inner_cell(at - 1),
    };
    let separator = Separator::of(first.separator);
    right_node.insert_inner(0, InnerCell { separator: StoredKey::Inline(&[]), ..first });
    let keep = if index < at { at - 1 } else { at };
    let moved_from = if at == index { keep } else { keep + 1 };
    right_node.append_from(left_node.as_node(), moved_from..count);
    right_node.finish_appends();
    left_node.truncate(keep);
    left_node.finish_appends();
    if index < at {
        left_node.insert_inner(index, cell);
    } else if index > at {
        right_node.insert_inner(index - at, cell);
    }
    Ok((left_node.as_node().entries_count(), separator, right))
}

/// Puts a new root above the old one and the page that was split off it.
fn grow_root(pages: &mut PageFile, root: &mut Root, new: &NewChild) -> Result<(), PageFault> {
    let right_count = Node::new(pages.page(new.right)?).entries_count();
    let top = pages.allocate(PageKind::Inner, root.tree)?;
    let mut node = pages.node_mut(top);
    node.insert_inner(
        0,
        InnerCell {
            separator: StoredKey::Inline(&[]),
            page: root.page,
            birth: root.birth,
            count: new.left_count,
        },
    );
    node.insert_inner(
        1,
        InnerCell {
            separator: new.separator.as_stored(),
            page: new.right.page,
            birth: new.right.birth,
            count: right_count,
        },
    );
    (root.page, root.birth, root.height) = (top.page, top.birth, root.height + 1);
    Ok(())
}
